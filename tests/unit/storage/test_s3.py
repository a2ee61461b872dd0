"""S3: files are whole or absent, replaced only on request; errors name the file and the cause."""

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.s3_buckets import (
    MIB,
    OPERATIONS,
    answer_instead,
    check_message,
    deny,
    head,
    keys,
    put,
    unfinished_uploads,
    write_through,
)
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

Bucket = Callable[[Server], str]


@pytest.fixture
def guarded(rgw: Server, bucket: Bucket) -> str:
    """The URI of an empty bucket on the server that knows of rights."""
    return bucket(rgw)


@pytest.mark.parametrize("data", [b"", b"\0\xff\r\n", os.urandom(3 * MIB)], ids=len)
def test_a_written_file_has_the_given_bytes(server: Server, home: str, data: bytes) -> None:
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


def test_an_existing_file_stays_unless_replaced(home: str) -> None:
    storage.write_atomic(f"{home}/file", b"first")
    assert storage.write_atomic(f"{home}/file", b"second") is False
    assert storage.read(f"{home}/file") == b"first"
    assert storage.write_atomic(f"{home}/file", b"third", replace=True) is True
    assert storage.read(f"{home}/file") == b"third"


def test_writing_the_same_bytes_again_succeeds(home: str) -> None:
    storage.write_atomic(f"{home}/file", b"same")
    assert storage.write_atomic(f"{home}/file", b"same") is True


def test_replace_also_creates_a_file(home: str) -> None:
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


def test_exactly_one_of_sixteen_simultaneous_writers_wins(home: str) -> None:
    for turn in range(2):
        told = race(f"{home}/file-{turn}", replace=False)
        (winner,) = [data for data, won in told.items() if won]
        assert storage.read(f"{home}/file-{turn}") == winner


def test_sixteen_simultaneous_replacements_leave_one_whole_file(server: Server, home: str) -> None:
    told = race(f"{home}/file", replace=True)
    assert all(told.values())
    assert storage.read(f"{home}/file") in told
    assert keys(server, home) == ["file"]


def test_a_listing_is_sorted_and_has_only_the_files_of_the_folder(
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


def test_a_listing_of_several_pages_is_complete(server: Server, home: str) -> None:
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


def test_a_limited_listing_asks_for_no_further_page(server: Server, home: str) -> None:
    for number in range(5):
        put(server, f"{home}/test/{number}.jpg")
    pages = []

    def two_keys(params: dict[str, Any], **_: object) -> None:
        params["MaxKeys"] = 2
        pages.append(params)

    s3.client().meta.events.register("before-parameter-build.s3.ListObjectsV2", two_keys)
    assert len(storage.list_files(f"{home}/test", (".jpg",), limit=1)) == 1
    assert len(pages) == 1
    assert len(storage.list_files(f"{home}/test", (".jpg",), limit=3)) == 3


@pytest.mark.slow
def test_a_listing_of_more_than_a_thousand_files_is_complete(server: Server, home: str) -> None:
    names = [f"{number:04}.jpg" for number in range(1001)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: put(server, f"{home}/test/{name}"), names))
    assert [entry.name for entry in storage.list_files(f"{home}/test", (".jpg",))] == names
    storage.remove_dir(f"{home}/test")
    assert keys(server, home) == []


def test_a_listing_without_a_count_of_keys_is_complete(server: Server, home: str) -> None:
    """Not every store counts them."""
    for name in ("test/a.jpg", "runs/a/file"):
        put(server, f"{home}/{name}")
    s3.client().meta.events.register(
        "after-call.s3.ListObjectsV2", lambda parsed, **_: parsed.pop("KeyCount")
    )
    assert [entry.name for entry in storage.list_files(f"{home}/test")] == ["a.jpg"]
    assert storage.list_files(f"{home}/runs") == []
    with pytest.raises(InputError, match="no such folder"):
        storage.list_files(f"{home}/missing")


def test_a_listing_that_cannot_be_continued_is_an_error(server: Server, home: str) -> None:
    """A store that knows only the first version of the listing sends a marker, not a token."""
    for number in range(3):
        put(server, f"{home}/test/{number}")
    events = s3.client().meta.events
    events.register(
        "before-parameter-build.s3.ListObjectsV2",
        lambda params, **_: params.setdefault("MaxKeys", 2),
    )
    events.register(
        "after-call.s3.ListObjectsV2",
        lambda parsed, **_: parsed.pop("NextContinuationToken", None),
    )
    assert storage.exists(f"{home}/test")
    with pytest.raises(StorageUnavailableError, match="incomplete") as caught:
        storage.list_files(f"{home}/test")
    check_message(caught.value, f"{home}/test")


