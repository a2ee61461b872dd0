"""Command-line flags and JSON from the fields of a dataclass. Standard library alone.

The field ``batch_size`` is the flag ``--batch-size``.
"""

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from types import NoneType
from typing import Any, Literal, NoReturn, TypeVar

from carvana_ray import __version__
from carvana_ray.errors import EXIT_USAGE, InputError

C = TypeVar("C")


def option(default: Any, text: str, positional: bool = False) -> Any:
    """Return a dataclass field with a default and a help text.

    Args:
        default: default value of the flag.
        text: help text, with the unit.
        positional: whether the value is also accepted without the flag.
    """
    return dataclasses.field(default=default, metadata={"help": text, "positional": positional})


def require_min(least: int, config: Any, *names: str) -> None:
    """Raise `InputError` if any field is below `least`. Fields that are None are skipped."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise InputError(f"{flag(name)} {value}: must be {least} or more")


def require_choices(config: Any) -> None:
    """Raise `InputError` if a `Literal` field has another value. Fields that are None are skipped.

    argparse checks the command line; this checks objects that are built in Python.
    """
    for name, kind in typing.get_type_hints(type(config)).items():
        choices = typing.get_args(kind)
        value = getattr(config, name)
        if typing.get_origin(kind) is Literal and value is not None and value not in choices:
            raise InputError(f"{flag(name)} {value}: must be one of {choices}")


def flag(name: str) -> str:
    """Return the flag of a field: ``--batch-size`` for ``batch_size``."""
    return "--" + name.replace("_", "-")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print the error in one line, without the usage that argparse adds; exit."""
        job = self.prog.split()[-1]
        self.exit(EXIT_USAGE, f"{job}: error: {message} (see {self.prog} --help)\n")


def parser(config: type[Any], prog: str, epilog: str = "") -> argparse.ArgumentParser:
    """Return a parser with a flag per field of a dataclass, with its help text and default."""
    result = _Parser(
        prog=prog,
        description=config.__doc__,
        epilog=epilog,
        allow_abbrev=False,  # a misspelled flag must not pass for another one
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--version", action="version", version=f"carvana_ray {__version__}")
    kinds = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        _add_flag(result, field, kinds[field.name])
    return result


def _add_flag(target: argparse.ArgumentParser, field: "dataclasses.Field[Any]", kind: Any) -> None:
    text = field.metadata["help"]
    if kind is bool:
        target.add_argument(flag(field.name), action="store_true", help=text)
        return
    default = "" if field.default in (None, "", ()) else f" (default: {field.default})"
    several = typing.get_origin(kind) is tuple
    options: dict[str, Any]
    if typing.get_origin(kind) is Literal:
        options = {"choices": typing.get_args(kind)}
    elif several:
        options = {"nargs": "*", "metavar": "NAME"}
    else:  # `int | None` is a number that may be left out
        (value, *_) = [k for k in typing.get_args(kind) if k is not NoneType] or [kind]
        options = {"type": value, "metavar": {int: "N", float: "X"}.get(value, "NAME")}
    target.add_argument(flag(field.name), default=field.default, help=text + default, **options)
    if field.metadata["positional"]:
        target.add_argument(
            field.name,
            nargs="*" if several else "?",
            default=argparse.SUPPRESS,
            help=f"same as {flag(field.name)}",
        )


def parse(config: type[C], prog: str, argv: Sequence[str] | None, epilog: str = "") -> C:
    """Return the dataclass of a command line; on wrong usage end the process with exit code 2."""
    flags = parser(config, prog, epilog)
    values = vars(flags.parse_args(argv))
    try:
        return config(**values)
    except InputError as error:
        flags.error(str(error))


def to_json(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON values; tuples become lists."""
    values = dataclasses.asdict(config)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def subset(config: type[C], source: Any, **changes: Any) -> C:
    """Return a dataclass with the fields that it shares with `source`, except `changes`."""
    names = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    values = {name: value for name, value in to_json(source).items() if name in names}
    return config(**(values | changes))
