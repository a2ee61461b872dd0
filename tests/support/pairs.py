"""Drawn images and masks, and a data set of them in Kaggle's layout."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 1280, 1918


def draw_pair(seed: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> tuple[bytes, bytes]:
    """Return a JPEG of a dark ellipse on a pale background, and its mask as GIF."""
    height, width = size
    rng = np.random.default_rng(seed)
    x, y = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.5, 0.6)
    rx, ry = width * rng.uniform(0.2, 0.35), height * rng.uniform(0.15, 0.3)
    box = (x - rx, y - ry, x + rx, y + ry)
    image = Image.new("RGB", (width, height), (200, 205, 210))
    ImageDraw.Draw(image).ellipse(box, fill=tuple(int(v) for v in rng.integers(20, 120, 3)))
    mask = Image.new("P", (width, height), 0)
    mask.putpalette([0, 0, 0, 255, 255, 255])
    ImageDraw.Draw(mask).ellipse(box, fill=1)
    jpeg, gif = io.BytesIO(), io.BytesIO()
    image.save(jpeg, "JPEG", quality=55)
    mask.save(gif, "GIF")
    return jpeg.getvalue(), gif.getvalue()


def waves(height: int, width: int) -> np.ndarray:
    """A color image uint8 [H, W, 3], steep enough that a grid off by one block shows at once."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    channels = [
        128 + 80 * np.sin(x / a + phase) * np.cos(y / b)
        for a, b, phase in ((32, 40, 0), (45, 30, 1), (37, 36, 2))
    ]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def block_mean(levels: np.ndarray, downscale: int) -> np.ndarray:
    """The mean of each block, float64 [h, w]; the last row and column are repeated as padding."""
    height, width = levels.shape
    h, w = math.ceil(height / downscale), math.ceil(width / downscale)
    padding = ((0, h * downscale - height), (0, w * downscale - width))
    padded = np.pad(levels.astype(np.float64), padding, mode="edge")
    return padded.reshape(h, downscale, w, downscale).mean(axis=(1, 3))


def make_data(root: Path, cars: int, test_cars: int, views: int = 16) -> Path:
    """Draw a data set in Kaggle's layout; cars are ``000000000000``, ``000000000001``, ..."""
    for folder in ("train", "train_masks", "test"):
        (root / folder).mkdir(parents=True)
    names = []
    for car in range(cars + test_cars):
        for view in range(1, views + 1):
            stem = f"{car:012x}_{view:02d}"
            jpeg, gif = draw_pair(100 * car + view)
            if car < cars:
                (root / "train" / f"{stem}.jpg").write_bytes(jpeg)
                (root / "train_masks" / f"{stem}_mask.gif").write_bytes(gif)
            else:
                (root / "test" / f"{stem}.jpg").write_bytes(jpeg)
                names.append(f"{stem}.jpg")
    lines = ["img,rle_mask", *(f"{name},1 1" for name in names)]
    (root / "sample_submission.csv").write_text("\n".join(lines) + "\n")
    return root
