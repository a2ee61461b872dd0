"""Command-line flags and JSON from the fields of a dataclass. Standard library alone.

The field ``batch_size`` is the flag ``--batch-size``.
"""

import argparse
import dataclasses
import difflib
import inspect
import shutil
import typing
from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Any, Literal, NoReturn, TypeVar

from carvana_ray import __version__
from carvana_ray.errors import EXIT_USAGE, InputError

C = TypeVar("C")

GROUPS = ("input", "sample", "model", "training", "output", "machine", "log")  # in this order
TITLES = {"sample": "drawn sample"}


def option(
    default: Any,
    text: str,
    *,
    group: str,
    metavar: str = "N",
    least: int | None = None,
    positional: bool = False,
) -> Any:
    """Return a dataclass field that is a flag.

    Args:
        default: default value.
        text: help text, with the unit.
        group: the heading in ``--help``, one of `GROUPS`.
        metavar: what the value is, in capitals: a number N, FOLDER, FILE.
        least: smallest valid value.
        positional: whether the value is also accepted without the flag.
    """
    metadata = {"help": text, "group": group, "metavar": metavar, "least": least}
    return dataclasses.field(default=default, metadata=metadata | {"positional": positional})


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


def describe(field: "dataclasses.Field[Any]") -> str:
    """Return the help text of a flag, with its default."""
    default = "on" if field.default is True else field.default
    given = default is not False and default not in (None, "", ())
    return field.metadata["help"] + (f" (default: {default})" if given else "")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print the error in one line, without the usage that argparse adds; exit."""
        job = self.prog.split()[-1]
        self.exit(EXIT_USAGE, f"{job}: error: {message} (see {self.prog} --help)\n")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, 100) - 2
        super().__init__(prog, max_help_position=28, width=width)


def parse(config: type[C], prog: str, argv: Sequence[str] | None, epilog: str = "") -> C:
    """Return the dataclass of a command line; on wrong usage end the process with exit code 2."""
    parser = _make_parser(config, prog, epilog)
    values, rest = parser.parse_known_args(argv)
    given = vars(values)
    flags = [word for word in rest if word.startswith("-")]
    if flags:
        parser.error(f"unrecognized flag {flags[0]}{_suggest(flags[0].split('=')[0], config)}")
    if rest:  # argparse takes the values of a positional argument only where they are together
        name = next((f.name for f in _positionals(config) if isinstance(f.default, tuple)), "")
        if not name:
            parser.error(f"unrecognized argument {rest[0]}")
        given[name] = [*given[name], *rest]
    try:
        return config(**given)
    except InputError as error:
        parser.error(str(error))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean NAME?`` for a mistyped word, or "" if no name is like it."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def names_of(field: "dataclasses.Field[Any]") -> list[str]:
    """Return the flags of a field: one that is on by default also has ``--no-NAME``."""
    return [flag(field.name)] + [flag(f"no-{field.name}")] * (field.default is True)


def _suggest(word: str, config: type[Any]) -> str:
    known = [name for field in dataclasses.fields(config) for name in names_of(field)]
    return did_you_mean(word, known)


def _positionals(config: type[Any]) -> "list[dataclasses.Field[Any]]":
    return [field for field in dataclasses.fields(config) if field.metadata["positional"]]


def _make_parser(config: type[Any], prog: str, epilog: str) -> _Parser:
    parser = _Parser(
        prog=prog,
        usage=" ".join([prog, *map(_usage, _positionals(config)), "[flags]"]),
        description=inspect.cleandoc(config.__doc__ or ""),
        epilog=epilog,
        allow_abbrev=False,  # a misspelled flag must not pass for another one
        formatter_class=_Formatter,
        add_help=False,
    )
    kinds = typing.get_type_hints(config)
    fields = sorted(dataclasses.fields(config), key=lambda field: not field.metadata["positional"])
    for name in GROUPS:
        group = parser.add_argument_group(TITLES.get(name, name))
        for field in fields:
            if field.metadata["group"] == name:
                _add_flag(group, field, kinds[field.name])
    group = parser.add_argument_group("help")
    group.add_argument("-h", "--help", action="help", help="print this help")
    version = f"carvana_ray {__version__}"
    group.add_argument("--version", action="version", version=version, help="print the version")
    return parser


def _usage(field: "dataclasses.Field[Any]") -> str:
    name = field.metadata["metavar"]
    return f"[{name} ...]" if isinstance(field.default, tuple) else name


def _add_flag(group: "argparse._ArgumentGroup", field: "dataclasses.Field[Any]", kind: Any) -> None:
    text, name = describe(field), flag(field.name)
    if kind is bool:
        on = field.default is True  # then --no-NAME turns it off
        action = argparse.BooleanOptionalAction if on else "store_true"
        group.add_argument(name, action=action, default=argparse.SUPPRESS, help=text)
        return
    options: dict[str, Any] = {"metavar": field.metadata["metavar"]}
    if typing.get_origin(kind) is Literal:
        options = {"choices": typing.get_args(kind)}
    elif isinstance(field.default, tuple):
        options["nargs"] = "*"
    else:  # `int | None` is a number that may be left out
        (value, *_) = [k for k in typing.get_args(kind) if k is not NoneType] or [kind]
        options["type"] = value
    if field.metadata["positional"]:
        own = {"nargs": options.get("nargs", "?"), "metavar": field.metadata["metavar"]}
        group.add_argument(field.name, default=argparse.SUPPRESS, help=text, **own)
        text = "the same, as a flag"
    group.add_argument(name, default=field.default, help=text, **options)


def to_json(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON values; tuples become lists."""
    values = dataclasses.asdict(config)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def subset(config: type[C], source: Any, **changes: Any) -> C:
    """Return a dataclass with the fields that it shares with `source`, except `changes`."""
    names = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    values = {name: value for name, value in to_json(source).items() if name in names}
    return config(**(values | changes))


def to_words(config: Any) -> list[str]:
    """Return the words of a command line that gives these flags, the inverse of `parse`."""
    words: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value == field.default:
            continue
        if isinstance(value, bool):
            words.append(flag(field.name if value else f"no-{field.name}"))
        elif isinstance(value, tuple):
            words += [flag(field.name), *map(str, value)]
        elif str(value).startswith("-"):  # argparse would take it for a flag
            words.append(f"{flag(field.name)}={value}")
        else:
            words += [flag(field.name), str(value)]
    return words
