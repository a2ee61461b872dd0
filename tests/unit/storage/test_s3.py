"""In S3 as on disk: whole or not at all, never replaced unasked; and errors that name the cause."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.commands import REPOSITORY
from support.s3_servers import Server

from carvana_ray import storage
from carvana_ray.errors import (
    FileMissingError,
    FileTooLargeError,
    InputError,
    StorageAccessError,
    StorageUnavailableError,
)
from carvana_ray.storage import s3, s3_client

MIB = 2**20
Bucket = Callable[[Server], str]


@pytest.fixture
def home(server: Server, bucket: Bucket) -> str:
    """The URI of an empty bucket, on each of the servers."""
    return bucket(server)


@pytest.fixture
def guarded(rgw: Server, bucket: Bucket) -> str:
    """The URI of an empty bucket on the server that knows of rights."""
    return bucket(rgw)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """The size of a part: the smallest that S3 takes."""
    monkeypatch.setattr(s3, "PART_BYTES", 5 * MIB)
    return 5 * MIB


def put(server: Server, uri: str, data: bytes = b"x") -> None:
    """Write a file without the code that is tested."""
    name, key = uri.removeprefix("s3://").split("/", 1)
    server.client().put_object(Bucket=name, Key=key, Body=data)


def keys(server: Server, home: str) -> list[str]:
    """List a bucket without the code that is tested."""
    pages = server.client().get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=home.removeprefix("s3://"))
    return [one["Key"] for page in found for one in page.get("Contents", [])]


def pending(server: Server, home: str) -> list[Any]:
    """List the uploads that were begun and neither completed nor aborted."""
    found = server.client().list_multipart_uploads(Bucket=home.removeprefix("s3://"))
    return list(found.get("Uploads", []))


def etag(server: Server, uri: str) -> str:
    name, key = uri.removeprefix("s3://").split("/", 1)
    return str(server.client().head_object(Bucket=name, Key=key)["ETag"]).strip('"')


def deny(server: Server, home: str, action: str, what: str) -> None:
    """Take a right from everybody, the owner too."""
    name = home.removeprefix("s3://")
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": f"arn:aws:s3:::{name}{what}",
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    server.client().put_bucket_policy(Bucket=name, Policy=json.dumps(policy))


def check_message(error: BaseException, uri: str, server: Server | None = None) -> None:
    """An error is one line that names the file, and holds no secret."""
    assert str(error).startswith(f"{uri}: ")
    assert "\n" not in str(error)
    if server:
        assert server.secret_key not in str(error)


def publish_through(uri: str, data: bytes) -> None:
    with storage.atomic_writer(uri) as file:
        file.write(data)


@pytest.mark.parametrize("data", [b"", b"\0\xff\r\n", os.urandom(3 * MIB)], ids=len)
def test_a_published_file_is_what_was_given(server: Server, home: str, data: bytes) -> None:
    assert storage.write_atomic(f"{home}/new/folders/file.bin", data) is True
    assert storage.read(f"{home}/new/folders/file.bin") == data
    assert keys(server, home) == ["new/folders/file.bin"]


@pytest.mark.parametrize(
    "name", ["a b.jpg", "a+b.jpg", "a%20b.jpg", "ä€.jpg", "a&b=<c>.jpg", "a#b.jpg", "a'b\".jpg"]
)
def test_any_name_can_be_written_listed_and_read(server: Server, home: str, name: str) -> None:
    uri = storage.join(home, "pictures", name)
    assert storage.write_atomic(uri, name.encode())
    assert [entry.name for entry in storage.list_files(f"{home}/pictures")] == [name]
    assert storage.read(uri) == name.encode()
    assert storage.exists(uri)
    assert keys(server, home) == [f"pictures/{name}"]


def test_a_file_that_is_there_stays_unless_replacing_is_asked_for(home: str) -> None:
    storage.write_atomic(f"{home}/file", b"first")
    assert storage.write_atomic(f"{home}/file", b"second") is False
    assert storage.read(f"{home}/file") == b"first"
    assert storage.write_atomic(f"{home}/file", b"third", replace=True) is True
    assert storage.read(f"{home}/file") == b"third"


def test_publishing_what_is_there_already_is_no_loss(home: str) -> None:
    storage.write_atomic(f"{home}/file", b"same")
    assert storage.write_atomic(f"{home}/file", b"same") is True


def test_replace_also_makes_a_file_that_is_not_there(home: str) -> None:
    assert storage.write_atomic(f"{home}/file", b"x", replace=True) is True
    assert storage.read(f"{home}/file") == b"x"


def race(uri: str, replace: bool) -> dict[bytes, bool]:
    """Let 16 threads publish each its own contents at once; return who was told to have won."""
    start = threading.Barrier(16)
    s3.client()  # made beforehand, so that they race for the file

    def publish(who: int) -> tuple[bytes, bool]:
        data = bytes([who]) * 100_000
        start.wait()
        return data, storage.write_atomic(uri, data, replace=replace)

    with ThreadPoolExecutor(16) as pool:
        return dict(pool.map(publish, range(16)))


def test_of_sixteen_that_publish_at_once_exactly_one_wins_and_all_see_it(home: str) -> None:
    for turn in range(2):
        told = race(f"{home}/file-{turn}", replace=False)
        (winner,) = [data for data, won in told.items() if won]
        assert storage.read(f"{home}/file-{turn}") == winner


def test_of_sixteen_that_replace_at_once_one_is_there_and_whole(server: Server, home: str) -> None:
    told = race(f"{home}/file", replace=True)
    assert all(told.values())
    assert storage.read(f"{home}/file") in told
    assert keys(server, home) == ["file"]


def test_a_listing_is_sorted_and_has_the_files_of_the_folder_alone(
    server: Server, home: str
) -> None:
    for name in ("b.jpg", "a.jpg", "C.JPG", "a.txt", "._a.jpg", ".hidden.jpg", "below/d.jpg"):
        put(server, f"{home}/test/{name}", b"12345")
    put(server, f"{home}/test_masks/e.jpg")
    put(server, f"{home}/test/", b"")  # consoles make such an empty file for a folder
    found = storage.list_files(f"{home}/test", (".jpg",))
    assert [entry.name for entry in found] == ["C.JPG", "a.jpg", "b.jpg"]
    assert {entry.size for entry in found} == {5}
    assert [entry.name for entry in storage.list_files(f"{home}/test")] == [
        *("C.JPG", "a.jpg", "a.txt", "b.jpg")
    ]


def test_a_bucket_can_be_listed_itself(home: str) -> None:
    storage.write_atomic(f"{home}/file", b"x")
    assert [entry.name for entry in storage.list_files(home)] == ["file"]


def test_a_listing_of_several_pages_is_whole(server: Server, home: str) -> None:
    names = [f"{number}.jpg" for number in range(5)]
    for name in names:
        put(server, f"{home}/test/{name}")
        put(server, f"{home}/runs/{name}/file")
    s3.client().meta.events.register(
        "before-parameter-build.s3.ListObjectsV2",
        lambda params, **_: params.setdefault("MaxKeys", 2),
    )
    assert [entry.name for entry in storage.list_files(f"{home}/test")] == names
    assert storage.list_dirs(f"{home}/runs") == names
    storage.remove_dir(f"{home}/test")
    assert keys(server, home) == [f"runs/{name}/file" for name in names]


@pytest.mark.slow
def test_a_listing_of_more_than_a_thousand_files_is_whole(server: Server, home: str) -> None:
    names = [f"{number:04}.jpg" for number in range(1001)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: put(server, f"{home}/test/{name}"), names))
    assert [entry.name for entry in storage.list_files(f"{home}/test", (".jpg",))] == names
    storage.remove_dir(f"{home}/test")
    assert keys(server, home) == []


def test_a_changed_file_has_another_version_and_an_untouched_one_the_same(home: str) -> None:
    for name in ("a", "b"):
        storage.write_atomic(f"{home}/{name}", b"123")
    before = storage.list_files(home)
    storage.write_atomic(f"{home}/a", b"456", replace=True)
    after = storage.list_files(home)
    assert before[0].version != after[0].version
    assert before[1] == after[1]


def test_a_version_is_the_etag(server: Server, home: str) -> None:
    storage.write_atomic(f"{home}/a", b"123")
    (entry,) = storage.list_files(home)
    assert entry.version == etag(server, f"{home}/a")


@pytest.mark.parametrize("place", ["missing", "file", "file/below", "tes"])
def test_a_listing_of_no_folder_is_an_input_error_that_names_it(
    server: Server, home: str, place: str
) -> None:
    for name in ("file", "test/a"):
        put(server, f"{home}/{name}")
    with pytest.raises(InputError) as caught:
        storage.list_files(f"{home}/{place}")
    check_message(caught.value, f"{home}/{place}")


def test_the_folders_of_a_folder_come_in_order_and_without_its_files(
    server: Server, home: str
) -> None:
    for name in ("out/b/1", "out/a/below/2", "out/file", "output/3", "out/a-b/4"):
        put(server, f"{home}/{name}")
    assert storage.list_dirs(f"{home}/out") == ["a", "a-b", "b"]
    assert storage.list_dirs(home) == ["out", "output"]
    assert storage.list_dirs(f"{home}/out/b") == []
    assert storage.list_dirs(f"{home}/missing") == []


def test_files_and_folders_exist_and_beginnings_of_names_do_not(server: Server, home: str) -> None:
    for name in ("test_masks/a", "train-old/a", "train/a", "train_masks/a"):
        put(server, f"{home}/{name}")
    assert not storage.exists(f"{home}/test")
    assert not storage.exists(f"{home}/train/a/b")
    assert not storage.exists(f"{home}/missing")
    assert storage.exists(f"{home}/train")  # although train-old comes before it
    assert storage.exists(f"{home}/train/a")
    assert storage.exists(home)


def test_the_size_of_a_file_and_of_nothing(server: Server, home: str) -> None:
    put(server, f"{home}/file", b"12345")
    put(server, f"{home}/empty", b"")
    put(server, f"{home}/folder/file", b"12345")
    assert storage.size(f"{home}/file") == 5
    assert storage.size(f"{home}/empty") == 0
    for nothing in ("missing", "fil", "folder", "file/below"):
        assert storage.size(f"{home}/{nothing}") is None


def test_publishing_replaces_when_the_block_ends_and_not_before(server: Server, home: str) -> None:
    storage.write_atomic(f"{home}/file", b"old")
    with storage.atomic_writer(f"{home}/file") as file:
        file.write(b"n" * 100_000)
        file.flush()
        assert storage.read(f"{home}/file") == b"old"
    assert storage.read(f"{home}/file") == b"n" * 100_000
    assert keys(server, home) == ["file"]


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_around_the_size_of_a_part_nothing_is_lost(
    server: Server, home: str, parts: int, more: int
) -> None:
    data = os.urandom(parts + more)
    publish_through(f"{home}/file", data)
    assert storage.read(f"{home}/file") == data
    assert ("-" in etag(server, f"{home}/file")) == (more > 0)


def test_a_large_file_goes_and_comes_in_pieces(server: Server, home: str, parts: int) -> None:
    data = os.urandom(4 * parts + 123)
    publish_through(f"{home}/large", data)
    assert etag(server, f"{home}/large").endswith("-5")
    with storage.open_read(f"{home}/large") as file:
        assert b"".join(iter(lambda: file.read(MIB), b"")) == data
    assert pending(server, home) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_publishing_leaves_the_old_file_when_its_block_raises(
    server: Server, home: str, parts: int, error: type[BaseException]
) -> None:
    storage.write_atomic(f"{home}/file", b"old")

    def write_half(uri: str) -> None:
        with storage.atomic_writer(uri) as file:
            file.write(b"x" * (parts + 1))
            raise error

    for name in ("file", "new"):
        with pytest.raises(error):
            write_half(f"{home}/{name}")
    assert storage.read(f"{home}/file") == b"old"
    assert keys(server, home) == ["file"]
    assert pending(server, home) == []


def test_an_upload_that_is_taken_away_under_way_is_an_error_that_names_the_file(
    rgw: Server, guarded: str, parts: int
) -> None:
    """As by a rule of the bucket that ends uploads which take too long."""

    def abort(**_: Any) -> None:
        for one in pending(rgw, guarded):
            with contextlib.suppress(ClientError):  # the thread of another part did it
                rgw.client().abort_multipart_upload(
                    Bucket=guarded.removeprefix("s3://"), Key=one["Key"], UploadId=one["UploadId"]
                )

    s3.client().meta.events.register("before-call.s3.UploadPart", abort)
    with pytest.raises(StorageUnavailableError) as caught:
        publish_through(f"{guarded}/file", b"x" * (2 * parts))
    check_message(caught.value, f"{guarded}/file", rgw)
    assert keys(rgw, guarded) == []


def test_a_file_is_removed_and_nothing_beside_it(server: Server, home: str) -> None:
    for name in ("a", "ab", "a/b"):
        put(server, f"{home}/{name}")
    storage.remove(f"{home}/a")
    storage.remove(f"{home}/a")
    assert keys(server, home) == ["a/b", "ab"]


def test_a_folder_is_removed_with_all_in_it_and_nothing_beside_it(
    server: Server, home: str
) -> None:
    for name in ("a", "a/b", "a/.hidden", "a/c/d", "a-b", "ab/c"):
        put(server, f"{home}/{name}")
    storage.remove_dir(f"{home}/a")
    storage.remove_dir(f"{home}/a")
    assert keys(server, home) == ["a", "a-b", "ab/c"]


@pytest.mark.parametrize("read", [storage.read, storage.open_read])
@pytest.mark.parametrize("place", ["missing", "folder", "file/below"])
def test_reading_no_file_is_an_input_error_that_names_it(
    server: Server, home: str, read: Callable[[str], object], place: str
) -> None:
    for name in ("file", "folder/a"):
        put(server, f"{home}/{name}")
    with pytest.raises(FileMissingError) as caught:
        read(f"{home}/{place}")
    check_message(caught.value, f"{home}/{place}")


def test_a_file_is_read_only_if_it_is_not_too_large(home: str) -> None:
    storage.write_atomic(f"{home}/file", b"12345")
    assert storage.read(f"{home}/file", at_most=5) == b"12345"
    with pytest.raises(FileTooLargeError) as caught:
        storage.read(f"{home}/file", at_most=4)
    check_message(caught.value, f"{home}/file")


def test_files_that_are_read_ahead_come_in_order_with_their_errors(home: str) -> None:
    names = [f"{number:02}" for number in range(40)]
    for name in names:
        storage.write_atomic(f"{home}/{name}", name.encode())
    storage.remove(f"{home}/07")
    found = list(storage.read_many([f"{home}/{name}" for name in names]))
    assert isinstance(found.pop(7), FileMissingError)
    assert found == [name.encode() for name in names if name != "07"]


def test_a_folder_that_can_be_written_is_left_as_it_was(server: Server, home: str) -> None:
    storage.require_writable(f"{home}/out")
    assert keys(server, home) == []


ALL = {
    "read": storage.read,
    "reading": storage.open_read,
    "listing": storage.list_files,
    "folders": storage.list_dirs,
    "exists": storage.exists,
    "size": storage.size,
    "publish": lambda uri: storage.write_atomic(uri, b"x"),
    "replace": lambda uri: storage.write_atomic(uri, b"x", replace=True),
    "publishing": lambda uri: publish_through(uri, b"x"),
    "in parts": lambda uri: publish_through(uri, b"x" * (s3.PART_BYTES + 1)),
    "remove": storage.remove,
    "remove_folder": storage.remove_dir,
}
everything = pytest.mark.parametrize("act", ALL.values(), ids=ALL.keys())


@everything
def test_a_bucket_that_is_not_there_is_said_to_the_user(
    server: Server, home: str, act: Callable[[str], object]
) -> None:
    uri = "s3://no-such-bucket-anywhere/folder/file"
    with pytest.raises(StorageAccessError, match="no such bucket") as caught:
        act(uri)
    check_message(caught.value, uri, server)


@everything
def test_a_wrong_secret_is_said_to_the_user_at_once_and_not_repeated_to_him(
    rgw: Server, guarded: str, monkeypatch: pytest.MonkeyPatch, act: Callable[[str], object]
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY-secret")
    s3_client._make_client.cache_clear()
    began = time.monotonic()
    with pytest.raises(StorageAccessError, match="secret") as caught:
        act(f"{guarded}/file")
    assert time.monotonic() - began < 60
    check_message(caught.value, f"{guarded}/file", rgw)
    assert "CANARY" not in str(caught.value)


def test_an_unknown_access_key_is_said_to_the_user(
    rgw: Server, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    s3_client._make_client.cache_clear()
    with pytest.raises(StorageAccessError, match="access key") as caught:
        storage.read(f"{guarded}/file")
    check_message(caught.value, f"{guarded}/file", rgw)


def test_no_credentials_at_all_are_said_to_the_user(
    rgw: Server, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3_client._make_client.cache_clear()
    with pytest.raises(StorageAccessError, match="credentials") as caught:
        storage.read(f"{guarded}/file")
    check_message(caught.value, f"{guarded}/file", rgw)


def test_a_file_that_may_not_be_read_is_named_and_those_beside_it_are_read(
    rgw: Server, guarded: str
) -> None:
    for name in ("open", "shut"):
        storage.write_atomic(f"{guarded}/{name}", b"x")
    deny(rgw, guarded, "s3:GetObject", "/shut")
    assert storage.read(f"{guarded}/open") == b"x"
    with pytest.raises(StorageAccessError, match="no right") as caught:
        storage.read(f"{guarded}/shut")
    check_message(caught.value, f"{guarded}/shut", rgw)


@pytest.mark.parametrize("how", ["publish", "replace", "publishing", "in parts"])
def test_a_place_that_may_not_be_written_is_named_and_nothing_is_left(
    rgw: Server, guarded: str, how: str
) -> None:
    deny(rgw, guarded, "s3:PutObject", "/*")
    with pytest.raises(StorageAccessError, match="no right") as caught:
        ALL[how](f"{guarded}/file")
    check_message(caught.value, f"{guarded}/file", rgw)
    assert keys(rgw, guarded) == []
    assert pending(rgw, guarded) == []


@pytest.mark.parametrize("how", ["listing", "folders", "exists", "size", "remove_folder"])
def test_a_bucket_that_may_not_be_listed_is_not_taken_for_an_empty_one(
    rgw: Server, guarded: str, how: str
) -> None:
    storage.write_atomic(f"{guarded}/folder/file", b"x")
    deny(rgw, guarded, "s3:ListBucket", "")
    with pytest.raises(StorageAccessError, match="no right") as caught:
        ALL[how](f"{guarded}/folder")
    check_message(caught.value, f"{guarded}/folder", rgw)


def test_an_out_that_cannot_be_written_is_refused_before_the_work(
    rgw: Server, guarded: str
) -> None:
    deny(rgw, guarded, "s3:PutObject", "/*")
    with pytest.raises(InputError) as caught:
        storage.require_writable(f"{guarded}/out")
    check_message(caught.value, f"--out {guarded}/out", rgw)


def test_where_nobody_listens_the_file_is_named_and_the_end_is_soon(
    s3: Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = bucket(s3)
    monkeypatch.setattr(s3_client, "TRIES", 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3_client._make_client.cache_clear()
    with pytest.raises(StorageUnavailableError) as caught:
        storage.read(f"{home}/file")
    check_message(caught.value, f"{home}/file", s3)
    assert not isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://my.bucket-1/A b/ä+%.csv", "s3://my.bucket-1/A b/ä+%.csv"),
    ],
)
def test_a_place_is_written_in_one_way(uri: str, absolute: str) -> None:
    assert storage.resolve(uri) == absolute
    assert storage.resolve(absolute) == absolute


@pytest.mark.parametrize(
    "uri",
    [
        *("s3://", "s3:///key", "s3://B", "s3://Bucket/key", "s3://bu_cket/key", "s3://b:80/key"),
        *("s3://bucket//a", "s3://bucket/a//b", "s3://bucket/./a", "s3://bucket/a/../b"),
        *("s3://bucket/a\nb", "s3://bucket/a\0b", "s3://bucket/a\\b", "s3://bucket/\x7f"),
    ],
)
def test_what_names_no_place_is_an_input_error_of_one_line(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        storage.resolve(uri)
    assert "s3://" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["s3://ME:CANARY@bucket/key", "s3://bucket/key?secret=CANARY"])
def test_keys_in_a_place_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        storage.resolve(uri)
    assert "CANARY" not in str(caught.value)


def test_files_are_never_sent_in_clear_over_a_network(
    s3: Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://ME:CANARY@192.0.2.1:9000")
    s3_client._make_client.cache_clear()
    with pytest.raises(InputError, match=r"AWS_ENDPOINT_URL .*192\.0\.2\.1.*https") as caught:
        storage.read("s3://bucket/key")
    assert "CANARY" not in str(caught.value)


def test_sixteen_threads_share_one_client_from_the_first_file_on(
    s3: Server, bucket: Bucket
) -> None:
    """To make one takes longer than to read thirty files."""
    from carvana_ray.storage import s3 as tested

    bucket(s3)
    start = threading.Barrier(16)

    def client(_: int) -> int:
        start.wait()
        return id(tested.client())

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(client, range(16)))) == 1


def test_another_process_finds_the_server_by_its_environment(server: Server, home: str) -> None:
    storage.write_atomic(f"{home}/file", b"found")
    code = f"from carvana_ray import storage; print(storage.read({home + '/file'!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, **server.environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "b'found'\n", done.stderr
