"""docs/flags.md, made from the flags: ``cd tests && python -m support.flag_tables`` writes it."""

import dataclasses
import typing
from typing import Any, Literal

from support.commands import REPOSITORY

from carvana_ray.config import cli
from carvana_ray.config.commands import COMMANDS

PAGE = REPOSITORY / "docs" / "flags.md"
START = """\
# Flags

Every command also has `--help` and `--version`. A flag listed twice differs between commands.

This page is made from the texts of `--help`: `cd tests && python -m support.flag_tables`.
A test compares both.
"""


def page() -> str:
    """Return the text of docs/flags.md: a table per group, a row per flag."""
    rows: dict[str, dict[tuple[str, str], list[str]]] = {name: {} for name in cli.GROUPS}
    for name, command in COMMANDS.items():
        kinds = typing.get_type_hints(command.flags)
        for field in dataclasses.fields(command.flags):
            row = (usage(field, kinds[field.name]), cli.describe(field))
            rows[field.metadata["group"]].setdefault(row, []).append(name)
    text = START
    for group, flags in rows.items():
        text += f"\n## {cli.TITLES.get(group, group).capitalize()}\n\n"
        text += "| flag | commands | meaning |\n| --- | --- | --- |\n"
        for (flag, meaning), commands in sorted(flags.items()):
            names = "all" if len(commands) == len(COMMANDS) else ", ".join(commands)
            text += f"| `{flag}` | {names} | {meaning.replace('|', '&#124;')} |\n"
    return text


def usage(field: "dataclasses.Field[Any]", kind: Any) -> str:
    """Return a flag with its value; in a table a bar would end the cell."""
    if kind is bool:
        return ", ".join(cli.names_of(field))
    if typing.get_origin(kind) is Literal:
        value = "{" + ",".join(typing.get_args(kind)) + "}"
    else:
        value = field.metadata["metavar"].replace("|", " or ")
    return f"{cli.flag(field.name)} {value}{' ...' * isinstance(field.default, tuple)}"


if __name__ == "__main__":
    PAGE.write_text(page())
