"""The index lists pending cut-outs; other settings, changed and foreign files are never reused."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cutout_race import race
from support.interleaving import before_each_call
from support.s3_servers import Server

from carvana_ray import storage
from carvana_ray.cutouts import index
from carvana_ray.cutouts.index import CutoutIndex, SourceImage
from carvana_ray.errors import InputError
from carvana_ray.storage import FileInfo

SETTINGS = {"model": "abc", "edge": "soft", "background": [1, 2, 3]}


def sources_of(*names: str, folder: str = "/photos", version: str = "1") -> dict[str, SourceImage]:
    images = [SourceImage(folder, FileInfo(name, 5, version)) for name in names]
    return index.by_output_name(images, ".png")


def pending(out: Path, wanted: dict[str, SourceImage], **changes: object) -> list[str]:
    return index.sync(str(out), {**SETTINGS, **changes}, wanted, ".png")


def make(out: Path, *names: str) -> None:
    for name in names:
        (out / name).write_bytes(b"made")


def test_an_index_survives_the_round_trip_through_bytes() -> None:
    original = CutoutIndex(
        SETTINGS, {**sources_of("a.jpg", "b b.JPG"), **sources_of("c.webp", folder="s3://b")}
    )
    assert CutoutIndex.from_bytes(original.to_bytes()) == original


@pytest.mark.parametrize(
    ("image", "output", "name"),
    [
        ("a.jpg", "", "a.png"),
        ("Käfer, rot.JPEG", "", "Käfer, rot.png"),
        ("a.b.webp", "", "a.b.png"),
        ("-x.jpg", "monday/_x", "monday/_x.png"),
    ],
)
def test_a_cutout_has_the_name_of_its_image_or_of_its_output(
    image: str, output: str, name: str
) -> None:
    assert SourceImage("/photos", FileInfo(image, 5, "1"), output).cutout(".png") == name


def test_cutouts_in_sub_folders_are_found(tmp_path: Path) -> None:
    images = [
        SourceImage(folder, FileInfo("a.jpg", 5, "1"), output)
        for folder, output in (("/p", "a"), ("/p/monday", "monday/a"), ("/p/x/y", "x/y/a"))
    ]
    wanted = index.by_output_name(images, ".png")
    assert pending(tmp_path, wanted) == ["a.png", "monday/a.png", "x/y/a.png"]
    (tmp_path / "monday").mkdir()
    make(tmp_path, "a.png", "monday/a.png")
    assert pending(tmp_path, wanted) == ["x/y/a.png"]
    assert index.missing(str(tmp_path), wanted, ".png") == ["x/y/a.png"]


def test_two_images_with_the_same_output_name_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"/photos/a.jpg and /photos/a.png: both would become a.png"
    ):
        sources_of("a.jpg", "a.png")


def test_existing_cutouts_are_not_pending(tmp_path: Path) -> None:
    wanted = sources_of("a.jpg", "b.jpg", "c.jpg")
    assert pending(tmp_path / "out", wanted) == ["a.png", "b.png", "c.png"]
    make(tmp_path / "out", "b.png")
    before = (tmp_path / "out" / index.FILE).stat().st_mtime_ns
    assert pending(tmp_path / "out", wanted) == ["a.png", "c.png"]
    assert (tmp_path / "out" / index.FILE).stat().st_mtime_ns == before
    more = {**wanted, **sources_of("d.jpg", folder="/others")}
    assert pending(tmp_path / "out", more) == ["a.png", "c.png", "d.png"]
    assert pending(tmp_path / "out", sources_of("b.jpg")) == []


def test_the_cutout_of_a_changed_image_is_removed_and_pending(tmp_path: Path) -> None:
    pending(tmp_path, sources_of("a.jpg", "b.jpg"))
    make(tmp_path, "a.png", "b.png")
    changed = {**sources_of("a.jpg", version="2"), **sources_of("b.jpg")}
    assert pending(tmp_path, changed) == ["a.png"]
    assert not (tmp_path / "a.png").exists(), "the old cut-out must not pass for the new one"
    assert pending(tmp_path, changed) == ["a.png"]
    make(tmp_path, "a.png")
    assert pending(tmp_path, changed) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "def", "edge": "hard"}, "(another model, or masks of a submission)"),
        ({"background": [255, 0, 16]}, "(background: was #010203, is now #ff0010)"),
        ({"background": "picture of SHA-256 0"}, "(background: was #010203, is now an image)"),
        (
            {"frame": "catalogue", "size": "1600x1200", "margin": 0.05, "cars_by": "their names"},
            "(frame: was none, is now catalogue)",
        ),
        ({"version": 4}, "(another version of this program)"),
    ],
)
def test_a_changed_setting_is_said_in_words(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    pending(tmp_path / "o/cutouts", sources_of("a.jpg"))
    with pytest.raises(InputError) as error:
        pending(tmp_path / "o/cutouts", sources_of("a.jpg"), **changes)
    assert f"made with other settings {words}" in str(error.value)
    assert f"such as --out {tmp_path}/o-2, " in str(error.value)


def test_other_settings_are_named_and_refused(tmp_path: Path) -> None:
    pending(tmp_path, sources_of("a.jpg"))
    with pytest.raises(
        InputError, match=r"edge: was soft, is now hard; .*more: was none, is now 1"
    ):
        pending(tmp_path, sources_of("a.jpg"), edge="hard", more=1)


def test_the_same_name_from_another_folder_is_refused(tmp_path: Path) -> None:
    pending(tmp_path, sources_of("a.jpg"))
    with pytest.raises(
        InputError, match=r"cut-out of /photos/a.jpg has the name that /new/a.jpg needs"
    ):
        pending(tmp_path, sources_of("a.jpg", folder="/new"))


def test_unlisted_files_are_never_overwritten(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    for _ in range(2):
        with pytest.raises(
            InputError, match=f"a.png: the file exists, but {index.FILE} does not list it"
        ):
            pending(tmp_path, sources_of("a.jpg"))
        pending(tmp_path, sources_of("b.jpg"))
    assert (tmp_path / "a.png").read_bytes() == b"made"


@pytest.mark.parametrize("data", [b"", b"[]", b'{"format": 1}', b'{"format": 2}'])
def test_a_damaged_index_is_an_input_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / index.FILE).write_bytes(data)
    with pytest.raises(InputError, match=f"{index.FILE}: damaged"):
        pending(tmp_path, sources_of("a.jpg"))


def test_a_new_version_of_one_image_makes_one_cutout_pending(tmp_path: Path) -> None:
    wanted = sources_of("a.jpg", "b.jpg")
    pending(tmp_path, wanted)
    make(tmp_path, "a.png", "b.png")
    entry = replace(wanted["b.png"].entry, size=6)
    assert pending(tmp_path, {**wanted, "b.png": SourceImage("/photos", entry)}) == ["b.png"]
    assert (tmp_path / "a.png").exists()


OLD, NEW = sources_of("a.jpg", "b.jpg"), sources_of("a.jpg", "b.jpg", version="2")
Events = list[tuple[int, Callable[[], None]]]


def sync_with_events(
    out: Path, wanted: dict[str, SourceImage], monkeypatch: pytest.MonkeyPatch, events: Events
) -> tuple[list[str], int]:
    """Sync, and call functions meanwhile, each before the call of storage with its number.

    Returns:
        the result, and the number of calls.
    """
    calls, in_event = 0, False

    def on_call() -> None:
        nonlocal calls, in_event
        if in_event:
            return
        in_event = True
        for call, event in events:
            if call == calls:
                event()
        calls, in_event = calls + 1, False

    with monkeypatch.context() as patches:
        before_each_call(patches, on_call)
        result = pending(out, wanted)
        on_call()
    return result, calls


def sync_new_version(out: Path, monkeypatch: pytest.MonkeyPatch, events: Events) -> int:
    """Sync a new version of two images, of which the first has a cut-out; return the calls."""
    pending(out, OLD)
    make(out, "a.png")
    result, calls = sync_with_events(out, NEW, monkeypatch, events)
    assert result == ["a.png", "b.png"]
    return calls


def test_another_command_with_the_same_images_is_no_error_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, calls = sync_with_events(tmp_path / "count", OLD, monkeypatch, [])
    for call in range(calls):
        out = tmp_path / str(call)

        def other(out: Path = out) -> None:
            make(out, *pending(out, OLD))

        sync_with_events(out, OLD, monkeypatch, [(call, other)])
        assert pending(out, OLD) == []


def test_an_old_cutout_that_is_written_late_is_never_taken_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any moment of a sync another command publishes old ones; at any later one it looks."""
    calls = sync_new_version(tmp_path / "count", monkeypatch, [])
    for first, second in itertools.combinations_with_replacement(range(calls), 2):
        out, written = tmp_path / f"{first}-{second}", list[str]()

        def publish(out: Path = out, written: list[str] = written) -> None:
            for name in set(OLD) - {path.name for path in out.iterdir()}:
                make(out, name)
                written.append(name)

        def look(out: Path = out, written: list[str] = written) -> None:
            for name in written:
                if index.tags(str(out)).get(name) != OLD[name].tag:
                    (out / name).unlink(missing_ok=True)

        sync_new_version(out, monkeypatch, [(first, publish), (second, look)])
        assert not list(out.glob("*.png")), (first, second)


