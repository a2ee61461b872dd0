"""From a dataclass to the flags of a command, and back; to JSON. Standard library alone.

The fields of a dataclass are the flags: ``batch_size`` is ``--batch-size``.
"""

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import field
from types import NoneType
from typing import Any, Literal, NoReturn, TypeVar

from carvana_ray import __version__
from carvana_ray.errors import InputError

C = TypeVar("C")


def option(default: Any, text: str, positional: bool = False) -> Any:
    """Return a dataclass field with a default and the help text of its flag.

    Args:
        default: its value where the flag is not given.
        text: what it means, in which unit.
        positional: it may be given without the flag, too.
    """
    return field(default=default, metadata={"help": text, "positional": positional})


def require_min(least: int, config: Any, *names: str) -> None:
    """Raise `InputError` if one of these fields is less; None is none of them."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise InputError(f"{flag(name)} {value}: must be {least} or more")


def require_choices(config: Any) -> None:
    """Raise `InputError` if a field that must have one of several values has another one."""
    for name, kind in typing.get_type_hints(type(config)).items():
        choices = typing.get_args(kind)
        value = getattr(config, name)
        if typing.get_origin(kind) is Literal and value is not None and value not in choices:
            raise InputError(f"{flag(name)} {value}: must be one of {choices}")


def flag(name: str) -> str:
    """Return the flag of a field: ``batch_size`` is ``--batch-size``."""
    return "--" + name.replace("_", "-")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line (argparse prints its usage before it)."""
        job = self.prog.split()[-1]
        self.exit(2, f"{job}: error: {message} (see {self.prog} --help)\n")


def parser(config: type[Any], prog: str, epilog: str = "") -> argparse.ArgumentParser:
    """Return the parser whose flags are the fields of a dataclass, with their help and defaults."""
    result = _Parser(
        prog=prog,
        description=config.__doc__,
        epilog=epilog,
        allow_abbrev=False,  # a misspelt flag must not pass for another one
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--version", action="version", version=f"carvana_ray {__version__}")
    kinds = typing.get_type_hints(config)
    for knob_ in dataclasses.fields(config):
        text = knob_.metadata["help"]
        if kinds[knob_.name] is bool:
            result.add_argument(flag(knob_.name), action="store_true", help=text)
            continue
        shown = "" if knob_.default in (None, "", ()) else f" (default: {knob_.default})"
        options: dict[str, Any] = {"default": knob_.default, "help": text + shown}
        args = [kind for kind in typing.get_args(kinds[knob_.name]) if kind is not NoneType]
        several = typing.get_origin(kinds[knob_.name]) is tuple
        if typing.get_origin(kinds[knob_.name]) is Literal:
            options["choices"] = args
        elif several:
            options |= {"nargs": "*", "metavar": "NAME"}
        else:
            kind = args[0] if args else kinds[knob_.name]
            options |= {"type": kind, "metavar": {int: "N", float: "X"}.get(kind, "NAME")}
        result.add_argument(flag(knob_.name), **options)
        if knob_.metadata["positional"]:
            result.add_argument(
                knob_.name,
                nargs="*" if several else "?",
                default=argparse.SUPPRESS,
                help="the same, without the flag",
            )
    return result


def parse(config: type[C], prog: str, argv: Sequence[str] | None, epilog: str = "") -> C:
    """Return the dataclass of a command line. Ends the process with exit code 2 on wrong usage."""
    reader = parser(config, prog, epilog)
    values = vars(reader.parse_args(argv))
    try:
        return config(**values)
    except InputError as error:
        reader.error(str(error))


def to_json(config: Any) -> dict[str, Any]:
    """Return a dataclass as plain values, as they come back from JSON."""
    values = dataclasses.asdict(config)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def subset(config: type[C], source: Any, **changes: Any) -> C:
    """Return a dataclass with the values that `source`, another one, has under the same names."""
    names = {knob_.name for knob_ in dataclasses.fields(config)}  # type: ignore[arg-type]
    values = {name: value for name, value in to_json(source).items() if name in names}
    return config(**(values | changes))