@pytest.mark.parametrize(
    ("status", "page"),
    [
        (200, b"<html><body>Sign in<br>"),
        (203, b"<html><body>Sign in<br>"),
        (200, b"<html><body/></html>"),
        (200, b""),
        (301, b""),
    ],
)
@pytest.mark.parametrize("operation", ["read", "state", "exists", "list_files", "list_dirs"])
def test_the_page_of_a_proxy_is_no_answer_of_the_store(
    s3: Server,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    status: int,
    page: bytes,
) -> None:
    uri = f"{bucket(s3)}/file"
    put(s3, uri)
    monkeypatch.setattr(s3_client, "TRIES", 2)  # botocore asks again for a page that is no XML
    for name in ("ListObjectsV2", "GetObject", "HeadBucket"):
        answer_instead(name, status, page)
    with pytest.raises(StorageUnavailableError) as caught:
        OPERATIONS[operation](uri)
    check_message(caught.value, uri, s3)
    assert not isinstance(caught.value, InputError)


def test_only_a_changed_file_gets_another_version(home: str) -> None:
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
    assert entry.version == head(server, f"{home}/a")["ETag"]


@pytest.mark.parametrize("place", ["missing", "file", "file/below", "tes"])
def test_listing_a_missing_folder_is_an_input_error_that_names_it(
    server: Server, home: str, place: str
) -> None:
    for name in ("file", "test/a"):
        put(server, f"{home}/{name}")
    with pytest.raises(InputError) as caught:
        storage.list_files(f"{home}/{place}")
    check_message(caught.value, f"{home}/{place}")


def test_folders_are_listed_in_order_and_without_files(server: Server, home: str) -> None:
    for name in ("out/b/1", "out/a/below/2", "out/file", "output/3", "out/a-b/4"):
        put(server, f"{home}/{name}")
    assert storage.list_dirs(f"{home}/out") == ["a", "a-b", "b"]
    assert storage.list_dirs(home) == ["out", "output"]
    assert storage.list_dirs(f"{home}/out/b") == []
    assert storage.list_dirs(f"{home}/missing") == []


def test_everything_in_a_folder_is_listed_but_keys_that_stand_for_folders(
    server: Server, home: str
) -> None:
    """Consoles and other tools write such keys; one may end in ``.jpg/``."""
    for name in ("photos/", "photos/a.jpg", "photos/.b.jpg", "photos/jpg.jpg/", "photos/sub/c.jpg"):
        put(server, f"{home}/{name}")
    found = storage.list_all(f"{home}/photos")
    assert [file.name for file in found.files] == [".b.jpg", "a.jpg"]
    assert (found.folders, found.linked_folders) == (["jpg.jpg", "sub"], [])
    with pytest.raises(InputError, match="no such folder"):
        storage.list_all(f"{home}/missing")


def test_files_and_folders_exist_and_prefixes_of_names_do_not(server: Server, home: str) -> None:
    for name in ("test_masks/a", "train-old/a", "train/a", "train_masks/a"):
        put(server, f"{home}/{name}")
    assert not storage.exists(f"{home}/test")
    assert not storage.exists(f"{home}/train/a/b")
    assert not storage.exists(f"{home}/missing")
    assert storage.exists(f"{home}/train")  # although train-old comes before it
    assert storage.exists(f"{home}/train/a")
    assert storage.exists(home)


def test_the_writer_replaces_the_file_at_the_end_of_its_block(server: Server, home: str) -> None:
    storage.write_atomic(f"{home}/file", b"old")
    with storage.atomic_writer(f"{home}/file") as file:
        file.write(b"n" * 100_000)
        file.flush()
        assert storage.read(f"{home}/file") == b"old"
    assert storage.read(f"{home}/file") == b"n" * 100_000
    assert keys(server, home) == ["file"]


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_files_around_the_size_of_a_part_are_complete(
    server: Server, home: str, part_bytes: int, more: int
) -> None:
    data = os.urandom(part_bytes + more)
    write_through(f"{home}/file", data)
    assert storage.read(f"{home}/file") == data
    assert ("-" in head(server, f"{home}/file")["ETag"]) == (more > 0)