def test_an_old_cutout_is_never_taken_for_a_new_one_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash() -> None:
        raise KeyboardInterrupt

    calls = sync_new_version(tmp_path / "count", monkeypatch, [])
    for call in range(calls):
        out = tmp_path / str(call)
        with pytest.raises(KeyboardInterrupt):
            sync_new_version(out, monkeypatch, [(call, crash)])
        assert index.missing(str(out), NEW, ".png") == ["a.png", "b.png"]
        assert pending(out, NEW) == ["a.png", "b.png"]


def test_missing_are_cutouts_that_do_not_exist_and_those_of_other_versions(tmp_path: Path) -> None:
    assert index.missing(str(tmp_path / "none"), OLD, ".png") == ["a.png", "b.png"]
    pending(tmp_path, {**OLD, **sources_of("c.jpg")})
    make(tmp_path, "a.png", "c.png")
    assert index.missing(str(tmp_path), OLD, ".png") == ["b.png"]
    assert index.missing(str(tmp_path), NEW, ".png") == ["a.png", "b.png"]


def test_other_settings_that_arrive_meanwhile_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that sees no index yet must not replace the one of another."""
    plain_write = storage.write_atomic

    def second(*values: Any, **named: Any) -> bool:
        monkeypatch.setattr(storage, "write_atomic", plain_write)
        pending(tmp_path, sources_of("b.jpg"), edge="hard")
        return plain_write(*values, **named)

    monkeypatch.setattr(storage, "write_atomic", second)
    with pytest.raises(InputError, match="edge: was hard, is now soft"):
        pending(tmp_path, sources_of("a.jpg"))
    assert pending(tmp_path, sources_of("b.jpg"), edge="hard") == ["b.png"]


def test_commands_at_once_lose_no_entry_on_disk(tmp_path: Path) -> None:
    check_no_entry_is_lost(str(tmp_path), 40)


def test_commands_at_once_lose_no_entry_in_s3(s3: Server, bucket: Callable[[Server], str]) -> None:
    check_no_entry_is_lost(bucket(s3), 12)


def check_no_entry_is_lost(home: str, rounds: int) -> None:
    """The same four commands again find their cut-outs listed and finished."""
    turns = race(home, commands=4, rounds=rounds)
    names = [f"{command}.png" for command in range(4)]
    assert turns == [[[name], []] for name in names for _ in range(rounds)]
    for turn in range(rounds):
        body = json.loads(storage.read(storage.join(home, str(turn), index.FILE)))
        assert [row[0] for row in body["pictures"]["/photos"]] == names


def test_finished_are_listed_cutouts_that_exist(tmp_path: Path) -> None:
    assert index.finished(str(tmp_path), ".png") == {}
    wanted = sources_of("b.jpg", "a.jpg", "c.jpg")
    wanted["monday/a.png"] = SourceImage("/photos/monday", FileInfo("a.jpg", 5, "1"), "monday/a")
    pending(tmp_path, wanted)
    (tmp_path / "monday").mkdir()
    make(tmp_path, "a.png", "b.png", "monday/a.png", "stranger.png")
    found = index.finished(str(tmp_path), ".png")
    assert list(found) == ["a.png", "b.png", "monday/a.png"]
    assert found["a.png"] == wanted["a.png"]
