"""The command lines of documents."""

import re
import shlex
from collections.abc import Iterator

# A line that runs a command begins with it, or has it behind `--`, `$(` or a backtick.
COMMAND = re.compile(r"(?:python jobs/([a-z]+)\.py|(?:^|`|\$\(|-- )\s*carvana-ray ([a-z]+))(.*)")


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the flags of each command in a text, as a shell splits them."""
    for line in text.replace("\\\n", " ").splitlines():
        if found := COMMAND.search(line):
            # A pipe, a redirection, `)` or a backtick ends the command.
            words = re.split(r" [|>]|[)`]", found[3])[0]
            yield found[1] or found[2], shlex.split(words, comments=True)