def test_a_large_file_travels_in_pieces(server: Server, home: str, part_bytes: int) -> None:
    data = os.urandom(4 * part_bytes + 123)
    write_through(f"{home}/large", data)
    assert head(server, f"{home}/large")["ETag"].endswith("-5")
    with storage.open_read(f"{home}/large") as file:
        assert b"".join(iter(lambda: file.read(MIB), b"")) == data
    assert unfinished_uploads(server, home) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_the_old_file_stays_when_the_block_of_the_writer_raises(
    server: Server, home: str, part_bytes: int, error: type[BaseException]
) -> None:
    storage.write_atomic(f"{home}/file", b"old")

    def write_half(uri: str) -> None:
        with storage.atomic_writer(uri) as file:
            file.write(b"x" * (part_bytes + 1))
            raise error

    for name in ("file", "new"):
        with pytest.raises(error):
            write_half(f"{home}/{name}")
    assert storage.read(f"{home}/file") == b"old"
    assert keys(server, home) == ["file"]
    assert unfinished_uploads(server, home) == []


def test_an_upload_aborted_from_outside_is_an_error_that_names_the_file(
    rgw: Server, guarded: str, part_bytes: int
) -> None:
    """A rule of the bucket may end uploads that take too long."""
    put(rgw, f"{guarded}/file", b"old")

    def abort(**_: Any) -> None:
        for upload in unfinished_uploads(rgw, guarded):
            with contextlib.suppress(ClientError):  # the thread of another part was first
                rgw.client().abort_multipart_upload(
                    Bucket=guarded.removeprefix("s3://"),
                    Key=upload["Key"],
                    UploadId=upload["UploadId"],
                )

    s3.client().meta.events.register("before-call.s3.UploadPart", abort)
    for name in ("file", "new"):
        with pytest.raises(StorageUnavailableError) as caught:
            write_through(f"{guarded}/{name}", b"x" * (2 * part_bytes))
        check_message(caught.value, f"{guarded}/{name}", rgw)
    assert keys(rgw, guarded) == ["file"]
    assert storage.read(f"{guarded}/file") == b"old"


def test_an_upload_that_is_complete_succeeds_although_its_last_answer_is_an_error(
    server: Server, home: str, part_bytes: int
) -> None:
    """A store may answer NoSuchUpload if the last request is repeated."""

    def fail(http_response: Any, parsed: dict[str, Any], **_: Any) -> None:
        http_response.status_code = 404
        parsed["Error"] = {"Code": "NoSuchUpload", "Message": ""}

    put(server, f"{home}/large", b"old")
    s3.client().meta.events.register("after-call.s3.CompleteMultipartUpload", fail)
    data = os.urandom(2 * part_bytes)
    write_through(f"{home}/large", data)
    assert storage.read(f"{home}/large") == data


@pytest.mark.parametrize(
    ("setting", "expected"), [("when_required", {None}), ("when_supported", {"SHA256"})]
)
def test_parts_have_a_checksum_header_where_the_store_supports_it(
    server: Server,
    home: str,
    part_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    expected: set[str | None],
) -> None:
    """Other stores than AWS need not know the header: over https Ceph 16 rejects it."""
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", setting)
    s3_client._make_client.cache_clear()
    algorithms = set()
    s3.client().meta.events.register(
        "before-parameter-build.s3.UploadPart",
        lambda params, **_: algorithms.add(params.get("ChecksumAlgorithm")),
    )
    data = os.urandom(2 * part_bytes + 1)
    write_through(f"{home}/large", data)
    assert algorithms == expected
    assert storage.read(f"{home}/large") == data
    sha256 = hashlib.sha256(data).hexdigest()
    assert head(server, f"{home}/large")["Metadata"] == {"carvana-ray-sha256": sha256}


def test_remove_removes_only_the_file(server: Server, home: str) -> None:
    for name in ("a", "ab", "a/b"):
        put(server, f"{home}/{name}")
    storage.remove(f"{home}/a")
    storage.remove(f"{home}/a")
    assert keys(server, home) == ["a/b", "ab"]


def test_remove_dir_removes_only_the_folder(server: Server, home: str) -> None:
    for name in ("a", "a/b", "a/.hidden", "a/c/d", "a-b", "ab/c"):
        put(server, f"{home}/{name}")
    storage.remove_dir(f"{home}/a")
    storage.remove_dir(f"{home}/a")
    assert keys(server, home) == ["a", "a-b", "ab/c"]


@pytest.mark.parametrize("read", [storage.read, storage.open_read])
@pytest.mark.parametrize("place", ["missing", "folder", "file/below"])
def test_reading_a_missing_file_is_an_input_error_that_names_it(
    server: Server, home: str, read: Callable[[str], object], place: str
) -> None:
    for name in ("file", "folder/a"):
        put(server, f"{home}/{name}")
    with pytest.raises(FileMissingError) as caught:
        read(f"{home}/{place}")
    check_message(caught.value, f"{home}/{place}")


