"""The last map of a cut-out job: masks and pictures become files, each written whole.

Pictures of full size never travel: whoever writes a cut-out opens the picture and decodes it. That
and the packing is what the job costs beside the network, so the number of these tasks is the
number of cores. One holds a picture at a time, some 40 MB for 1918 x 1280.

Imports no torch: these tasks run in processes of their own, which should start quickly.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ray import rle, storage
from carvana_ray.cutouts import compositing as cutout
from carvana_ray.cutouts import index as ledger
from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.data.quarantine import OK, UNREACHABLE
from carvana_ray.errors import BadImageError, InputError, first_line
from carvana_ray.images import validate as formats
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.stages.ingest import read_images as reading
from carvana_ray.stages.ingest.blocks import Columns

PROBLEM = "problem"  # begins the status of a cut-out that is not there, for no fault of its picture


def from_shares(batch: Columns, *, folder: str, target: str | None, style: CutoutStyle) -> Columns:
    """Map the network's share of car of pictures to their cut-outs; write these.

    Args:
        batch: as `masks.masks_of` returns it, with ``soft_mask``.
        folder: of the pictures.
        target: of the cut-outs; None: they are made and dropped.
        style: how they are to look.

    Returns:
        columns file, img, crc32 and status: `OK`, why the picture is bad, or `PROBLEM` and why.
    """
    made = _Made(target, style)
    good = batch["status"] == OK
    names = batch["img"].tolist()
    uris = [storage.join(folder, name) for name, ok in zip(names, good, strict=True) if ok]
    files = storage.read_many(uris, reading.MAX_BYTES)
    for place, name in enumerate(names):
        crc, status = int(batch["crc32"][place]), str(batch["status"][place])
        if good[place]:
            status = made.status_of(name, next(files), crc, share=batch["soft_mask"][place])
        elif status.startswith(UNREACHABLE):
            status = f"{PROBLEM}: {storage.join(folder, name)}: {status}"
        made.add(batch["file"][place], name, crc, status)
    return made.columns()


def from_rows(batch: Columns, *, folder: str, target: str | None, style: CutoutStyle) -> Columns:
    """Map a row of names and run-length texts to cut-outs; write these.

    Args:
        batch: one row of `reading.pictures_row`, and ``texts`` of the masks.
        folder, target, style: as `from_shares` takes them.

    Returns:
        as `from_shares`.
    """
    row = dataset.single_row(batch)
    made = _Made(target, style)
    presets = row["preset_status"]
    read = [name for name, preset in zip(row["names"], presets, strict=True) if not preset]
    files = storage.read_many([storage.join(folder, name) for name in read], reading.MAX_BYTES)
    facts = zip(row["names"], row["crcs"], presets, row["texts"], strict=True)
    for name, crc, verdict, text in facts:
        status, found = str(verdict), 0
        if not verdict:
            answer = next(files)
            found = zlib.crc32(answer) if isinstance(answer, bytes) else 0
            known = None if crc == reading.UNKNOWN else int(crc)
            status = made.status_of(name, answer, known, text=str(text))
        made.add(row["file"], name, found, status)
    return made.columns()


class _Made:
    """Cut-outs of a block, written one after the other."""

    def __init__(self, target: str | None, style: CutoutStyle) -> None:
        self._target, self._style = target, style
        self._rows: list[tuple[str, str, int, str]] = []

    def status_of(
        self,
        name: str,
        answer: bytes | Exception,
        crc: int | None,
        share: NDArray[np.uint8] | None = None,
        text: str = "",
    ) -> str:
        """Make and write a cut-out of what `storage.read_each` gives; return the status."""
        try:
            data = reading.require_readable(answer)
            if share is not None and zlib.crc32(data) != crc:
                return f"{PROBLEM}: {name} was changed while it was cut out"
            formats.require_crc(data, crc)
            mask = _mask(text, formats.image_size(data)) if share is None else None
            made = cutout.render(data, self._style, share, mask)
        except BadImageError as bad:
            return str(bad)
        except OSError as error:
            return f"{PROBLEM}: {error.filename or name}: {error.strerror or error}"
        if self._target is None:
            return OK
        uri = storage.join(self._target, ledger.cutout_name(name, self._style.suffix))
        try:
            storage.write_atomic(uri, made)
        except (OSError, InputError) as error:
            return f"{PROBLEM}: {uri}: {getattr(error, 'strerror', None) or first_line(error)}"
        return OK

    def add(self, file: str, name: str, crc: int, status: str) -> None:
        """Take down what became of a picture."""
        self._rows.append((str(file), name, crc, status))

    def columns(self) -> Columns:
        """Return what was taken down."""
        names: Sequence[str] = ("file", "img", "crc32", "status")
        columns: dict[str, Any] = dict(zip(names, zip(*self._rows, strict=True), strict=True))
        return {name: np.array(column) for name, column in columns.items()}


def _mask(text: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        return rle.decode(text, *size)
    except ValueError as error:
        raise BadImageError(f"row: {error}") from error
