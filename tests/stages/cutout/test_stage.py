"""Cut-out commands at once, on images that change: no entry is lost, no cut-out is of another one.

The steps of two commands and of a user, who replaces images, follow each other in drawn orders.
"""

import io
import os
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image
from support.blocks import batch_of
from support.interleaving import interleave
from support.s3_servers import Server

from carvana_ray import config, storage
from carvana_ray.cutouts import index
from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.cutouts.index import CutoutIndex
from carvana_ray.data.collect import CollectedImages
from carvana_ray.data.quarantine import OK
from carvana_ray.errors import IncompleteError
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages.cutout import stage
from carvana_ray.stages.cutout.chains import writing
from carvana_ray.stages.cutout.plan_run import FOLDER, CutoutInput, CutoutRun
from carvana_ray.stages.cutout.write_cutouts import CutoutWriter, write_from_rows
from carvana_ray.stages.ingest.read_images import block_row
from carvana_ray.storage import FileInfo

HERE = ClusterResources(cpus=2, gpus=0, nodes=1)
STYLE = CutoutStyle(soft=False, background=None, format="png", mask_only=False)
NAMES = ["a.png", "b.png", "c.png", "d.png"]


class Studio:
    """A folder of images of one gray level each, which are replaced and cut out."""

    def __init__(self, home: str) -> None:
        self.photos, self.out = storage.join(home, "photos"), storage.join(home, "out")
        self.level_of: dict[FileInfo, int] = {}
        self.ok: dict[str, list[FileInfo]] = {}  # the images of commands without an error
        for name in NAMES:
            self.replace(name)

    def replace(self, name: str) -> None:
        """Write a new version of an image."""
        level = len(self.level_of) + 1
        file = io.BytesIO()
        Image.fromarray(np.full((2, 2), level, np.uint8)).save(file, "PNG")
        uri = storage.join(self.photos, name)
        storage.write_atomic(uri, file.getvalue(), replace=True)
        if not storage.is_remote(uri):  # two versions might have one time
            os.utime(uri, ns=(level, level))
        self.level_of |= dict.fromkeys(self.list([name]), level)

    def list(self, names: Sequence[str]) -> list[FileInfo]:
        """Return the images of these names as they are now."""
        return [entry for entry in storage.list_files(self.photos) if entry.name in names]

    def cut_out(self, command: str, names: Sequence[str]) -> None:
        """Run a command on some images, without Ray; note if it ends without an error."""
        run = self.plan(names)
        writer = CutoutWriter(self.photos, run.target, STYLE)
        statuses = []
        for image in run.pending:
            columns = writing(writer, run.sources, {}).columns([image])
            row = {**block_row("", [image]), **columns, "texts": ["1 4"]}
            statuses += write_from_rows(batch_of(row), writer)["status"].tolist()
        try:
            stage.require_all(run, [])
        except IncompleteError as error:
            statuses.append(str(error))
        self.ok[command] = run.checked.entries if set(statuses) <= {OK} else []

    def plan(self, names: Sequence[str]) -> CutoutRun:
        """Return the run of a command on some images as they are now."""
        images = self.list(names)
        outputs = {image.name: image.name.rpartition(".")[0] for image in images}
        found = CollectedImages(self.photos, images, outputs)
        checked = CutoutInput(found, {}, {}, STYLE, {"model": "none"}, None)
        flags = config.CutoutFlags(data=self.photos, out=self.out, submission="rows.csv")
        return stage.plan_run(flags, HERE, checked)

    def listed(self) -> dict[str, FileInfo]:
        """Return the entries of the index by image name, after a look at all their files."""
        folder = storage.join(self.out, FOLDER)
        sources = CutoutIndex.from_bytes(storage.read(storage.join(folder, index.FILE))).sources
        for file in storage.list_files(folder, (".png",)):
            entry = sources[file.name].entry
            pixel = Image.open(io.BytesIO(storage.read(storage.join(folder, file.name))))
            level = pixel.getpixel((0, 0))[0]  # type: ignore[index]
            assert self.level_of.get(entry, level) == level, f"{file.name} is of another version"
        return {source.entry.name: source.entry for source in sources.values()}

    def made(self) -> set[str]:
        """Return the names of the cut-outs."""
        files = storage.list_files(storage.join(self.out, FOLDER), (".png",))
        return {file.name for file in files}


def check_interleaving(home: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = Studio(home)

    def user() -> None:
        for name in ("b.png", "c.png", "b.png"):
            studio.replace(name)

    ended = interleave(
        seed,
        monkeypatch,
        first=lambda: studio.cut_out("first", NAMES[:3]),
        second=lambda: studio.cut_out("second", NAMES[1:]),
        user=user,
    )
    listed = studio.listed()
    assert sorted(listed) == NAMES, "an entry is lost"
    last = next(name for name in reversed(ended) if name != "user")
    for image in studio.ok[last]:
        assert listed[image.name] == image
        assert image.name in studio.made()
    studio.cut_out("again", NAMES)
    assert list(studio.listed().values()) == studio.ok["again"] == studio.list(NAMES)
    assert sorted(studio.made()) == NAMES


@pytest.mark.parametrize("seed", range(30))
def test_two_commands_in_any_order_of_steps_on_disk(
    tmp_path: os.PathLike[str], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_interleaving(str(tmp_path), seed, monkeypatch)


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))]
)
def test_two_commands_in_any_order_of_steps_in_s3(
    s3: Server, bucket: Callable[[Server], str], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_interleaving(bucket(s3), seed, monkeypatch)


def test_a_cutout_that_another_command_removes_or_makes_again_is_told(
    tmp_path: os.PathLike[str],
) -> None:
    studio = Studio(str(tmp_path))
    run = studio.plan(NAMES)
    with pytest.raises(IncompleteError, match=r"out/cutouts/a\.png: removed .* 4 cut-outs; run"):
        stage.require_all(run, [])
    studio.cut_out("first", NAMES)
    stage.require_all(run, [])
    storage.remove(storage.join(run.target, "b.png"))
    with pytest.raises(IncompleteError, match=r"out/cutouts/b\.png: removed .* 1 cut-out; run"):
        stage.require_all(run, [])
    stage.require_all(run, [("b.png", "truncated", 0)])
    studio.replace("c.png")
    studio.cut_out("second", NAMES)
    with pytest.raises(IncompleteError, match=r"out/cutouts/c\.png: .* made again"):
        stage.require_all(run, [])