def test_a_file_over_the_limit_is_not_read(home: str) -> None:
    storage.write_atomic(f"{home}/file", b"12345")
    assert storage.read(f"{home}/file", at_most=5) == b"12345"
    with pytest.raises(FileTooLargeError) as caught:
        storage.read(f"{home}/file", at_most=4)
    check_message(caught.value, f"{home}/file")


def test_the_write_check_leaves_nothing_behind(server: Server, home: str) -> None:
    storage.require_writable(f"{home}/out")
    assert keys(server, home) == []


def test_a_store_with_conditions_is_not_warned_of(
    home: str, caplog: pytest.LogCaptureFixture
) -> None:
    storage.require_writable(f"{home}/out")
    assert caplog.messages == []


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("refused", [False, True], ids=["ignored", "not implemented"])
def test_a_store_without_conditions_is_warned_of_in_one_line(
    server: Server, home: str, caplog: pytest.LogCaptureFixture, header: str, refused: bool
) -> None:
    def without(params: dict[str, Any], **_: Any) -> Any:
        if params["headers"].pop(header, None) and refused:
            error = {"Code": "NotImplemented", "Message": ""}
            return NotImplementedAnswer(), {"Error": error}
        return None

    s3.client().meta.events.register("before-call.s3.PutObject", without)
    storage.require_writable(f"{home}/out")
    (message,) = caplog.messages
    assert message.startswith(f"{home}/out: this store ignores If-None-Match or If-Match")
    assert keys(server, home) == []


class NotImplementedAnswer:
    """The answer of a store that knows no conditions."""

    status_code = 501


def test_a_store_that_refuses_a_right_condition_is_an_input_error(home: str) -> None:
    """Ceph 16 refuses an If-Match with quotes."""
    s3.client().meta.events.register(
        "before-parameter-build.s3.PutObject",
        lambda params, **_: params.update(
            {"IfMatch": f'"{params["IfMatch"]}0"'} if "IfMatch" in params else {}
        ),
    )
    with pytest.raises(InputError, match="refuses to replace a file") as caught:
        storage.require_writable(f"{home}/out")
    check_message(caught.value, f"--out {home}/out")


def test_only_the_file_without_read_permission_fails(rgw: Server, guarded: str) -> None:
    for name in ("open", "shut"):
        storage.write_atomic(f"{guarded}/{name}", b"x")
    deny(rgw, guarded, "s3:GetObject", "/shut")
    assert storage.read(f"{guarded}/open") == b"x"
    with pytest.raises(StorageAccessError, match="do not permit") as caught:
        storage.read(f"{guarded}/shut")
    check_message(caught.value, f"{guarded}/shut", rgw)


@pytest.mark.parametrize("operation", ["write", "replace", "atomic_writer", "multipart"])
def test_a_write_without_permission_names_the_file_and_leaves_nothing(
    rgw: Server, guarded: str, operation: str
) -> None:
    deny(rgw, guarded, "s3:PutObject", "/*")
    with pytest.raises(StorageAccessError, match="do not permit") as caught:
        OPERATIONS[operation](f"{guarded}/file")
    check_message(caught.value, f"{guarded}/file", rgw)
    assert keys(rgw, guarded) == []
    assert unfinished_uploads(rgw, guarded) == []


@pytest.mark.parametrize("operation", ["list_files", "list_dirs", "exists", "remove_dir"])
def test_a_bucket_without_list_permission_is_an_error_and_not_empty(
    rgw: Server, guarded: str, operation: str
) -> None:
    storage.write_atomic(f"{guarded}/folder/file", b"x")
    deny(rgw, guarded, "s3:ListBucket", "")
    with pytest.raises(StorageAccessError, match="do not permit") as caught:
        OPERATIONS[operation](f"{guarded}/folder")
    check_message(caught.value, f"{guarded}/folder", rgw)


def test_the_write_check_refuses_an_out_without_write_permission(rgw: Server, guarded: str) -> None:
    deny(rgw, guarded, "s3:PutObject", "/*")
    with pytest.raises(InputError) as caught:
        storage.require_writable(f"{guarded}/out")
    check_message(caught.value, f"--out {guarded}/out", rgw)


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://my.bucket-1/A b/ä+%.csv", "s3://my.bucket-1/A b/ä+%.csv"),
    ],
)
def test_a_uri_has_one_normal_form(uri: str, absolute: str) -> None:
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
def test_a_malformed_uri_is_an_input_error_of_one_line(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        storage.resolve(uri)
    assert "s3://" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["s3://ME:CANARY@bucket/key", "s3://bucket/key?secret=CANARY"])
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        storage.resolve(uri)
    assert "CANARY" not in str(caught.value)
