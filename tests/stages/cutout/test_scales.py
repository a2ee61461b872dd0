"""All views of a car have one scale, whatever happens between the first command and the last."""

import logging
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.interleaving import before_each_call
from support.pairs import draw_pair
from support.survival import KILLER
from support.watched import SIZE, make_model

from carvana_ray import config, rle
from carvana_ray.cutouts import extents, index
from carvana_ray.cutouts.framing import Frame, Size, drop_strays
from carvana_ray.errors import BadImagesError, IncompleteError, InputError
from carvana_ray.runtime.children import Children
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages.cutout import scales, stage
from carvana_ray.stages.ingest import crash_isolation
from carvana_ray.stages.local_engine import LocalEngine

HERE = ClusterResources(cpus=2, gpus=0, nodes=1)
HEIGHT, WIDTH = 80, 120  # of the images
FRAME = Frame("catalogue", (160, 120), 0.05)  # the car may be 144 pixels wide and 82 high
FLOOR, MARGIN = 90, 8
VIEWS = [(40 + 4 * view, 50 - 2 * view) for view in range(16)]  # sizes of a car's boxes


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with Children(2, ["carvana_ray.stages.cutout.write_cutouts"]) as children:
        yield LocalEngine(children)


def box_of(path: Path) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the car in a cut-out."""
    alpha = Image.open(path).getchannel("A")
    assert alpha.size == FRAME.size
    box = alpha.point(lambda level: 255 * (level >= 128)).getbbox()
    assert box
    return box


class Garage:
    """A folder of gray images, and a submission that says where their cars are."""

    def __init__(self, home: Path, engine: LocalEngine) -> None:
        self.home, self.photos, self.engine = home, home / "photos", engine
        self.rows: dict[str, str] = {}
        self.photos.mkdir()

    def add(self, sizes: Mapping[str, Size | None]) -> None:
        """Add images by name, with a car of this size or without one."""
        for name, size in sizes.items():
            mask = np.zeros((HEIGHT, WIDTH), bool)
            if size:
                mask[70 - size[1] : 70, 5 : 5 + size[0]] = True
            levels = np.where(mask, 40, 210).astype(np.uint8)
            Image.fromarray(levels).save(self.photos / name)
            self.rows[name] = rle.encode(mask)
        lines = [f"{name},{text}\n" for name, text in sorted(self.rows.items())]
        (self.home / "rows.csv").write_text("".join(["img,rle_mask\n", *lines]))

    def cut(self, out: str = "out", **flags: Any) -> dict[str, Any]:
        values = {
            "data": str(self.photos),
            "submission": str(self.home / "rows.csv"),
            "out": str(self.home / out),
            "frame": "catalogue",
            "size": "160x120",
            "cars_by": "CAR_VIEW",
            **flags,
        }
        return stage.run(config.CutoutFlags(**values), HERE, engine=self.engine)

    def cars(self, out: str = "out") -> dict[str, Size]:
        return extents.load(str(self.home / out / "cutouts"))

    def files(self, out: str = "out") -> dict[str, bytes]:
        """Return the cut-outs and the list of cars."""
        kept = (self.home / out / "cutouts").glob("[!.]*")
        return {path.name: path.read_bytes() for path in kept if path.name != index.FILE}

    def box(self, name: str, out: str = "out") -> tuple[int, int, int, int]:
        return box_of(self.home / out / "cutouts" / name)


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave sheet and page out, which read images and cut-outs again."""
    monkeypatch.setattr("carvana_ray.stages.cutout.publish.show_folder", lambda *_: {})


@pytest.fixture
def garage(tmp_path: Path, engine: LocalEngine) -> Garage:
    return Garage(tmp_path, engine)


def views_of(car: str, scale: float = 1) -> dict[str, Size | None]:
    """Return 16 views of a car."""
    return {
        f"{car}_{view:02d}.png": (round(scale * width), round(scale * height))
        for view, (width, height) in enumerate(VIEWS, 1)
    }


def test_16_views_of_a_car_are_at_one_scale_and_on_the_floor(garage: Garage) -> None:
    garage.add({**views_of("red"), **views_of("blue", 0.5)})
    assert garage.cut()["written"] == 32
    assert garage.cars() == {"red": (100, 50), "blue": (50, 25)}
    for car, factor, scale in (("red", 1, 1.44), ("blue", 0.5, 2.88)):
        for name, (width, height) in views_of(car, factor).items():  # type: ignore[misc]
            left, top, right, bottom = garage.box(name)
            assert left == pytest.approx(80 - scale * width / 2, abs=0.75)
            assert right == pytest.approx(80 + scale * width / 2, abs=0.75)
            assert top == pytest.approx(FLOOR - scale * height, abs=0.75)
            assert bottom == FLOOR
            assert left >= MARGIN
    left, _, right, _ = garage.box("red_16.png")
    assert (left, right) == (MARGIN, 160 - MARGIN), "the widest view fills the frame"


