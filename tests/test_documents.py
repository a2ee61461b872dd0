"""The documents name tests that exist."""

import re

from support.commands import REPOSITORY


def test_every_promise_of_reliability_names_a_test_that_exists() -> None:
    text = (REPOSITORY / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", text))
    written = {
        (path.name, test)
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for test in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert named - written == set()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    headers = [line for line in rows if line.endswith("| test |")]
    assert [line for line in rows if line not in headers and "::test_" not in line] == []
