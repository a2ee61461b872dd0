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


def option(default: Any, text: str, *, least: int | None = None, positional: bool = False) -> Any:
    """Return a dataclass field that is a flag.

    Args:
        default: default value.
        text: help text, with the unit.
        least: smallest valid value.
        positional: whether the value is also accepted without the flag.
    """
    metadata = {"help": text, "least": least, "positional": positional}
    return dataclasses.field(default=default, metadata=metadata)


def require_valid(config: Any) -> None:
    """Raise `InputError` if a field is below its least value or not among the choices of its type.

    Fields that are None are skipped.
    """
    kinds = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, least = getattr(config, field.name), field.metadata["least"]
        choices = typing.get_args(kinds[field.name])
        if value is None:
            continue
        if least is not None and value < least:
            raise InputError(f"{flag(field.name)} {value}: must be {least} or more")
        if typing.get_origin(kinds[field.name]) is Literal and value not in choices:
            raise InputError(f"{flag(field.name)} {value}: must be one of {choices}")


def flag(name: str) -> str:
    """Return the flag of a field: ``--batch-size`` for ``batch_size``."""
    return "--" + name.replace("_", "-")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print the error in one line, without the usage that argparse adds; exit."""
        job = self.prog.split()[-1]
        self.exit(EXIT_USAGE, f"{job}: error: {message} (see {self.prog} --help)\n")


def parse(config: type[C], prog: str, argv: Sequence[str] | None, epilog: str = "") -> C:
    """Return the dataclass of a command line; on wrong usage end the process with exit code 2."""
    parser = _Parser(
        prog=prog,
        description=config.__doc__,
        epilog=epilog,
        allow_abbrev=False,  # a misspelled flag must not pass for another one
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"carvana_ray {__version__}")
    kinds = typing.get_type_hints(config)
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        _add_flag(parser, field, kinds[field.name])
    values = vars(parser.parse_args(argv))
    try:
        return config(**values)
    except InputError as error:
        parser.error(str(error))


def _add_flag(parser: argparse.ArgumentParser, field: "dataclasses.Field[Any]", kind: Any) -> None:
    text = field.metadata["help"]
    if kind is bool:
        parser.add_argument(flag(field.name), action="store_true", help=text)
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
    parser.add_argument(flag(field.name), default=field.default, help=text + default, **options)
    if field.metadata["positional"]:
        parser.add_argument(
            field.name,
            nargs="*" if several else "?",
            default=argparse.SUPPRESS,
            help=f"same as {flag(field.name)}",
        )


def to_json(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON values; tuples become lists."""
    values = dataclasses.asdict(config)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def subset(config: type[C], source: Any, **changes: Any) -> C:
    """Return a dataclass with the fields that it shares with `source`, except `changes`."""
    names = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    values = {name: value for name, value in to_json(source).items() if name in names}
    return config(**(values | changes))
