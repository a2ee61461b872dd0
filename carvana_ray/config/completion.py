"""Shell completion: scripts for bash, zsh and fish, made from the flags. Standard library alone.

A script is static text: pressing Tab starts no Python.
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from carvana_ray.config.cli import names_of
from carvana_ray.config.commands import Command

PROGRAM = "carvana-ray"


def script(shell: str, commands: Mapping[str, Command]) -> str:
    """Return the completion script of ``bash``, ``zsh`` or ``fish``.

    Args:
        shell: the shell.
        commands: the commands by name.
    """
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands)


@dataclasses.dataclass(frozen=True)
class _Flag:
    """A flag as a shell completes it. `values` is what follows: words, or "file", "folder", ""."""

    name: str
    text: str
    takes_value: bool
    values: tuple[str, ...] | str


def _flags(config: type[Any]) -> Iterator[_Flag]:
    kinds = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        kind, name = kinds[field.name], field.metadata["metavar"]
        values: tuple[str, ...] | str = ""
        if typing.get_origin(kind) is Literal:
            values = typing.get_args(kind)
        elif name.startswith("{"):
            values = tuple(name[1:-1].split(","))
        elif "FILE" in name or "IMAGE" in name:
            values = "file"
        elif "FOLDER" in name:
            values = "folder"
        for one in names_of(field):
            yield _Flag(one, field.metadata["help"], kind is not bool, values)
    yield _Flag("--help", "print the help", False, "")


def _bash(commands: Mapping[str, Command]) -> str:
    values, flags = [], []
    for name, command in commands.items():
        own = list(_flags(command.flags))
        positional = any(f.metadata["positional"] for f in dataclasses.fields(command.flags))
        unless = "[[ $current != -* ]] || " * positional  # then the names of files
        flags.append(f"        {name}) {unless}words='{' '.join(one.name for one in own)}' ;;")
        for one in own:
            if isinstance(one.values, tuple):
                values.append(f"        '{name} {one.name}') words='{' '.join(one.values)}' ;;")
            elif one.takes_value:
                kind = {"file": "_files", "folder": "_folders", "": "_nothing"}[one.values]
                values.append(f"        '{name} {one.name}') words={kind} ;;")
    return _BASH.format(
        commands=" ".join(commands), values="\n".join(values), flags="\n".join(flags)
    )


_BASH = """\
# bash completion of carvana-ray: eval "$(carvana-ray completion bash)"
_carvana_ray() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} words=
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W '{commands} help completion --help --version' -- "$current"))
        return
    fi
    if [[ $current == = ]]; then # of --flag=value, which bash splits in three words
        current=
    elif [[ $before == = ]]; then
        before=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    case "${{COMP_WORDS[1]}} $before" in
{values}
        'help help') words='{commands}' ;;
        'completion completion') words='bash zsh fish' ;;
    esac
    if [[ -z $words ]]; then
        case "${{COMP_WORDS[1]}}" in
{flags}
        esac
    fi
    case "$words" in
        '' | _files) ;; # no reply: bash completes names of files
        _folders) compopt -o plusdirs +o default ;;
        _nothing) compopt +o default ;;
        *) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
    esac
}}
complete -o default -F _carvana_ray carvana-ray
"""


def _zsh(commands: Mapping[str, Command]) -> str:
    listed = " ".join(_quote(f"{name}:{one.summary}") for name, one in commands.items())
    cases = []
    for name, command in commands.items():
        specs = " ".join(_quote(_zsh_flag(one)) for one in _flags(command.flags))
        cases.append(f"        {name}) _arguments {specs} '*:file:_files' ;;")
    return _ZSH.format(commands=listed, cases="\n".join(cases))


def _zsh_flag(one: _Flag) -> str:
    text = "".join("\\" + char if char in "[]:\\" else char for char in one.text)
    if not one.takes_value:
        return f"{one.name}[{text}]"
    if isinstance(one.values, tuple):
        values = f"({' '.join(one.values)})"
    else:
        values = {"file": "_files", "folder": "_files -/", "": " "}[one.values]
    return f"{one.name}=[{text}]:value:{values}"


_ZSH = """\
#compdef carvana-ray
# zsh completion of carvana-ray: source <(carvana-ray completion zsh), after compinit
_carvana-ray() {{
    local -a commands=({commands})
    commands+=(help:'Print the flags of a command.' completion:'Print this script.')
    if ((CURRENT == 2)); then
        _describe command commands
        return
    fi
    local command=$words[2]
    shift words
    ((CURRENT--))
    case $command in
{cases}
        help) _describe command commands ;;
        completion) _values shell bash zsh fish ;;
    esac
}}
if [[ $funcstack[1] == _carvana-ray ]]; then # loaded by compinit from a file of $fpath
    _carvana-ray "$@"
else
    compdef _carvana-ray carvana-ray
fi
"""


def _fish(commands: Mapping[str, Command]) -> str:
    lines = ["# fish completion of carvana-ray: carvana-ray completion fish | source"]
    for name, command in commands.items():
        start = f"complete -c {PROGRAM} -n __fish_use_subcommand -f"
        lines.append(f"{start} -a {name} -d {_quote(command.summary)}")
        for one in _flags(command.flags):
            values = {"file": " -r -F", "folder": " -x -a '(__fish_complete_directories)'"}.get(
                one.values if isinstance(one.values, str) else "", " -x" * one.takes_value
            )
            if isinstance(one.values, tuple):
                values += f" -a {_quote(' '.join(one.values))}"
            lines.append(
                f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {name}'"
                f" -l {one.name[2:]}{values} -d {_quote(one.text)}"
            )
    seen = f"complete -c {PROGRAM} -f -n '__fish_seen_subcommand_from"
    lines += [f"{seen} help' -a {_quote(' '.join(commands))}"]
    lines += [f"{seen} completion' -a 'bash zsh fish'"]
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
