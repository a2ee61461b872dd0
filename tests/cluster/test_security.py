"""What the sources must not do with data from outside, and what must not reach a page."""

import ast
import html.parser
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.report_parts import both

from carvana_ray.data.cars import KAGGLE
from carvana_ray.report import builder as parts

REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted([*REPOSITORY.glob("carvana_ray/**/*.py"), *REPOSITORY.glob("jobs/*.py")])

# Modules whose reading runs code of what is read, or that have no safe way to be used.
MODULES = {"shelve", "marshal", "dill", "cloudpickle", "joblib", "yaml", "telnetlib", "xmlrpc"}
# Calls by their full name, whatever they are given.
CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "tempfile.mktemp",
    "torch.jit.load",
    "torch.hub.load",
    "torch.serialization.add_safe_globals",
    "torch.package.PackageImporter",
    "numpy.lib.format.read_array",
    "pandas.read_pickle",
    "ray.cloudpickle.load",
    "ray.cloudpickle.loads",
}
# The program and its own children exchange objects through a pipe that no other process has.
OWN_PIPE = {"carvana_ray/runtime/children.py": ["pickle.loads"] * 3}
# An argument that a call must have, and arguments that none may have.
MUST = {"torch.load": ("weights_only", True)}
MUST_NOT = {"shell": True, "allow_pickle": True, "weights_only": False, "trust_remote_code": True}


def imported(tree: ast.AST) -> dict[str, str]:
    """Return what each name of a module stands for, with its module: ``np`` is ``numpy``."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                first = one.name.split(".")[0]
                names[one.asname or first] = one.name if one.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module:
            for one in node.names:
                names[one.asname or one.name] = f"{node.module}.{one.name}"
    return names


def full_name(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"


def faults(source: str) -> Iterator[str]:
    """Yield what a source must not do."""
    tree = ast.parse(source)
    names = imported(tree)
    for name in names.values():
        if name.split(".")[0] in MODULES or name in CALLS:
            yield f"import of {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            # Not calls alone: `load = pickle.loads` is as good as one.
            name = full_name(node, names)
            if name in CALLS:
                yield name
        if isinstance(node, ast.Call):
            name = full_name(node.func, names)
            given = {
                key.arg: key.value.value if isinstance(key.value, ast.Constant) else "?"
                for key in node.keywords
            }
            own = isinstance(node.func, ast.Name) and node.func.id not in names
            for argument, value in MUST_NOT.items():  # of the module's own: what they call counts
                if not own and given.get(argument) in (value, "?"):
                    yield f"{name} with {argument}={given[argument]}"
            if name in MUST and given.get(MUST[name][0]) is not MUST[name][1]:
                yield f"{name} without {MUST[name][0]}={MUST[name][1]}"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_no_source_runs_what_it_reads(file: Path) -> None:
    allowed = OWN_PIPE.get(str(file.relative_to(REPOSITORY)), [])
    assert list(faults(file.read_text())) == allowed


def test_all_sources_were_looked_at() -> None:
    assert len(SOURCES) > 30
    text = "".join(file.read_text() for file in SOURCES)
    assert text.count("torch.load(") == 1, "one place alone reads files of tensors"


@pytest.mark.parametrize(
    "source",
    [
        "import torch; torch.load(f)",
        "import torch; torch.load(f, weights_only=False)",
        "import torch; torch.load(f, weights_only=safe)",
        "import torch; torch.load(f, None, **{'weights_only': True})",
        "import torch as t; t.load(f)",
        "from torch import load as read; read(f)",
        "import pickle; pickle.loads(b)",
        "import pickle; read = pickle.load",
        "from pickle import Unpickler; Unpickler(f)",
        "import numpy as np; np.load(f, allow_pickle=True)",
        "import numpy as np; np.load(f, allow_pickle=flag)",
        "def run(x): return eval(x)",
        "exec('1')",
        "import os; os.system('ls')",
        "from os import system; system('ls')",
        "import subprocess; subprocess.run('ls', shell=True)",
        "from subprocess import run; run('ls', shell=flag)",
        "import yaml; yaml.load(f)",
        "from yaml import safe_load",
        "import tempfile; tempfile.mktemp()",
        "from tempfile import mktemp",
    ],
)
def test_each_fault_is_found_where_there_is_one(source: str) -> None:
    assert list(faults(source)) != []


@pytest.mark.parametrize(
    "source",
    [
        "import torch; torch.load(f, map_location='cpu', weights_only=True)",
        "import numpy as np; np.load(f)",
        "import numpy as np; np.load(f, allow_pickle=False)",
        "model.eval()",
        "import re; re.compile('x')",
        "import json; json.load(f)",
        "import subprocess; subprocess.run(['ls'])",
        "import tempfile; tempfile.TemporaryFile()",
        "import pickle; pickle.UnpicklingError",
        "Parts(shell=quads)",
        "class Flags:\n    compile: str = 'auto'",
    ],
)
def test_what_does_no_harm_is_not_taken_for_a_fault(source: str) -> None:
    assert list(faults(source)) == []


SCRIPT = "<script>alert(1)</script>.jpg"
EVIL = [
    SCRIPT,
    "<script>alert(1)<script>_01.jpg",
    "<img src=x onerror=alert(1)>_01.jpg",
    "\"><svg onload='alert(1)'>_01.jpg",
    "' onmouseover=alert(1) x='_01.jpg",
    "</td></table><b>_01.jpg",
    "&lt;script&gt;_01.jpg",
]


class Page(html.parser.HTMLParser):
    """The tags, the attributes and the text of a page, as a browser takes them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.texts += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def whole(name: str) -> Page:
    """Return the report of an evaluation and a prediction with a picture of this name."""
    return Page(parts.to_html(both(name=name)).decode())


@pytest.mark.parametrize("name", EVIL)
def test_a_name_never_becomes_a_part_of_a_page(name: str) -> None:
    harmless, found = whole("fedcba987654_01.jpg"), whole(name)
    assert found.tags == harmless.tags
    assert found.attributes == harmless.attributes
    assert not any(one.startswith("on") for one in found.attributes)
    assert name in found.texts, "as text, to the letter"
    assert KAGGLE.car_of(name) in found.texts
