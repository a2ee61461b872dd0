"""The jobs as a user runs them, with the pictures in S3 and the results there too."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import SMALL, Run, result_of
from support.s3_buckets import deny, download, upload
from support.s3_servers import Faulty, Server

pytestmark = pytest.mark.ray

TRAINED = ("--epochs", 3, *SMALL)


@pytest.fixture(scope="session")
def local_predictions(finished: Path, data: Path, run_job: Run, tmp_path_factory) -> bytes:  # type: ignore[no-untyped-def]
    """The submission of the model of `finished`, in shards of two pictures."""
    out = tmp_path_factory.mktemp("local")
    flags = ("--data", data, "--model", finished / "model", "--out", out, "--shard-size", 2)
    result_of(run_job("predict", *flags))
    return (out / "submission.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["s3", "rgw"])
def test_a_pipeline_in_s3_makes_what_it_makes_on_disk(
    request: pytest.FixtureRequest,
    kind: str,
    data: Path,
    finished: Path,
    bucket: Callable[[Server], str],
    run_job: Run,
) -> None:
    server = request.getfixturevalue(kind)
    home = bucket(server)
    upload(server, data, f"{home}/carvana")
    flags = ("--data", f"{home}/carvana", "--out", f"{home}/runs/first", *TRAINED)
    done = run_job("pipeline", *flags)
    result = result_of(done)
    assert result["submission"] == f"{home}/runs/first/submission.csv"
    there = download(server, f"{home}/runs/first")
    here = {
        str(path.relative_to(finished)): path.read_bytes()
        for path in finished.rglob("*")
        if path.is_file()
    }
    assert there["submission.csv"] == here["submission.csv"]
    assert there["evaluation.csv"] == here["evaluation.csv"]
    plain = {name for name in here if not name.startswith(("predict/", "checkpoints/"))}
    assert plain == {name for name in there if not name.startswith(("predict/", "checkpoints/"))}
    assert len(there) == len(here)
    secret = server.secret_key.encode()
    assert [name for name, body in there.items() if secret in body] == []
    assert server.secret_key not in done.stdout + done.stderr
    again = result_of(run_job("pipeline", *flags))  # nothing is done twice
    assert again["dice"] == result["dice"]
    after = download(server, f"{home}/runs/first")
    model = {name for name in there if name.startswith(("model/", "checkpoints/", "predict/"))}
    assert {name for name in model if there[name] != after.get(name)} <= {
        name for name in model if name.endswith("_SUCCESS.json")
    }


@pytest.fixture
def catalogue(
    faulty_s3: Faulty, bucket: Callable[[Server], str], data: Path, finished: Path
) -> tuple[Faulty, str]:
    """A server behind a proxy with pictures to predict and a model, and the URI of the bucket."""
    home = bucket(faulty_s3)
    upload(faulty_s3, data / "test", f"{home}/carvana/test")
    rows = (data / "sample_submission.csv").read_bytes()
    name = home.removeprefix("s3://")
    key = "carvana/sample_submission.csv"
    faulty_s3.client().put_object(Bucket=name, Key=key, Body=rows)
    upload(faulty_s3, finished / "model", f"{home}/model")
    faulty_s3.calm()
    return faulty_s3, home


def predict(run_job: Run, home: str, **environment: str):  # type: ignore[no-untyped-def]
    flags = ("--data", f"{home}/carvana", "--model", f"{home}/model", "--out", f"{home}/runs/a")
    return run_job("predict", *flags, "--shard-size", 2, **environment)


@pytest.mark.slow
def test_whatever_s3_does_the_submission_is_the_same(
    catalogue: tuple[Faulty, str], run_job: Run, local_predictions: bytes
) -> None:
    proxy, home = catalogue
    picture = "00000000000{}_0{}.jpg".format
    planted = {
        "503": {"match": picture(8, 1), "method": "GET", "n": 4},
        "reset": {"match": picture(8, 3), "method": "GET", "n": 4},
        "short": {"match": picture(8, 5), "method": "GET"},
        "flip": {"match": picture(8, 7), "method": "GET"},
        "stall": {"match": picture(9, 1), "method": "GET", "s": 33},  # longer than is waited for
    }
    for kind, where in planted.items():
        proxy.fault(kind, **where)
    proxy.fault("503", method="GET", query="list-type=2", n=2, per="all")
    proxy.fault("503", match="/shards/00001", method="PUT", n=2)
    proxy.fault("lost", match="/shards/00003", method="PUT")
    result = result_of(predict(run_job, home))
    assert result["bad"] == 0
    there = download(proxy, f"{home}/runs/a")
    assert there["submission.csv"] == local_predictions
    kinds = [kind for _, _, kind in proxy.requests()]
    assert {kind: kinds.count(kind) for kind in set(kinds) - {"pass"}} == {
        "503": 4 + 2 + 2,
        "reset": 4,
        "short": 1,
        "flip": 1,
        "stall": 1,
        "lost": 1,
    }


@pytest.mark.slow
def test_a_picture_that_never_comes_is_named_and_all_else_is_done(
    catalogue: tuple[Faulty, str], run_job: Run, local_predictions: bytes
) -> None:
    proxy, home = catalogue
    proxy.fault("503", match="000000000008_03.jpg", method="GET", n=None)
    began = time.monotonic()
    done = predict(run_job, home)
    assert time.monotonic() - began < 180
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "000000000008_03.jpg" in last
    assert "503 SlowDown" in last
    assert "Traceback" not in done.stderr
    asked = [path for method, path, kind in proxy.requests() if kind == "503"]
    assert len(asked) <= 2 * 8, "tries were multiplied"
    shards = [one for one in download(proxy, f"{home}/runs/a/predict") if "shards/" in one]
    assert len(shards) == 7
    proxy.calm()
    assert result_of(predict(run_job, home))["resumed_shards"] == 7
    assert download(proxy, f"{home}/runs/a")["submission.csv"] == local_predictions


@pytest.mark.slow
def test_a_store_that_never_answers_ends_the_job_with_the_key_named(
    catalogue: tuple[Faulty, str], run_job: Run
) -> None:
    proxy, home = catalogue
    proxy.fault("503", match="/test/", method="GET", n=None)
    began = time.monotonic()
    done = predict(run_job, home)
    assert time.monotonic() - began < 180
    assert done.returncode == 1
    assert "/carvana/test" in done.stderr.splitlines()[-1]


def check_refusal(done, secret: str, *words: str) -> None:  # type: ignore[no-untyped-def]
    """A job has ended, before it started Ray, in one line that has these words and no secret."""
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert done.stdout == ""
    assert secret not in line
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize(
    "job", ["train", "predict", pytest.param("evaluate", marks=pytest.mark.slow), "sample", "check"]
)
def test_a_bucket_that_is_not_there_is_said_in_one_line(
    s3: Server, bucket: Callable[[Server], str], run_job: Run, finished: Path, job: str
) -> None:
    bucket(s3)
    where = "s3://nobody-made-it/x"
    flags = {
        "train": ("--data", where, "--out", where),
        "predict": ("--data", where, "--out", where, "--model", finished / "model"),
        "evaluate": ("--data", where, "--out", where),
        "sample": ("--out", where),
        "check": (f"{where}/submission.csv",),
    }[job]
    check_refusal(run_job(job, *flags), s3.secret_key, where, "bucket")


def test_a_wrong_secret_and_a_denied_folder_are_said_in_one_line(
    rgw: Server,
    bucket: Callable[[Server], str],
    run_job: Run,
    data: Path,
    finished: Path,
) -> None:
    home = bucket(rgw)
    upload(rgw, data / "test", f"{home}/carvana/test")
    upload(rgw, finished / "model", f"{home}/model")
    wrong = "W" * len(rgw.secret_key)
    check_refusal(predict(run_job, home, AWS_SECRET_ACCESS_KEY=wrong), wrong, home, "secret")
    # One key that is denied would only leave out its shard.
    deny(rgw, home, "s3:GetObject", "/carvana/test/*")
    first = f"{home}/carvana/test/000000000008_01.jpg"
    check_refusal(predict(run_job, home), rgw.secret_key, first, "permit")


def test_an_expired_token_is_said_in_one_line(catalogue: tuple[Faulty, str], run_job: Run) -> None:
    proxy, home = catalogue
    proxy.fault("expired", n=None)
    check_refusal(predict(run_job, home), proxy.secret_key, home, "expired")
