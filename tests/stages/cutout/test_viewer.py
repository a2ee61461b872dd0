"""Pages of cars: which cars have one, when it is written again, and that nothing depends on it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from PIL import Image
from support.cutout_folder import Folder, mask
from support.report_parts import Tags
from support.s3_servers import Server

from carvana_ray import storage
from carvana_ray.config.cars_flag import car_pattern
from carvana_ray.cutouts.index import SourceImage
from carvana_ray.data.cars import CarNames
from carvana_ray.errors import InputError
from carvana_ray.runtime.children import Children
from carvana_ray.stages.cutout import viewer
from carvana_ray.stages.engine import Map, Rows
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.stages.local_engine import LocalEngine
from carvana_ray.storage import FileInfo

TURNING = {"viewer": True, "cars_by": "CAR_VIEW"}


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with Children(2, ["carvana_ray.stages.cutout.write_viewers"]) as children:
        yield LocalEngine(children)


def pages(home: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of the files of the viewer, by path."""
    folder = home / "out" / "viewer"
    found = [path for path in folder.rglob("*") if path.is_file()]
    times = {str(path.relative_to(folder)): path.stat() for path in found}
    return {name: (one.st_ino, one.st_mtime_ns) for name, one in times.items()}


def html(home: Path, name: str) -> str:
    return (home / "out" / name).read_text()


def test_each_car_with_two_views_has_a_page_that_index_and_report_lead_to(
    tmp_path: Path, engine: LocalEngine
) -> None:
    names = ["red_10.png", "red_2.png", "blue_1.png", "monday/red_1.png", "monday/red_2.png"]
    result = Folder(str(tmp_path)).cut_out(dict.fromkeys(names, mask()), engine=engine, **TURNING)
    assert Path(result["viewer"]) == tmp_path / "out" / "viewer.html"
    assert [re.sub("-.*webp", "", name) for name in sorted(pages(tmp_path))] == [
        "monday/red", "monday/red.html", "red", "red.html"
    ]  # fmt: skip
    hrefs = re.findall('href="([^"]*html)"', html(tmp_path, "viewer.html"))
    assert hrefs == ["viewer/monday/red.html", "viewer/red.html"]
    for source in re.findall('<img src="([^"]*)"', html(tmp_path, "viewer.html")):
        assert Image.open(tmp_path / "out" / source).format == "WEBP"
    assert "2 views" in html(tmp_path, "viewer.html")
    assert 'href="../../viewer.html"' in html(tmp_path, "viewer/monday/red.html")
    assert 'href="../viewer.html"' in html(tmp_path, "viewer/red.html")
    assert 'href="viewer.html"' in html(tmp_path, "report.html")


def test_views_are_in_the_order_of_their_numbers() -> None:
    names = ["a_10.png", "a_2.png", "a_1.png", "b_1.png", "other.png"]
    sources = {name: SourceImage("/photos", FileInfo(name, 1, "7")) for name in names}
    (car,) = viewer.find_cars(sources, CarNames(car_pattern("CAR_VIEW")))
    assert (car.name, car.cutouts) == ("a", ["a_1.png", "a_2.png", "a_10.png"])
    changed = {**sources, "a_2.png": SourceImage("/photos", FileInfo("a_2.png", 1, "8"))}
    assert viewer.find_cars(changed, CarNames(car_pattern("CAR_VIEW")))[0].digest != car.digest


def test_only_cars_with_new_cut_outs_are_written_again(tmp_path: Path, engine: LocalEngine) -> None:
    folder = Folder(str(tmp_path))
    both = {f"{car}_{view}.png": mask() for car in "ab" for view in (1, 2)}
    folder.cut_out(both, engine=engine, **TURNING)
    first = pages(tmp_path)
    folder.cut_out(both, engine=engine, **TURNING)
    assert pages(tmp_path) == first, "nothing is new"
    folder.cut_out({"b_3.png": mask()}, engine=engine, **TURNING)
    then = pages(tmp_path)
    assert then.items() & first.items() == {(name, first[name]) for name in first if name[0] == "a"}
    assert sorted(name[:2] for name in then) == ["a-", "a.", "b-", "b."], "no old thumbnail is left"
    assert html(tmp_path, "viewer/b.html").count("<img") == 3
    assert "3 views" in html(tmp_path, "viewer.html")


@pytest.mark.parametrize("harm", ["no page", "no thumbnail", "of two commands"])
def test_a_page_that_may_be_of_other_cut_outs_is_written_again(
    tmp_path: Path, engine: LocalEngine, harm: str
) -> None:
    folder, both = Folder(str(tmp_path)), {"a_1.png": mask(), "a_2.png": mask()}
    folder.cut_out(both, engine=engine, **TURNING)
    shown, before = tmp_path / "out" / "viewer", html(tmp_path, "viewer/a.html")
    (thumbnail,) = shown.glob("*.webp")
    if harm == "no page":
        (shown / "a.html").unlink()
    elif harm == "no thumbnail":
        thumbnail.unlink()
    else:  # the other command has seen other cut-outs, and its page is there
        (shown / "a.html").write_text("other")
        (shown / "a-0123456789ab.webp").write_bytes(b"other")
    folder.cut_out(both, engine=engine, **TURNING)
    assert html(tmp_path, "viewer/a.html") == before
    assert list(shown.glob("*.webp")) == [thumbnail]


