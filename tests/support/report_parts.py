"""For tests of the report: invented parts, and a parser of its HTML."""

import html.parser
import io
from typing import Any

import numpy as np
from PIL import Image

from carvana_ray.data.cars import KAGGLE
from carvana_ray.report import overlays
from carvana_ray.report.builder import Part

SHA = "5b" * 32
EVIL = "<script>alert(\"1\")</script> & 'x' <img src=x onerror=alert(1)>"
EMPTY = {"meta", "img", "link", "input"}  # tags that need no end


class Tags(html.parser.HTMLParser):
    """Checks that tags are closed in order; collects tags, text and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "|"


def jpeg(seed: int, height: int = 1280, width: int = 1918, noise: bool = False) -> bytes:
    rng = np.random.default_rng(seed)
    if noise:
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    else:
        pixels = np.full((height, width, 3), rng.integers(40, 220, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=50)
    return buffer.getvalue()


def scored(name: str, noise: bool = False, size: tuple[int, int] = (1280, 1918)) -> overlays.Figure:
    rng = np.random.default_rng(len(name))
    truth = np.zeros(size, dtype=bool)
    truth[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = True
    mask = np.roll(truth, 3, axis=1) if not noise else rng.random(size) < 0.5
    words = overlays.Caption(lines=[f"Dice of {name}"])
    return overlays.scored_figure(name, jpeg(1, *size, noise), mask, truth, words)


def evaluation(
    name: str = "0123456789ab_01.jpg", images: int = 3, figures: int = 1, noise: bool = False
) -> Part:
    rows: list[list[Any]] = [[name, KAGGLE.car_of(name), 1, 0.5, 0.9994, 0.2, 0.1]]
    for n in range(1, images):
        car, dice = f"{n // 16:012x}", 0.99 + 0.009 * n / images
        view = n % 16 + 1
        rows.append([f"{car}_{view:02d}.jpg", car, view, dice, 0.9994, 0.004, 0.003])
    shown = [scored(name, noise, (1280, 1918) if noise else (160, 240)) for _ in range(figures)]
    history = [
        {"epoch": epoch, "loss": 1 / epoch, "dice": 1 - 0.1 / epoch, "accuracy": 0.99}
        | {"images_per_second": 600.0, "val_loss": 1 / epoch, "val_dice": 1 - 0.1 / epoch}
        for epoch in range(1, 6)
    ]
    return {
        "model": SHA,
        "made": "2026-11-22 23:00 UTC",
        "result": {"images": images, "dice": 0.99},
        "scores": rows,
        "worst": shown,
        "median": shown[:4],
        "history": history,
        "seconds": {"list": 1.0, "predict": 20.5},
        "speed": {"pictures a second": 12.5},
        "lineage": {
            "data": {"folder": f"/photos/{name}/train", "pictures": images},
            "configuration of this job": {"out": "/results/run"},
        },
    }


def prediction(name: str = "photo.jpg", noise: bool = False, figures: int = 1) -> Part:
    size = (1280, 1918) if noise else (160, 240)
    rng = np.random.default_rng(0)
    mask = rng.random(size) < 0.5 if noise else np.tri(*size, dtype=bool)
    words = overlays.Caption(lines=["Score 7.0"], reasons=[f"a hole in {name}"])
    shown = [overlays.unscored_figure(name, jpeg(2, *size, noise), mask, words)] * figures
    result = {"images": 3, "bad": 1, "images_per_second": 1000.0, "submission": None}
    return {
        "model": SHA,
        "made": "2026-11-22 23:10 UTC",
        "result": result,
        "review": {"looked": 2, "listed": 1, "csv": "review.csv", "figures": shown},
        "bad": [[name, f"truncated: {name}"]],
        "shown": shown[:8],
        "seconds": {"plan": 0.1, "predict": 3.0},
        "lineage": {"data": {"folder": "/photos/test", "pictures": 3}},
    }


def both(**more: Any) -> dict[str, Part]:
    return {"evaluate": evaluation(**more), "predict": prediction(**more)}
