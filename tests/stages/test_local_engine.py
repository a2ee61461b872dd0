"""The engine without Ray: its results equal those with Ray, and a crash costs a child only."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.blocks import listed
from support.dying import die_of_memory, names_and_statuses, read_and_die
from support.pairs import draw_pair
from support.s3_buckets import download, upload
from support.s3_servers import Server
from support.survival import draw
from support.watched import SIZE, make_model

from carvana_ray import config
from carvana_ray.checkpoints.model import ModelRef, load_manifest
from carvana_ray.data.quarantine import CRASH, OK
from carvana_ray.errors import BadImagesError, IncompleteError
from carvana_ray.runtime.children import Children
from carvana_ray.runtime.resources import ClusterResources, WorkerAllocation
from carvana_ray.stages import few_images
from carvana_ray.stages.cutout import stage as cutout
from carvana_ray.stages.engine import LastMap, MaskMaps
from carvana_ray.stages.ingest import crash_isolation
from carvana_ray.stages.ingest.crash_isolation import find_crashing, run_with_isolation
from carvana_ray.stages.ingest.read_images import ReadOptions, block_row
from carvana_ray.stages.local_engine import LocalEngine
from carvana_ray.stages.predict import stage as predict
from carvana_ray.stages.predict.mask_predictor import SoftMaskPredictor
from carvana_ray.storage import FileInfo

HERE = ClusterResources(cpus=4, gpus=0, nodes=1)
WORKERS = WorkerAllocation(1, 2, False)


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with Children(2, ["carvana_ray.stages.cutout.write_cutouts"]) as children:
        yield LocalEngine(children)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images in several sizes and formats; six are bad."""
    folder = tmp_path_factory.mktemp("few") / "photos"
    names = draw(folder, 0, 36)
    for number, (name, size) in enumerate({"x.JPEG": (121, 77), "z.b.jpg": (333, 251)}.items()):
        (folder / name).write_bytes(draw_pair(number, size)[0])
    Image.effect_noise((90, 61), 80).convert("P").save(folder / "gray.png")
    Image.effect_noise((90, 61), 80).save(folder / "other.webp")
    for name in names[3:9:3]:
        (folder / name).write_bytes((folder / name).read_bytes()[:900])
    (folder / names[20]).write_bytes(b"text")
    (folder / names[21]).write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def model(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of an untrained network; its masks are all different."""
    folder = tmp_path_factory.mktemp("few-model") / "model"
    make_model(folder, [draw_pair(seed, SIZE)[0] for seed in range(20)])
    return folder


CATALOGUE = {"frame": "catalogue", "size": "320x240"}
TURNING = {"edge": "hard", "viewer": True, "cars_by": "(car_000[0-3])"}
CHANGING = {"made", "seconds", "images_per_second", "speed"}  # from one run to the next


def steady(value: Any) -> Any:
    """Return a JSON value without what changes from one run to the next."""
    if isinstance(value, dict):
        return {key: steady(one) for key, one in value.items() if key not in CHANGING}
    return [steady(one) for one in value] if isinstance(value, list) else value


def content(out: Path) -> dict[str, Any]:
    """Return the files of a folder of results, JSON as values; the page is made of report/."""
    files = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name, data = str(path.relative_to(out)), path.read_bytes()
        if name == "report.html":
            continue
        text = data.replace(str(out).encode(), b"OUT") if name.endswith(".json") else data
        files[name] = steady(json.loads(text)) if name.endswith(".json") else data
    return files


def outcome(work: Callable[[], dict[str, Any]], out: Path) -> tuple[Any, Any]:
    """Return the result of a job, or its error and the result in it, and its files."""
    try:
        result: Any = work()
    except BadImagesError as error:
        result = [str(error).replace(str(out), "OUT"), error.result]
    text = json.dumps(result).replace(str(out), "OUT")
    return steady(json.loads(text)), content(out)


@pytest.mark.ray
@pytest.mark.parametrize(
    "flags",
    [{}, {"on_bad_picture": "empty", "submission": "s.csv.gz", "shard_size": 7, "verify": True}],
)
def test_predictions_equal_those_with_ray(
    photos: Path, model: Path, engine: LocalEngine, ray_session: None, tmp_path: Path, flags: Any
) -> None:
    outcomes = []
    for name, own in {"ray": None, "here": engine}.items():
        out = tmp_path / name
        values = {"data": str(photos), "model": str(model), "out": str(out), **flags}
        given = config.PredictFlags(**values)
        outcomes.append(outcome(partial(predict.run, given, HERE, engine=own), out))
    (result, files), expected = outcomes[1], outcomes[0]
    assert result == expected[0]
    assert files.keys() == expected[1].keys()
    for name, data in files.items():
        assert data == expected[1][name], name
    assert any(name.endswith(".parquet") for name in files)
    assert ("s.csv.gz" if flags else "predict") in " ".join(files)


@pytest.mark.ray
@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"format": "webp", "background": "white", **TURNING, **CATALOGUE},
        {"rows": True},
        {**CATALOGUE, "rows": True},
    ],
)
def test_cutouts_equal_those_with_ray(
    photos: Path, model: Path, engine: LocalEngine, ray_session: None, tmp_path: Path, flags: Any
) -> None:
    values = {"data": str(photos), "model": str(model), **flags}
    if values.pop("rows", False):
        rows = [f"{path.name},7 2\n" for path in sorted(photos.iterdir())]
        (tmp_path / "rows.csv").write_text("".join(["img,rle_mask\n", *rows]))
        values |= {"submission": str(tmp_path / "rows.csv"), "model": ""}
    outcomes = []
    for name, own in {"ray": None, "here": engine}.items():
        out = tmp_path / name / "out"
        given = config.CutoutFlags(**values, out=str(out))
        outcomes.append(outcome(partial(cutout.run, given, HERE, engine=own), out))
    (result, files), expected = outcomes[1], outcomes[0]
    assert result == expected[0]
    assert files.keys() == expected[1].keys()
    for name, data in files.items():
        assert data == expected[1][name], name
    cutouts = [name for name in outcomes[1][1] if name.startswith("cutouts/")]
    # With the index and quarantine.csv, and the list of cars.
    assert len(cutouts) == 36 + 2 + ("frame" in flags)
    pages = [name for name in files if name.startswith("viewer/") and name.endswith(".html")]
    assert len(pages) == (4 if "viewer" in flags else 0)


def test_a_second_run_finds_nothing_to_do_and_one_of_missing_files_makes_these(
    photos: Path, model: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    flags = config.CutoutFlags(
        data=str(photos), model=str(model), out=str(out), on_bad_picture="skip"
    )
    made = [cutout.run(flags, HERE, engine=engine)["written"]]
    before = content(out / "cutouts")
    made.append(cutout.run(flags, HERE, engine=engine)["written"])
    (out / "cutouts/gray.png").unlink()
    (out / "cutouts/car_00000.png").unlink()
    made.append(cutout.run(flags, HERE, engine=engine)["written"])
    assert made == [36, 0, 2]
    assert content(out / "cutouts") == before


def test_results_in_s3_equal_those_on_disk(
    photos: Path,
    model: Path,
    engine: LocalEngine,
    s3: Server,
    bucket: Callable[[Server], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = bucket(s3)
    upload(s3, photos, f"{home}/photos")
    upload(s3, model, f"{home}/model")
    values = {"data": f"{home}/photos", "model": f"{home}/model", "out": f"{home}/out"}
    skip = {"on_bad_picture": "skip"}
    flags = config.CutoutFlags(**values, **skip)
    with monkeypatch.context() as without_ray:  # another test may have started it
        without_ray.setitem(sys.modules, "ray", None)
        without_ray.delenv("RAY_ADDRESS", raising=False)
        assert few_images.count_here("cutout", flags) == 40
        assert few_images.count_here("predict", config.PredictFlags(**values)) == 40
    with Children(2) as children:  # which start with the credentials
        cutout.run(flags, HERE, engine=LocalEngine(children))
    here = {"data": str(photos), "model": str(model), "out": str(tmp_path)}
    cutout.run(config.CutoutFlags(**here, **skip), HERE, engine=engine)
    in_s3 = download(s3, f"{home}/out/cutouts")
    on_disk = {path.name: path.read_bytes() for path in tmp_path.glob("cutouts/*")}
    assert in_s3.keys() == on_disk.keys()
    assert all(in_s3[name] == on_disk[name] for name in on_disk if name != "_cutouts.json")


def chain_of(folder: Path, model: Path) -> tuple[MaskMaps, LastMap]:
    options = ReadOptions(str(folder), 8, None, SIZE)
    reference = ModelRef(str(model), load_manifest(str(model)).sha256)
    read = partial(read_and_die, options=options)
    masks = MaskMaps(read, SoftMaskPredictor, reference, WORKERS, 8, [])
    return masks, LastMap(names_and_statuses, None, trial=names_and_statuses)


@dataclass(frozen=True)
class Block:
    """Images of one task."""

    name: str
    entries: Sequence[FileInfo]


def test_an_image_that_kills_its_process_is_found_and_all_others_are_done(
    model: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    names = [f"{name}.jpg" for name in "abcdefgh"]
    for name in names:
        (tmp_path / name).write_bytes(draw_pair(0, SIZE)[0])
    images = listed(tmp_path, names)
    blocks = [Block(str(first), images[first : first + 2]) for first in range(0, 8, 2)]
    masks, last = chain_of(tmp_path, model)
    statuses: dict[str, str] = {}

    def run_blocks(pending: Any, preset: Any, max_lost: int) -> set[str]:
        rows = [block_row(block.name, block.entries, preset_status=preset) for block in pending]
        done = set()
        for columns in engine.chain(rows, masks, last, max_lost):
            done |= set(columns["file"].tolist())
            statuses.update(zip(columns["img"].tolist(), columns["status"].tolist(), strict=True))
        return done

    run_with_isolation(blocks, run_blocks, engine.try_chain(masks, last))
    assert statuses == {name: CRASH if name == "c.jpg" else OK for name in names}
    assert find_crashing(images, engine.try_chain(masks)) == [images[2]]


def test_no_more_blocks_are_lost_than_are_allowed(
    model: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    (tmp_path / "c.jpg").write_bytes(draw_pair(0, SIZE)[0])
    masks, last = chain_of(tmp_path, model)
    rows = [block_row(str(number), listed(tmp_path, ["c.jpg"])) for number in range(3)]
    assert list(engine.chain(rows, masks, last, 3)) == []
    with pytest.raises(IncompleteError, match=r"died \(Segmentation fault\); run the same"):
        list(engine.chain(rows, masks, last, 2))


def test_a_machine_that_is_short_of_memory_names_no_image(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash_isolation, "PAUSE_S", 0)
    start = engine.try_map(die_of_memory, lambda image: image.name)
    with pytest.raises(IncompleteError, match=r"out of memory while reading a\.jpg alone, 4 times"):
        find_crashing([FileInfo("a.jpg", 1, "1")], start)


def test_a_gpu_fault_is_one_line(
    model: Path, engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")

    (tmp_path / "a.jpg").write_bytes(draw_pair(0, SIZE)[0])
    masks, last = chain_of(tmp_path, model)
    monkeypatch.setattr(SoftMaskPredictor, "__call__", fault)
    with pytest.raises(IncompleteError, match=r"GPU fault \(CUDA .*encountered\); run the same"):
        list(engine.chain([block_row("x", listed(tmp_path, ["a.jpg"]))], masks, last, 0))
