"""Provenance: model, flags, data and versions of a result."""

import shutil
import subprocess
from pathlib import Path

import numpy
import pytest
from support.models import manifest_of

from carvana_ray import config
from carvana_ray.report.provenance import code_commit, data_digest, provenance


def test_a_part_names_its_model_flags_data_and_versions() -> None:
    manifest = manifest_of(b"weights")
    found = provenance(config.EvaluateFlags(data="photos"), manifest, "/photos", {"a.jpg": 1})
    assert found["model"] == manifest.sha256
    assert sorted(found) == ["lineage", "made", "model"]
    facts = found["lineage"]
    assert facts["model"]["downscale"] == 8
    assert facts["configuration of its training"] == {"seed": 3}
    assert facts["configuration of this job"]["data"] == "photos"
    assert facts["data"]["pictures"] == 1
    assert facts["versions"]["numpy"] == numpy.__version__
    assert "commit" in facts["versions"]


def test_the_digest_is_of_names_and_bytes_in_any_order() -> None:
    digest = data_digest({"a.jpg": 1, "b.jpg": 2})
    assert digest == data_digest({"b.jpg": 2, "a.jpg": 1})
    assert len({digest, data_digest({"a.jpg": 1}), data_digest({"a.jpg": 1, "b.jpg": 3})}) == 3


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_the_commit_of_a_clone_is_known_and_whether_files_were_changed(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a.py").write_text("1")
    assert code_commit(tmp_path) is None, "no commit yet"
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    git(tmp_path, "tag", "-a", "v1", "-m", "v1")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert code_commit(tmp_path) == head
    (tmp_path / "a.py").write_text("2")
    assert code_commit(tmp_path) == f"{head}-dirty"
    (tmp_path / "site-packages").mkdir()
    assert code_commit(tmp_path / "site-packages") != head, "of another repository"


def test_without_git_there_is_no_commit_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert code_commit(tmp_path) is None
    (tmp_path / ".git").mkdir()
    assert code_commit(tmp_path) is None, "a damaged repository"
    monkeypatch.setenv("PATH", "")
    assert code_commit(tmp_path) is None
