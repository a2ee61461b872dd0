"""Images of folders with sub-folders, and of single files, for cut-outs."""

import logging
from pathlib import Path

import pytest

from carvana_ray.data.collect import CollectedImages, collect_images, common_parent, safe_path
from carvana_ray.errors import InputError

MARKER = "_cutouts.json"


def make(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


def collect(root: Path, *paths: str, recursive: bool = True) -> CollectedImages:
    uris = [str(root / path) for path in paths]
    found = collect_images(uris, recursive, avoid=[str(root / "out")], marker=MARKER)
    for entry in found.entries:
        assert (Path(found.folder) / entry.name).stat().st_size == entry.size
    assert set(found.outputs) == {entry.name for entry in found.entries}
    return found


def test_images_are_found_by_name_and_by_folder(tmp_path: Path) -> None:
    make(tmp_path, "a/x.jpg", "a/y.PNG", "a/notes.txt", "b/c/z.webp")

    def named(*paths: str) -> tuple[str, dict[str, str]]:
        found = collect(tmp_path, *paths)
        return str(Path(found.folder).relative_to(tmp_path)), found.outputs

    assert named("a/x.jpg") == ("a", {"x.jpg": "x"})
    assert named("a") == ("a", {"x.jpg": "x", "y.PNG": "y"})
    assert named("a/x.jpg", "a", "a/x.jpg") == ("a", {"x.jpg": "x", "y.PNG": "y"})
    assert named("b/c/z.webp", "a/y.PNG") == (".", {"a/y.PNG": "y", "b/c/z.webp": "z"})
    assert named("b") == ("b/c", {"z.webp": "c/z"})


def test_sub_folders_are_walked_and_kept(tmp_path: Path) -> None:
    make(tmp_path, "photos/a.jpg", "photos/monday/a.jpg", "photos/monday/late/b.tif")
    make(tmp_path, "photos/monday/notes.txt", "photos/.Trash/c.jpg", "photos/__MACOSX/._a.jpg")
    found = collect(tmp_path, "photos")
    assert found.outputs == {
        "a.jpg": "a",
        "monday/a.jpg": "monday/a",
        "monday/late/b.tif": "monday/late/b",
    }
    assert found.skipped == {".txt": 1, "system": 2}
    flat = collect(tmp_path, "photos", recursive=False)
    assert flat.outputs == {"a.jpg": "a"}
    assert flat.skipped == {"folder": 1, "system": 2}


def test_results_masks_and_links_are_not_walked(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "out/cutouts/a.png", "train_masks/a_mask.png", "old/x/_cutouts.json")
    make(tmp_path, "old/x/b.png", "older/cutouts/_cutouts.json", "older/sheets/a.jpg")
    make(tmp_path, "run/report.html", "run/report/predict.json", "run/sheets/a.jpg")
    (tmp_path / "again").symlink_to(tmp_path)
    found = collect(tmp_path, "")
    assert found.outputs == {"a.jpg": "a"}
    assert found.skipped["folder"] == 6


def test_the_images_in_test_are_those_of_a_folder(tmp_path: Path) -> None:
    make(tmp_path, "train/a.jpg", "test/b.jpg", "sample_submission.csv")
    assert collect(tmp_path, "").outputs == {"b.jpg": "b"}


def test_files_that_are_no_images_do_not_stop_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, "a.jpg", "notes.txt", "film.MOV", "new\nline.jpg")
    paths = [path.name for path in tmp_path.iterdir()]
    found = collect(tmp_path, *paths)
    assert found.outputs == {"a.jpg": "a"}
    assert found.skipped == {".txt": 1, ".mov": 1, "unsafe name": 1}
    with caplog.at_level(logging.INFO):
        found.log_skipped()
    assert "left out: 1 .mov, 1 .txt, 1 unsafe name; for example " in caplog.text
    assert "'new\\nline.jpg'" in caplog.text
    with pytest.raises(InputError, match=r"no images .*notes.txt; left out: 1 \.txt"):
        collect(tmp_path, "notes.txt")


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("-dash.jpg", "_dash"),
        ("=1+1.jpg", "_1+1"),
        (" space.jpg", "_space"),
        (".hidden.jpg", "_hidden"),
        ("@-=x.jpg", "_x"),
        (".jpg", "_"),
        ('K\u00e4fer, gr\u00fcn & "neu" 100% #2;.jpg', 'K\u00e4fer, gr\u00fcn & "neu" 100% #2;'),
    ],
)
def test_an_odd_name_gets_a_safe_output(tmp_path: Path, name: str, output: str) -> None:
    make(tmp_path, name, f"-odd/{name}")
    found = collect(tmp_path, "")
    assert found.outputs == {name: output, f"-odd/{name}": f"_odd/{output}"}


@pytest.mark.parametrize("path", ["a\x1b[31m", "a\\b", "x/new\nline", "a\u202eb", "\udce4"])
def test_some_names_have_no_safe_form(path: str) -> None:
    assert safe_path(path) is None


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a.jpg", "a.jpg: no such image"),
        ("none", "none: no such image or folder"),
        ("none/a.jpg", "none: no such folder"),
        ("", "no images"),
    ],
)
def test_a_named_file_must_exist(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        collect(tmp_path, path)


def test_a_folder_may_have_the_suffix_of_an_image(tmp_path: Path) -> None:
    make(tmp_path, "cars.png/a.jpg")
    assert collect(tmp_path, "cars.png").outputs == {"a.jpg": "a"}


@pytest.mark.parametrize(
    ("folders", "parent"),
    [
        (["/a/b"], "/a/b"),
        (["/a/b", "/a/bc"], "/a"),
        (["/a", "/b"], "/"),
        (["s3://b/x/y", "s3://b/x"], "s3://b/x"),
        (["s3://b/x", "s3://b/y"], "s3://b"),
    ],
)
def test_the_common_parent_of_folders(folders: list[str], parent: str) -> None:
    assert common_parent(folders) == parent


@pytest.mark.parametrize("folders", [["s3://a/x", "s3://b/x"], ["/a", "s3://a"]])
def test_folders_without_a_common_parent_are_an_input_error(folders: list[str]) -> None:
    with pytest.raises(InputError, match="run a command for each"):
        common_parent(folders)
