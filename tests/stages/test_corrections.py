"""Masks that a person has corrected, in predictions and cut-outs: they are used as they are."""

import csv
import dataclasses
import hashlib
import io
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.corpus import exif
from support.pairs import draw_pair
from support.s3_buckets import download, upload
from support.s3_servers import Server
from support.survival import draw
from support.watched import SIZE, make_model

from carvana_ray import config, rle
from carvana_ray.errors import BadImagesError, IncompleteError, InputError
from carvana_ray.runtime.children import Children
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages.cutout import stage as cutout
from carvana_ray.stages.cutout.sources import list_sources
from carvana_ray.stages.engine import Engine
from carvana_ray.stages.local_engine import LocalEngine
from carvana_ray.stages.predict import publish
from carvana_ray.stages.predict import stage as predict

HERE = ClusterResources(cpus=4, gpus=0, nodes=1)
SHOW_CUTOUTS = publish._show_cutouts
SHARDS = "predict/*/shards/*"
FIRST, SECOND, LAST = "car_00001.jpg", "car_00003.jpg", "car_00005.jpg"  # in three shards
Mask = NDArray[np.bool_]


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with Children(2, ["carvana_ray.stages.cutout.write_cutouts"]) as children:
        yield LocalEngine(children)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos, two a shard, and a model whose masks are all different."""
    folder = tmp_path_factory.mktemp("corrections")
    draw(folder / "photos", 0, 6)
    make_model(folder / "model", [draw_pair(seed, SIZE)[0] for seed in range(6)])
    return folder


@dataclasses.dataclass
class Desk:
    """A folder of photos, one of corrections, and the results of commands on them."""

    home: str
    photos: Path
    masks: Path
    model: Path
    engine: Engine | None

    def flags(self, out: str, corrected: bool, **flags: Any) -> dict[str, Any]:
        values = {"data": str(self.photos), "model": str(self.model), "out": f"{self.home}/{out}"}
        return {**values, **({"corrections": str(self.masks)} if corrected else {}), **flags}

    def predict(self, out: str = "out", corrected: bool = True, **flags: Any) -> dict[str, Any]:
        values = self.flags(out, corrected, shard_size=2, **flags)
        return predict.run(config.PredictFlags(**values), HERE, engine=self.engine)

    def cut_out(self, out: str = "out", corrected: bool = True, **flags: Any) -> dict[str, Any]:
        values = self.flags(out, corrected, **flags)
        return cutout.run(config.CutoutFlags(**values), HERE, engine=self.engine)

    def path(self, name: str) -> Path:
        return Path(self.home, name)

    def rows(self, out: str = "out") -> dict[str, str]:
        """Return the text of each image of a submission."""
        with self.path(f"{out}/submission.csv").open() as file:
            return dict(list(csv.reader(file))[1:])

    def correct(self, image: str, mask: Mask, name: str = "") -> Mask:
        """Put the mask of an image into the folder; return it."""
        self.masks.mkdir(exist_ok=True)
        path = self.masks / (name or f"{image.rpartition('.')[0]}_mask.png")
        Image.fromarray(mask.view(np.uint8) * np.uint8(255)).save(path)
        return mask


@pytest.fixture
def desk(drawn: Path, engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk without corrections, whose reports show no cut-outs: they take most of the time."""
    monkeypatch.setattr(publish, "_show_cutouts", lambda *_: [])
    shutil.copytree(drawn / "photos", tmp_path / "photos")
    model, photos = drawn / "model", tmp_path / "photos"
    return Desk(str(tmp_path), photos, tmp_path / "fixed", model, engine)