def test_a_cut_out_that_cannot_be_read_costs_only_its_cars_page(
    tmp_path: Path, engine: LocalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(str(tmp_path))
    both = {f"{car}_{view}.png": mask() for car in "ab" for view in (1, 2)}
    folder.cut_out(both)
    (tmp_path / "out" / "cutouts" / "a_2.png").write_bytes(b"no image")
    result = folder.cut_out(both, engine=engine, **TURNING)
    assert "viewer: no page of 1 car; of a: not-an-image" in caplog.text
    assert sorted(name[:2] for name in pages(tmp_path)) == ["b-", "b."]
    assert "viewer/b.html" in html(tmp_path, "viewer.html")
    assert "viewer/a.html" not in html(tmp_path, "viewer.html")
    assert result["report"]


def test_a_failure_costs_neither_cut_outs_nor_report(
    tmp_path: Path,
    engine: LocalEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> bytes:
        raise InputError("no room")

    monkeypatch.setattr(viewer, "render_viewer_index", fail)
    both = {"a_1.png": mask(), "a_2.png": mask()}
    result = Folder(str(tmp_path)).cut_out(both, engine=engine, **TURNING)
    assert "pages of cars could not be written: no room" in caplog.text
    assert "viewer" not in result
    assert result["report"]
    assert "viewer.html" not in html(tmp_path, "report.html")


def test_cars_of_one_view_have_no_page_and_a_line_says_how_to_group_them(
    tmp_path: Path, engine: LocalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    result = Folder(str(tmp_path)).cut_out({"a_1.png": mask()}, engine=engine, viewer=True)
    assert "no car has two views; --cars-by groups images" in caplog.text
    assert "viewer" not in result
    assert not (tmp_path / "out" / "viewer.html").exists()


@pytest.mark.parametrize("car", ["..", ".", ".a", "-a", "a/b", 'a"<b>', "a?#%", "é" * 120])
def test_a_name_of_a_car_is_safe_as_a_name_of_a_file(car: str) -> None:
    name = viewer.safe_name(car)
    assert name != car
    assert re.fullmatch(r"[\w(][\w .()+,@-]*", name)
    assert len(f"{name}-0123456789ab.webp".encode()) <= 255
    assert name != viewer.safe_name(f"{car}x")


def test_usual_names_are_kept() -> None:
    for car in ("0cdf5b5d0ce1", "Audi A4 (2019)", "škoda_1", "a.b-c+d,e@f"):
        assert viewer.safe_name(car) == car


def test_a_hostile_name_does_no_harm(tmp_path: Path, engine: LocalEngine) -> None:
    evil = "x<img src=a onerror=alert(1)>&\"'%20#?"
    both = {f"{evil}_{view}.png": mask() for view in (1, 2)}
    Folder(str(tmp_path)).cut_out(both, engine=engine, **TURNING)
    tags = Tags(html(tmp_path, "viewer.html"))
    assert evil in tags.text
    (link,) = [value for name, value in tags.attributes if name == "href" and "viewer/" in value]
    assert re.fullmatch(r"viewer/[\w%.-]+\.html", link)
    page = Tags(html(tmp_path, unquote(link)))
    assert page.tags.count("img") == 2
    assert evil in page.text


def test_of_many_views_a_sample_all_around_is_shown(
    tmp_path: Path, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "MAX_VIEWS", 4)
    many = {f"a_{view}.png": mask() for view in range(7)}
    Folder(str(tmp_path)).cut_out(many, engine=engine, **TURNING)
    page = html(tmp_path, "viewer/a.html")
    assert page.count("<img") == 4
    assert "4 of 7 views are shown." in page


def test_pages_are_written_to_s3(s3: Server, bucket: Callable[[Server], str]) -> None:
    def map_images(rows: Rows, work: Map, at_once: int) -> Iterator[Columns]:
        return (work({name: [value] for name, value in row.items()}) for row in rows)

    here = SimpleNamespace(errors=(), map_images=map_images)  # children would import boto3
    folder = Folder(bucket(s3))
    both = {"a_1.png": mask(), "monday/b_1.png": mask(), "monday/b_2.png": mask()}
    result = folder.cut_out(both, engine=here, **TURNING)
    page = storage.read(result["viewer"]).decode()
    (link,) = re.findall('href="(viewer/[^"]*)"', page)
    uri = storage.join(folder.out, link)
    state = storage.state(uri)
    assert b"monday/b" in storage.read(uri)
    folder.cut_out(both, engine=here, **TURNING)
    assert storage.state(uri) == state
