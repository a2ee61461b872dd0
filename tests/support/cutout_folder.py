"""A folder of invented cut-outs, and what a command publishes about it."""

import dataclasses
import io
import json
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from carvana_ray import config, storage
from carvana_ray.cutouts import index
from carvana_ray.cutouts.compositing import CutoutStyle, render
from carvana_ray.data.collect import CollectedImages
from carvana_ray.stages.cutout import publish
from carvana_ray.stages.cutout.plan_run import CutoutInput, source_images

RESULT = {"images": 3, "written": 3, "resumed": 0, "bad": 0, "images_per_second": 1.5}
RESULT |= {"seconds": 2.0}
SETTINGS = {"model": "none", "edge": "hard", "background": "transparent", "format": "png"}
SIZE = 90, 120
NO_ENGINE: Any = SimpleNamespace(errors=())  # of commands that call no maps at their end


def photo(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", SIZE[::-1], (level, 100, 255 - level)).save(buffer, "PNG")
    return buffer.getvalue()


def mask(holes: bool = False) -> np.ndarray:
    car = np.zeros(SIZE, np.bool_)
    car[20:70, 20:100] = True
    if holes:
        car[30:60, 30:60] = False
    return car


class Folder:
    """A folder of images, and commands that cut them out."""

    def __init__(self, home: str, **style: Any) -> None:
        self.photos, self.out = storage.join(home, "photos"), storage.join(home, "out")
        values = {"soft": False, "background": None, "format": "png", "mask_only": False}
        self.style = CutoutStyle(**{**values, **style})
        self.settings = {**SETTINGS, "mask_only": self.style.mask_only}

    def cut_out(
        self, masks: dict[str, np.ndarray], bad: Any = (), engine: Any = NO_ENGINE, **flags: Any
    ) -> dict[str, Any]:
        """Cut out images that are new, by path; publish; return the result."""
        for level, name in enumerate(masks):
            storage.write_atomic(storage.join(self.photos, name), photo(60 * level % 256))
        entries = self._listed(masks)
        outputs = {entry.name: entry.name.rpartition(".")[0] for entry in entries}
        images = CollectedImages(self.photos, entries, outputs)
        checked = CutoutInput(images, {}, {}, self.style, self.settings, None)
        target, sources = storage.join(self.out, "cutouts"), source_images(checked)
        wanted = index.by_output_name(sources.values(), ".png")
        names = index.sync(target, self.settings, wanted, ".png")
        for entry in entries:
            data = storage.read(storage.join(self.photos, entry.name))
            cutout = render(data, self.style, mask=masks[entry.name])
            file = sources[entry.name].cutout(".png")
            storage.write_atomic(storage.join(target, file), cutout)
        run = SimpleNamespace(
            flags=config.CutoutFlags(
                **{"data": self.photos, "out": self.out, "on_bad_picture": "skip", **flags}
            ),
            checked=checked,
            target=target,
            sources=sources,
            cpus=2,
            pending=[e for e in entries if sources[e.name].cutout(".png") in names],
        )
        result = {**RESULT, "bad": len(bad)}
        publish.publish(run, list(bad), result, engine)  # type: ignore[arg-type]
        return result

    def _listed(self, names: Iterable[str]) -> list[storage.FileInfo]:
        """Return the images of these paths, as a job lists them."""
        entries = []
        for place in sorted({storage.parent(name) for name in names}):
            for entry in storage.list_files(
                storage.join(self.photos, place) if place else self.photos
            ):
                path = f"{place}/{entry.name}" if place else entry.name
                if path in names:
                    entries.append(dataclasses.replace(entry, name=path))
        return entries

    def part(self) -> dict[str, Any]:
        return json.loads(storage.read(storage.join(self.out, "report", "cutout.json")))

    def page(self) -> str:
        return storage.read(storage.join(self.out, "report.html")).decode()