def blob(seed: int, size: tuple[int, int] = SIZE) -> Mask:
    """Return a mask with ragged edges, holes, and pixels at the border."""
    noise = Image.effect_noise((size[1] // 20, size[0] // 20), 90)
    mask = np.array(noise.resize(size[::-1], Image.Resampling.BICUBIC)) > 128
    mask[seed, :] = True
    return mask


def files_of(folder: Path, pattern: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob(pattern))}


def test_a_corrected_row_is_that_of_its_mask_and_all_others_stay(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    masks = {name: desk.correct(name, blob(seed)) for seed, name in enumerate((FIRST, LAST))}
    desk.correct("other.jpg", blob(0))
    assert "corrected" not in desk.predict("plain", corrected=False)
    plain = desk.rows("plain")
    result = desk.predict()
    assert (result["corrected"], result["bad"], result["images"]) == (2, 0, 6)
    assert desk.rows() == {**plain, **{name: rle.encode(mask) for name, mask in masks.items()}}
    assert list(desk.rows()) == list(plain)
    assert all(desk.rows()[name] != plain[name] for name in masks)
    words = "2 masks of {} are used as they are; 1 belongs to no image: other_mask.png"
    (line,) = [one for one in caplog.records if "are used" in one.message]
    assert (line.message, line.levelname) == (words.format(desk.masks), "WARNING")
    submission, shards = desk.path("out/submission.csv"), files_of(desk.path("out"), SHARDS)
    first = submission.read_bytes()
    again = desk.predict(verify=True)
    assert (again["resumed_shards"], again["corrected"]) == (3, 2)
    assert submission.read_bytes() == first
    assert files_of(desk.path("out"), SHARDS) == shards
    assert desk.predict("new")["shards"] == 3
    assert desk.path("new/submission.csv").read_bytes() == first


def test_a_changed_correction_makes_its_image_again_and_without_it_the_old_mask_is_back(
    desk: Desk,
) -> None:
    desk.predict(corrected=False)
    before = desk.path("out/submission.csv").read_bytes()
    masks = {name: desk.correct(name, blob(1)) for name in (FIRST, SECOND)}
    added = desk.predict()
    assert (added["shards"], added["resumed_shards"], added["corrected"]) == (4, 3, 2)
    masks[FIRST] = desk.correct(FIRST, blob(2))
    changed = desk.predict()
    assert changed["shards"] - changed["resumed_shards"] == 1, "a shard of one image"
    assert all(desk.rows()[name] == rle.encode(mask) for name, mask in masks.items())
    (desk.masks / "car_00001_mask.png").unlink()
    assert desk.predict()["corrected"] == 1
    removed = desk.predict(corrected=False)
    assert (removed["shards"], removed["resumed_shards"]) == (3, 3), "nothing is predicted"
    assert desk.path("out/submission.csv").read_bytes() == before


@pytest.mark.slow
def test_a_mask_that_is_still_as_review_wrote_it_is_no_correction(desk: Desk) -> None:
    desk.predict("plain", corrected=False)
    folder, desk.masks = desk.masks, desk.masks / "train_masks"
    desk.masks.mkdir(parents=True)
    desk.correct(FIRST, blob(1))
    mask = desk.correct(LAST, blob(2))
    desk.masks = folder
    written = (folder / "train_masks/car_00001_mask.png").read_bytes()
    masks = {"car_00001_mask.png": hashlib.sha256(written).hexdigest()}
    masks["car_00005_mask.png"] = "0" * 64
    (folder / "_review.json").write_text(json.dumps({"format": 1, "masks": masks}))
    assert desk.predict()["corrected"] == 1
    assert desk.rows() == {**desk.rows("plain"), LAST: rle.encode(mask)}


class Stopping:
    """An engine that ends after the first block."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def chain(self, *args: Any) -> Iterator[Any]:
        yield next(iter(self._engine.chain(*args)))
        raise KeyboardInterrupt


@pytest.mark.slow
def test_a_stopped_run_resumes_with_and_without_corrections(
    desk: Desk, engine: LocalEngine
) -> None:
    mask = desk.correct(FIRST, blob(1))
    desk.engine = Stopping(engine)  # type: ignore[assignment]
    for corrected in (False, True):
        with pytest.raises(KeyboardInterrupt):
            desk.predict(corrected=corrected)
    desk.engine = engine
    result = desk.predict()
    assert result["resumed_shards"] >= 1
    assert desk.rows()[FIRST] == rle.encode(mask)
    desk.predict("plain", corrected=False)
    assert desk.predict(corrected=False)["bad"] == 0, "the image that was left out is predicted"
    assert desk.rows() == desk.rows("plain")


def turn(photo: Path, orientation: int) -> None:
    Image.open(photo).save(photo, exif=exif(orientation))


@pytest.mark.parametrize("orientation", [6, pytest.param(3, marks=pytest.mark.slow)])
def test_a_corrected_mask_has_the_pixels_as_stored(desk: Desk, orientation: int) -> None:
    turn(desk.photos / FIRST, orientation)
    mask = desk.correct(FIRST, blob(1))
    desk.predict()
    assert desk.rows()[FIRST] == rle.encode(mask)
    desk.cut_out(mask_only=True, edge="hard")
    upright = np.asarray(Image.open(desk.path("out/cutouts/car_00001.png")))
    turned = {3: mask[::-1, ::-1], 6: np.rot90(mask, -1)}[orientation]
    assert np.array_equal(upright > 0, turned)


def quarantined(desk: Desk, where: str) -> dict[str, str]:
    (path,) = desk.path("out").glob(f"{where}/quarantine.csv")
    with path.open() as file:
        return {row["img"]: row["reason"] for row in csv.DictReader(file)}


def test_a_bad_correction_is_a_bad_image_that_says_why(desk: Desk) -> None:
    turn(desk.photos / FIRST, 6)
    desk.correct(FIRST, blob(1).T)
    desk.correct(SECOND, blob(1, (300, 480)))
    desk.correct(LAST, blob(1))
    damaged = desk.masks / "car_00005_mask.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(BadImagesError, match="3 images cannot be used"):
        desk.predict()
    with pytest.raises(BadImagesError, match="3 images cannot be used"):
        desk.cut_out()
    for where in ("predict/*", "cutouts"):
        reasons = quarantined(desk, where)
        assert set(reasons) == {FIRST, SECOND, LAST}
        for name, reason in reasons.items():
            path = desk.masks / f"{name[:-4]}_mask.png"
            assert reason.startswith(f"correction: {path}: "), reason
            assert reason.endswith("; correct the mask again, or remove the file")
        assert "fits the upright image (480 x 320)" in reasons[FIRST]
        assert "stored (320 x 480, height x width; EXIF orientation 6)" in reasons[FIRST]
        assert "wrong-size: 300 x 480 (height x width), expected 320 x 480" in reasons[SECOND]
        assert "truncated" in reasons[LAST]
    assert desk.predict(on_bad_picture="empty", max_bad=3)["corrected"] == 0
    assert desk.rows()[FIRST] == ""
    mask = desk.correct(FIRST, blob(1))
    result = desk.predict(on_bad_picture="empty", max_bad=2)
    assert (result["corrected"], result["bad"]) == (1, 2)
    assert desk.rows()[FIRST] == rle.encode(mask)


@pytest.mark.slow
def test_a_prediction_needs_only_the_header_of_a_corrected_image(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_show_cutouts", SHOW_CUTOUTS)
    photo = desk.photos / FIRST
    photo.write_bytes(photo.read_bytes()[:900])
    with pytest.raises(BadImagesError, match="1 image cannot be used"):
        desk.predict(corrected=False)
    mask = desk.correct(FIRST, blob(1))
    assert desk.predict()["bad"] == 0
    assert desk.rows()[FIRST] == rle.encode(mask)
    with pytest.raises(BadImagesError, match="1 image cannot be used"):
        desk.cut_out()  # which needs its colors


def test_a_corrected_mask_is_not_listed_for_review_unless_it_is_empty(desk: Desk) -> None:
    desk.correct(FIRST, blob(1))
    desk.correct(SECOND, np.zeros(SIZE, bool))
    desk.predict()
    with desk.path("out/review.csv").open() as file:
        rows = {row["img"]: row for row in csv.DictReader(file)}
    seen, empty = rows[FIRST], rows[SECOND]
    assert (seen["score"], seen["look"], seen["reasons"]) == ("0.00", "0", "corrected")
    assert (empty["look"], empty["reasons"]) == ("1", "the mask is empty")
    part = json.loads(desk.path("out/report/predict.json").read_text())
    assert part["result"]["corrected"] == 2


def alpha_in(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).getchannel("A"))


def test_a_corrected_cutout_has_the_edge_of_its_mask(desk: Desk) -> None:
    desk.cut_out("plain", corrected=False)
    mask = desk.correct(FIRST, blob(1))
    result = desk.cut_out()
    assert (result["written"], result["corrected"]) == (6, 1)
    plain, made = (files_of(desk.path(out), "cutouts/*.png") for out in ("plain", "out"))
    assert {name for name in plain if plain[name] != made[name]} == {"car_00001.png"}
    alpha = alpha_in(desk.path("out/cutouts/car_00001.png"))
    assert np.array_equal(alpha >= 128, mask)
    inside = np.pad(mask, 1, mode="edge")
    window = np.lib.stride_tricks.sliding_window_view(inside, (3, 3))
    edge = window.any((2, 3)) & ~window.all((2, 3))
    assert set(np.unique(alpha[~edge])) <= {0, 255}, "edges are one pixel wide"
    assert len(np.unique(alpha[edge])) > 4
    desk.cut_out("hard", edge="hard")
    hard = alpha_in(desk.path("hard/cutouts/car_00001.png"))
    assert np.array_equal(hard, mask * np.uint8(255))


def test_a_cutout_is_made_again_if_its_correction_changes_and_only_then(desk: Desk) -> None:
    desk.cut_out(corrected=False)
    before = files_of(desk.path("out"), "cutouts/*[ng]")
    for seed in (1, 2):
        mask = desk.correct(FIRST, blob(seed))
        result = desk.cut_out()
        assert (result["written"], result["resumed"], result["corrected"]) == (1, 5, 1)
        assert np.array_equal(alpha_in(desk.path("out/cutouts/car_00001.png")) >= 128, mask)
    again = desk.cut_out()
    assert (again["written"], again["resumed"], again["corrected"]) == (0, 6, 1)
    assert desk.cut_out(corrected=False)["written"] == 1
    assert files_of(desk.path("out"), "cutouts/*[ng]") == before


@pytest.mark.slow
def test_cutouts_of_sub_folders_take_the_masks_of_the_same_sub_folder(desk: Desk) -> None:
    for folder in ("monday", "tuesday"):
        (desk.photos / folder).mkdir()
        shutil.copy(desk.photos / FIRST, desk.photos / folder / FIRST)
    (desk.masks / "monday").mkdir(parents=True)
    mask = desk.correct(f"monday/{FIRST}", blob(1))
    result = desk.cut_out()
    assert (result["written"], result["corrected"]) == (8, 1)
    cutouts = desk.path("out/cutouts")
    assert np.array_equal(alpha_in(cutouts / "monday/car_00001.png") >= 128, mask)
    other = (cutouts / "tuesday/car_00001.png").read_bytes()
    assert other == (cutouts / "car_00001.png").read_bytes()
    pictures = tuple(str(desk.photos / name) for name in ("monday", "tuesday/car_00002.jpg"))
    shutil.copy(desk.photos / SECOND, desk.photos / "tuesday/car_00002.jpg")
    (desk.masks / "monday/car_00001_mask.png").rename(desk.masks / "car_00001_mask.png")
    alone = desk.cut_out("alone", data="", pictures=pictures)
    assert alone["corrected"] == 1, "of a folder that is named itself it is the folder of masks"


@pytest.mark.slow
def test_the_report_shows_the_corrected_mask_and_not_the_network_s(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_show_cutouts", SHOW_CUTOUTS)
    for name in sorted(path.name for path in desk.photos.iterdir()):
        desk.correct(name, blob(1))
    desk.predict()
    part = json.loads(desk.path("out/report/predict.json").read_text())
    desk.cut_out("cut")
    for figure in part["shown"]:
        source = next(layer["src"] for layer in figure["layers"] if layer["key"] == "cut")
        shown = Image.open(io.BytesIO(_bytes_of(source))).convert("RGBA")
        path = desk.path(f"cut/cutouts/{figure['name'][:-4]}.png")
        cut = Image.open(path).resize(shown.size, Image.Resampling.BOX)
        differ = np.abs(np.asarray(shown.getchannel("A"), int) - np.asarray(cut.getchannel("A")))
        assert differ.mean() < 3


def _bytes_of(uri: str) -> bytes:
    import base64

    return base64.b64decode(uri.partition(",")[2])


@pytest.mark.ray
@pytest.mark.parametrize("job", ["predict", "cut_out"])
@pytest.mark.slow
def test_results_equal_those_with_ray(desk: Desk, ray_session: None, job: str) -> None:
    turn(desk.photos / SECOND, 6)
    desk.correct(FIRST, blob(1))
    desk.correct(SECOND, blob(2))
    desk.correct(LAST, blob(3, (300, 480)))
    for out, engine in {"here": desk.engine, "ray": None}.items():
        desk.engine = engine
        with pytest.raises(BadImagesError, match=r"car_00005\.jpg \(correction: "):
            getattr(desk, job)(out)
    pattern, count = (SHARDS, 3) if job == "predict" else ("cutouts/*[ng]", 6)
    here, ray = (files_of(desk.path(out), pattern) for out in ("here", "ray"))
    assert here == ray
    assert len(here) == count


def test_a_mask_that_changes_during_the_run_ends_it_incomplete(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.correct(FIRST, blob(1))
    flags = config.PredictFlags(**desk.flags("out", True, shard_size=2))
    checked = predict.check(flags)
    path = desk.masks / "car_00001_mask.png"
    for change in (lambda: desk.correct(FIRST, blob(2)), path.unlink):
        change()
        words = rf"car_00001\.jpg \(unreachable: correction {path}: it changed since it was listed"
        with pytest.raises(IncompleteError, match=words):
            predict.run(flags, HERE, checked, desk.engine)
    with pytest.raises(InputError, match=r"--corrections .*: no masks"):
        desk.predict()


@pytest.mark.slow
def test_corrections_in_s3_equal_those_on_disk(
    desk: Desk, s3: Server, bucket: Callable[[Server], str]
) -> None:
    desk.correct(FIRST, blob(1))
    desk.correct(LAST, blob(2))
    desk.predict()
    desk.cut_out()
    home = bucket(s3)
    for folder in (desk.photos, desk.masks):
        upload(s3, folder, f"{home}/{folder.name}")
    with Children(2) as children:  # which start with the credentials
        values = {"data": f"{home}/photos", "model": str(desk.model), "out": f"{home}/out"}
        values["corrections"] = f"{home}/fixed"
        here = LocalEngine(children)
        result = predict.run(config.PredictFlags(**values, shard_size=2), HERE, engine=here)
        assert result["corrected"] == 2
        assert cutout.run(config.CutoutFlags(**values), HERE, engine=here)["corrected"] == 2
        wrong = {**values, "corrections": f"{home}/nowhere"}
        with pytest.raises(InputError, match=f"--corrections {home}/nowhere: no such folder"):
            predict.run(config.PredictFlags(**wrong), HERE, engine=here)
    assert (
        download(s3, f"{home}/out")["submission.csv"]
        == Path(desk.path("out/submission.csv")).read_bytes()
    )
    made = download(s3, f"{home}/out/cutouts")
    for name, data in files_of(desk.path("out"), "cutouts/*.png").items():
        assert made[name] == data


def test_masks_below_the_folder_of_photos_are_not_cut_out(desk: Desk) -> None:
    desk.masks = desk.photos / "fixed"
    desk.correct(FIRST, blob(1))
    flags = config.CutoutFlags(**desk.flags("out", True))
    found = list_sources(flags)
    assert [entry.name for entry in found.entries] == [
        f"car_{number:05d}.jpg" for number in range(6)
    ]
    assert len(list_sources(dataclasses.replace(flags, corrections="")).entries) == 7
