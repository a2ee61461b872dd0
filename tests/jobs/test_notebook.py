"""The notebook for Kaggle and Colab, run on a small drawn sample."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.commands import REPOSITORY

NOTEBOOK = json.loads((REPOSITORY / "examples" / "kaggle.ipynb").read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
TINY = """
OUT = "runs/notebook"
FLAGS = ["--epochs", "1", "--sample-cars", "4", "--sample-test-cars", "1", "--holdout-cars", "1"]
FLAGS += ["--val-cars", "1", "--base", "4"]
SUBMIT = True
"""
KAGGLE = "#!/bin/sh\nprintf '%s\\n' \"$@\" > asked\n"


def test_no_output_is_stored_and_all_code_compiles() -> None:
    for cell in CODE:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        compile("".join(cell["source"]), "kaggle.ipynb", "exec")


@pytest.mark.slow
@pytest.mark.ray
def test_the_notebook_trains_checks_and_submits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    kaggle = tmp_path / "programs" / "kaggle"
    kaggle.parent.mkdir()
    kaggle.write_text(KAGGLE)
    kaggle.chmod(0o755)
    monkeypatch.setenv("PATH", f"{kaggle.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    names: dict[str, Any] = {}
    settings, *rest = ("".join(cell["source"]) for cell in CODE)
    exec(settings, names)
    assert not Path(names["DATA"]).exists()
    exec(TINY, names)
    for source in rest:
        exec(source, names)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("Dice 0.")
    assert shown[-1] == "16 rows, no fault"
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:5] == ["competitions", "submit", "-c", "carvana-image-masking-challenge", "-f"]
    assert (tmp_path / asked[5]).stat().st_size
    assert asked[6] == "-m"
    assert asked[7].startswith("carvana_ray, Dice 0.")
