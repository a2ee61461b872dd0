"""Drawn images and masks, and a data set of them in Kaggle's layout."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 1280, 1918


def draw_pair(seed: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> tuple[bytes, bytes]:
    """Return a JPEG of a dark ellipse on a pale ground, and its mask as GIF."""
    height, width = size
    rng = np.random.default_rng(seed)
    x, y = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.5, 0.6)
    rx, ry = width * rng.uniform(0.2, 0.35), height * rng.uniform(0.15, 0.3)
    box = (x - rx, y - ry, x + rx, y + ry)
    picture = Image.new("RGB", (width, height), (200, 205, 210))
    ImageDraw.Draw(picture).ellipse(box, fill=tuple(int(v) for v in rng.integers(20, 120, 3)))
    mask = Image.new("P", (width, height), 0)
    mask.putpalette([0, 0, 0, 255, 255, 255])
    ImageDraw.Draw(mask).ellipse(box, fill=1)
    jpeg, gif = io.BytesIO(), io.BytesIO()
    picture.save(jpeg, "JPEG", quality=55)
    mask.save(gif, "GIF")
    return jpeg.getvalue(), gif.getvalue()


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