def test_a_high_car_stays_below_the_margin(garage: Garage) -> None:
    garage.add({"van_1.png": (30, 60), "van_2.png": (40, 20)})
    garage.cut()
    _, top, _, bottom = garage.box("van_1.png")
    assert (top, bottom) == (MARGIN, FLOOR)


def test_without_a_pattern_each_image_has_a_scale_of_its_own_and_one_line_says_so(
    garage: Garage, caplog: pytest.LogCaptureFixture
) -> None:
    garage.add({"a_1.png": (50, 20), "a_2.png": (25, 20), "b_1.png": (40, 20), "b_2.png": (20, 20)})
    with caplog.at_level(logging.INFO):
        garage.cut(cars_by="")
    assert len(garage.cars()) == 4
    hint = "4 cars (each image is one; --cars-by CAR_VIEW makes them 2 cars)"
    assert f"{hint}; all views of a car have one scale" in caplog.text
    with pytest.raises(InputError, match="cars by: was file names, is now CAR_VIEW"):
        garage.cut()


def test_a_view_added_later_keeps_the_scale_and_is_told(
    garage: Garage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    garage.add({"red_01.png": (72, 20), "red_02.png": (60, 30)})
    garage.cut()
    before = garage.files()
    garage.add({"red_03.png": (36, 30), "red_04.png": (90, 20), "red_05.png": None})
    with caplog.at_level(logging.INFO):
        assert garage.cut()["written"] == 3
    said = "3 views added to cars whose scale is fixed, or changed; too large for the margin: 1"
    assert said in caplog.text
    assert garage.cars() == {"red": (72, 30)}
    assert {name: garage.files()[name] for name in before} == before
    left, _, right, _ = garage.box("red_03.png")
    assert right - left == 72
    left, _, right, _ = garage.box("red_04.png")
    assert (left, right) == (0, 160), "cut off at the frame"

    monkeypatch.setattr(scales, "_measure", None)  # nothing is measured again
    caplog.clear()
    (garage.home / "out/cutouts/red_01.png").unlink()
    (garage.home / "out/cutouts/red_04.png").unlink()
    complete = garage.files()
    with caplog.at_level(logging.INFO):
        assert garage.cut()["written"] == 2
    assert "views added" not in caplog.text
    assert complete.items() < garage.files().items()


def test_an_image_that_is_replaced_keeps_the_scale_of_its_car(garage: Garage) -> None:
    garage.add({"red_01.png": (72, 20), "red_02.png": (60, 30)})
    garage.cut()
    garage.add({"red_02.png": (36, 20)})
    os.utime(garage.photos / "red_02.png", ns=(1, 1))
    assert garage.cut()["written"] == 1
    assert garage.cars() == {"red": (72, 30)}
    left, _, right, _ = garage.box("red_02.png")
    assert right - left == 72


def test_enlarged_cars_are_counted(garage: Garage, caplog: pytest.LogCaptureFixture) -> None:
    garage.add({"a_1.png": (50, 20), "b_1.png": (72, 20), "c_1.png": (110, 20)})
    with caplog.at_level(logging.INFO):
        garage.cut(size="40x30")
        assert "are enlarged" not in caplog.text
        garage.cut(out="large")
    assert "cars that are enlarged, and so blurry: 3, up to 2.9 times" in caplog.text


def test_a_limit_changes_no_scale(garage: Garage) -> None:
    garage.add({**views_of("red"), **views_of("blue", 0.5), **views_of("car", 0.7)})
    garage.cut()
    assert garage.cut(out="limited", limit=20)["images"] == 20
    assert set(garage.cars("limited")) == {"blue", "car"}
    made = garage.files("limited")
    del made[extents.FILE]
    assert made.items() < garage.files().items()
    garage.cut(out="limited")
    assert garage.files("limited") == garage.files()


def test_a_limit_needs_no_rows_of_further_views(garage: Garage) -> None:
    garage.add(views_of("red"))
    del garage.rows["red_16.png"]
    garage.add({})
    assert garage.cut(limit=4)["written"] == 4
    assert garage.cars() == {"red": VIEWS[14][:1] + VIEWS[0][1:]}
    with pytest.raises(InputError, match=r"no row for 1 of 16 images, the first is red_16\.png"):
        garage.cut()


@pytest.mark.parametrize("at_once", [1, pytest.param(64, marks=pytest.mark.slow)])
def test_a_command_that_is_killed_anywhere_resumes_to_the_same_files(
    garage: Garage, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """At each of its steps in turn, as this process sees them."""
    monkeypatch.setattr("carvana_ray.stages.cutout.car_sizes.CARS_AT_ONCE", at_once)
    garage.add({f"{car}_{view}.png": (20 + 5 * view, 30) for car in "ab" for view in range(3)})
    garage.cut()
    expected, kill_at = garage.files(), 0
    ended = False
    while not ended:
        calls, out = 0, f"out{kill_at}"

        def count(at: int = kill_at) -> None:
            nonlocal calls
            calls += 1
            if calls == at:
                raise KeyboardInterrupt

        with monkeypatch.context() as patches:
            before_each_call(patches, count)
            try:
                garage.cut(out=out)
                ended = kill_at > 0
            except KeyboardInterrupt:
                pass
        garage.cut(out=out)
        assert garage.files(out) == expected, kill_at
        kill_at += 1
    assert kill_at > 10


def test_an_unreachable_view_holds_back_its_car_alone(garage: Garage) -> None:
    garage.add({**views_of("red"), **views_of("blue", 0.5)})
    garage.cut(out="expected")
    (garage.photos / "red_16.png").unlink()
    (garage.photos / "red_16.png").symlink_to("/proc/self/mem")  # a read of it fails
    with pytest.raises(IncompleteError, match=r"^16 cut-outs .*red_16\.png: unreachable"):
        garage.cut()
    assert set(garage.files()) == {*views_of("blue"), extents.FILE}
    (garage.photos / "red_16.png").unlink()
    garage.add(views_of("red"))
    assert garage.cut()["written"] == 16
    assert garage.files() == garage.files("expected")


def test_an_unreachable_view_of_a_known_car_is_left_out_alone(garage: Garage) -> None:
    garage.add({"red_1.png": (50, 20)})
    garage.cut()
    garage.add({"red_2.png": (40, 20), "red_3.png": (40, 20)})
    (garage.photos / "red_3.png").unlink()
    (garage.photos / "red_3.png").symlink_to("/proc/self/mem")
    with pytest.raises(IncompleteError, match=r"^1 cut-out .*red_3\.png: unreachable"):
        garage.cut()
    assert set(garage.files()) == {"red_1.png", "red_2.png", extents.FILE}


def test_a_bad_image_counts_once_and_does_not_hold_back_its_car(garage: Garage) -> None:
    garage.add({"red_1.png": (50, 20), "red_2.png": (40, 20), "blue_1.png": (50, 20)})
    for name in ("red_2.png", "blue_1.png"):
        (garage.photos / name).write_bytes(b"text")
    with pytest.raises(BadImagesError) as caught:
        garage.cut()
    result = caught.value.result
    assert (result["written"], result["bad"]) == (1, 2)
    rows = (garage.home / "out/cutouts/quarantine.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["blue_1.png", "red_2.png"]
    assert all(f"{zlib.crc32(b'text'):08x}" in row for row in rows)
    assert garage.cars() == {"red": (50, 20)}
    garage.add({"blue_1.png": (50, 20)})
    with pytest.raises(BadImagesError):
        garage.cut()
    assert garage.cars() == {"red": (50, 20), "blue": (50, 20)}


def test_a_car_that_no_view_shows_is_an_empty_frame(garage: Garage) -> None:
    garage.add({"red_1.png": None, "red_2.png": None})
    assert garage.cut()["written"] == 2
    assert garage.cars() == {}
    assert not np.asarray(Image.open(garage.home / "out/cutouts/red_1.png")).any()
    garage.add({"red_3.png": (50, 20)})
    assert garage.cut()["written"] == 1
    assert garage.cars() == {"red": (50, 20)}


def test_other_frames_measure_nothing(garage: Garage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scales, "_measure", None)
    garage.add({"red_1.png": (50, 20), "red_2.png": (40, 20)})
    garage.cut(frame="car", out="car")
    garage.cut(frame="none", size="", out="none")
    assert not garage.cars("car")
    assert not garage.cars("none")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of an untrained network; its masks are all different."""
    folder = tmp_path_factory.mktemp("scales") / "model"
    make_model(folder, [draw_pair(seed, SIZE)[0] for seed in range(20)])
    return folder


def draw_two_folders(home: Path) -> Path:
    """Draw three views each of a car of the same name in two folders."""
    for number, folder in enumerate(("monday", "tuesday")):
        (home / "photos" / folder).mkdir(parents=True)
        for view in range(3):
            jpeg = draw_pair(10 * number + view, SIZE)[0]
            (home / "photos" / folder / f"car_{view}.jpg").write_bytes(jpeg)
    return home / "photos"


def test_masks_of_a_model_give_the_extents_that_their_boxes_have(
    model: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    """Two folders with a car of one name are two cars."""
    photos = draw_two_folders(tmp_path)
    common: dict[str, Any] = {"data": str(photos), "model": str(model)}
    masks = config.CutoutFlags(**common, out=str(tmp_path / "masks"), mask_only=True)
    framed = config.CutoutFlags(
        **common,
        out=str(tmp_path / "out"),
        frame="catalogue",
        size="160x120",
        cars_by="CAR_VIEW",
    )
    for flags in (masks, framed):
        assert stage.run(flags, HERE, engine=engine)["written"] == 6
    expected, boxes = {}, dict[str, Size]()
    for folder in ("monday", "tuesday"):
        for path in (tmp_path / "masks/cutouts" / folder).glob("*.png"):
            box = drop_strays(np.asarray(Image.open(path).convert("L")))[1]
            assert box
            boxes[f"{folder}/{path.name}"] = box.size
        some = [size for name, size in boxes.items() if name.startswith(folder)]
        expected[f"{folder}/car"] = extents.extent_of(some)
    assert extents.load(str(tmp_path / "out/cutouts")) == expected
    assert expected["monday/car"] != expected["tuesday/car"]
    for name, (width, _) in boxes.items():
        extent = expected[f"{name.split('/')[0]}/car"]
        assert extent
        left, _, right, _ = box_of(tmp_path / "out/cutouts" / name)
        assert right - left == pytest.approx(extents.scale_of(FRAME, extent) * width, abs=2)


def test_a_corrected_mask_is_measured_as_it_is(
    model: Path, engine: LocalEngine, tmp_path: Path
) -> None:
    photos = draw_two_folders(tmp_path)
    mask = np.zeros(SIZE, np.uint8)
    mask[3:317, 2:470] = 255
    (tmp_path / "fixed/monday").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "fixed/monday/car_1.png")
    common: dict[str, Any] = {"data": str(photos), "model": str(model), "cars_by": "CAR_VIEW"}
    for out, corrections in (("plain", ""), ("out", str(tmp_path / "fixed"))):
        flags = {**common, "out": str(tmp_path / out), "corrections": corrections}
        given = config.CutoutFlags(**flags, frame="catalogue", size="160x120")
        stage.run(given, HERE, engine=engine)
    cars, plain = (extents.load(str(tmp_path / out / "cutouts")) for out in ("out", "plain"))
    assert plain["monday/car"] != cars["monday/car"] == (468, 314)
    assert plain["tuesday/car"] == cars["tuesday/car"]


@pytest.mark.parametrize("frame", ["none", "catalogue"])
def test_a_model_that_is_exchanged_meanwhile_is_blamed(
    engine: LocalEngine, tmp_path: Path, frame: str
) -> None:
    jpegs = [draw_pair(seed, SIZE)[0] for seed in range(2)]
    make_model(tmp_path / "model", jpegs)
    photos = draw_two_folders(tmp_path)
    given = {"data": str(photos), "model": str(tmp_path / "model"), "out": str(tmp_path / "out")}
    flags = config.CutoutFlags(**given, frame=frame)  # type: ignore[arg-type]
    checked = stage.check(flags)
    make_model(tmp_path / "model", jpegs[:1])
    with pytest.raises(InputError, match="another model was written there"):
        stage.run(flags, HERE, checked, engine)


@pytest.mark.parametrize("use_model", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_image_that_kills_its_process_is_measured_once_and_counts_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_model: bool
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(KILLER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}")
    flags = {"submission": "", "model": str(model)} if use_model else {}
    with Children(2) as children:
        garage = Garage(tmp_path, LocalEngine(children))
        garage.add(views_of("red"))
        garage.cut(out="expected", **flags)
        garage.add({"blue_1.png": (50, 20), "blue_2.png": (50, 20)})
        (garage.photos / "blue_2.png").write_bytes(b"KILL")
        searches, find = [], crash_isolation.find_crashing
        monkeypatch.setattr(
            crash_isolation, "find_crashing", lambda *given: searches.append(1) or find(*given)
        )
        with pytest.raises(BadImagesError) as caught:
            garage.cut(**flags)
    assert len(searches) == 1, "what killed a process once is not tried again"
    assert (caught.value.result["written"], caught.value.result["bad"]) == (17, 1)
    [_, row] = (tmp_path / "out/cutouts/quarantine.csv").read_text().splitlines()
    assert row.startswith("blue_2.png,crash")
    assert garage.files("expected").keys() < garage.files().keys()
    assert garage.cars()["red"] == garage.cars("expected")["red"]
