"""Contact sheet and page of a folder of cut-outs show its files, of whichever command they are."""

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.cutout_folder import SIZE, Folder, mask, photo
from support.s3_servers import Server

from carvana_ray import storage
from carvana_ray.cutouts import index
from carvana_ray.cutouts.framing import Frame
from carvana_ray.errors import BadImagesError, InputError
from carvana_ray.report import builder
from carvana_ray.stages.cutout import publish


def decoded(source: str) -> np.ndarray:
    """Return the pixels of a data URI."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))


def test_sheet_and_page_show_the_pixels_of_the_files(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    result = folder.cut_out({"a_01.png": mask(), "b.png": mask()})
    assert Path(result["sheet"]) == tmp_path / "out" / "sheets" / "cutouts.jpg"
    assert Path(result["report"]) == tmp_path / "out" / "report.html"
    for number, figure in enumerate(folder.part()["shown"]):
        cut = figure["layers"][0]
        assert (cut["key"], cut["real"]) == ("cut", True)
        pixels = decoded(cut["src"]).astype(int)
        inside = pixels[..., 3] == 255
        assert np.abs(pixels[inside][:, :3] - (60 * number, 100, 255 - 60 * number)).mean() < 6
        assert inside.mean() == pytest.approx(
            50 * 80 / (figure["height"] * figure["width"]), abs=0.03
        )
    sheet = np.asarray(Image.open(result["sheet"])).astype(int)
    assert sheet.shape[0] < sheet.shape[1]
    page = folder.page()
    assert "a_01.png" in page
    assert ">White</label>" in page
    assert ">Black</label>" in page
    assert 'href="sheets/cutouts.jpg"' in page


def test_the_page_is_of_the_whole_folder(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.cut_out({"a.png": mask(), "b.png": mask()})
    folder.cut_out({"c.png": mask()})
    part = folder.part()
    assert (part["finished"], part["looked"]) == (3, 3)
    assert [figure["name"] for figure in part["shown"]] == ["a.png", "b.png", "c.png"]
    files = {path.name for path in (tmp_path / "out" / "cutouts").glob("*.*g")}
    assert files == {"a.png", "b.png", "c.png"}


def test_unusual_cut_outs_come_first_with_reasons(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    masks = {f"{number}.png": mask() for number in range(9)} | {"x.png": mask(holes=True)}
    folder.cut_out({**masks, "y.png": np.zeros(SIZE, np.bool_)})
    part = folder.part()
    assert [figure["name"] for figure in part["first"]] == ["y.png", "x.png"]
    assert part["first"][0]["reasons"] == ["the mask is empty"]
    assert "hole" in part["first"][1]["reasons"][0]
    assert part["listed"] == 2
    assert "Check first" in folder.page()


def test_cut_outs_with_a_shadow_are_shown_and_not_ranked(tmp_path: Path) -> None:
    """Their alpha is not the mask."""
    folder = Folder(str(tmp_path), shadow="contact")
    folder.cut_out({**{f"{number}.png": mask() for number in range(9)}, "x.png": mask(holes=True)})
    part = folder.part()
    assert part["listed"] is None
    assert part["looked"] == 10
    pixels = decoded(part["shown"][0]["layers"][0]["src"])
    assert ((pixels[..., 3] > 20) & (pixels[..., 3] < 230)).any()


@pytest.mark.parametrize("background", [None, (255, 0, 0)])
def test_framed_cut_outs_are_shown_and_ranked_by_their_shape_alone(
    tmp_path: Path, background: Any
) -> None:
    """In a frame the place of a car says nothing about its other views."""
    frame = Frame("catalogue", (160, 120), 0.05)
    folder = Folder(str(tmp_path), frame=frame, background=background)
    car, view = "0123456789ab", np.zeros(SIZE, np.bool_)
    view[20:40, 40:80] = True
    views = {f"{car}_{number:02d}.png": view.copy() for number in range(1, 17)}
    views[f"{car}_05.png"][20:25, 60:80] = False  # its middle is elsewhere, its box is not
    views[f"{car}_03.png"][28:36, 45:60] = False
    folder.cut_out(views)
    part = folder.part()
    assert part["looked"] == 16
    assert [(figure["width"], figure["height"]) for figure in part["shown"]] == [(160, 120)] * 4
    names = [figure["name"] for figure in part["first"]]
    if background:
        assert part["listed"] is None
    else:
        assert names == [f"{car}_03.png"], [one["reasons"] for one in part["first"]]
        assert "hole" in " ".join(part["first"][0]["reasons"])
    assert Image.open(tmp_path / "out" / "sheets" / "cutouts.jpg").width > 900


@pytest.mark.parametrize("style", [{"mask_only": True}, {"background": (255, 0, 0)}])
def test_masks_and_other_backgrounds_are_shown_as_they_are(
    tmp_path: Path, style: dict[str, Any]
) -> None:
    folder = Folder(str(tmp_path), **style)
    folder.cut_out({"a.png": mask()})
    (layer,) = folder.part()["shown"][0]["layers"]
    pixels = decoded(layer["src"]).astype(int)
    if "mask_only" in style:
        assert layer["key"] == "mask"
        assert np.abs(pixels[..., :3] - 255 * mask()[..., None]).mean() < 12
    else:
        assert layer["key"] == "cut"
        assert np.abs(pixels[2, 2, :3] - (255, 0, 0)).max() < 12
        assert folder.part()["listed"] is None


def test_bad_images_are_listed_with_their_reasons(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    bad = [("z.jpg", "truncated: <b>", 7)]
    result = folder.cut_out({"a.png": mask()}, bad)
    assert "truncated: &lt;b&gt;" in folder.page()
    assert (tmp_path / "out" / "cutouts" / "quarantine.csv").exists()
    with pytest.raises(BadImagesError, match=r"z\.jpg") as error:
        folder.cut_out({"a.png": mask()}, bad, on_bad_picture="fail")
    assert error.value.result["report"] == result["report"]


def test_a_folder_without_any_cut_out_has_no_page(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    storage.write_atomic(storage.join(folder.photos, "a.png"), photo(0))
    result = folder.cut_out({}, [("a.png", "truncated", 0)])
    assert not {"sheet", "report"} & set(result)
    assert not (tmp_path / "out" / "report.html").exists()


def test_files_that_cannot_be_shown_are_left_out(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.cut_out({"a.png": mask(), "b.png": mask(), "c.png": mask()})
    (tmp_path / "photos" / "a.png").unlink()
    (tmp_path / "photos" / "b.png").write_bytes(b"no image")
    (tmp_path / "out" / "cutouts" / "c.png").write_bytes(b"no image")
    folder.cut_out({"d.png": mask()})
    part = folder.part()
    assert (part["finished"], part["looked"]) == (4, 1)
    assert [figure["name"] for figure in part["shown"]] == ["d.png"]


def test_a_failure_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> str:
        raise InputError("no room")

    monkeypatch.setattr(builder, "add_section", fail)
    result = Folder(str(tmp_path)).cut_out({"a.png": mask()})
    assert "report" not in result
    assert "contact sheet and report could not be written: no room" in caplog.text


def test_of_a_large_folder_a_bounded_sample_is_read() -> None:
    names = [f"{number:05d}.png" for number in range(1000)]
    finished = {name: index.SourceImage("/photos", storage.FileInfo(name, 1, "")) for name in names}
    for new in ([], names[:1], names[400:410], names):
        sample = list(publish.pick_sample(finished, set(new)))
        assert len(sample) == publish.SAMPLE
        assert len(set(sample) & set(new)) == min(
            len(new), publish.SAMPLE if len(new) > 500 else 24
        )
        assert sample == sorted(sample)
        assert len({name[2] for name in sample}) == 10, "from the whole folder"
    few = dict(list(finished.items())[:5])
    assert list(publish.pick_sample(few, set(names[:1]))) == names[:5]


@pytest.mark.parametrize("own", [True, False])
def test_masks_of_the_folders_own_submission_join_the_page_of_its_prediction(
    tmp_path: Path, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, parts = Folder(str(tmp_path)), []
    part = json.dumps({"format": 1, "model": "5b" * 32}).encode()
    storage.write_atomic(storage.join(folder.out, "report", "predict.json"), part)
    monkeypatch.setattr(builder, "add_section", lambda *values: parts.append(values) or "")
    home = folder.out if own else str(tmp_path / "other")
    folder.cut_out({"a.png": mask()}, submission=storage.join(home, "submission.csv"))
    ((out, kind, added),) = parts
    assert (out, kind) == (folder.out, "cutout")
    assert added["model"] == ("5b" * 32 if own else "")


def test_sheet_and_page_are_written_to_s3(s3: Server, bucket: Callable[[Server], str]) -> None:
    folder = Folder(bucket(s3))
    result = folder.cut_out({"a.png": mask(), "b.png": mask()})
    assert storage.read(result["sheet"])[:2] == b"\xff\xd8"
    assert re.search("Nothing unusual in 2 masks", folder.page())
