"""The command ``carvana-ray`` and its subcommands; ``jobs/*.py`` run the same.

Flags are parsed before Ray or torch is imported, so ``--help`` and usage errors come at once.
"""

import contextlib
import functools
import importlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from carvana_ray import __version__, config
from carvana_ray.config import cli, completion
from carvana_ray.config.commands import COMMANDS
from carvana_ray.errors import EXIT_FAILURE, EXIT_OK, EXIT_USAGE
from carvana_ray.runtime import signals

PROGRAM = completion.PROGRAM
HELP = """\
Cut cars out of studio photographs: a few on a laptop, or millions on a Ray cluster.

usage: {program} COMMAND [flags]

{commands}help:
  help COMMAND       Print the flags of a command; so does COMMAND --help.
  completion SHELL   Print a script that completes commands and flags: bash, zsh or fish.
  --version          Print the version.

example:
  carvana-ray cutout photos --out runs/photos   # cut the car out of each image in photos
"""
COMPLETION = """\
examples:
  eval "$(carvana-ray completion bash)"          # a line for ~/.bashrc
  source <(carvana-ray completion zsh)           # a line for ~/.zshrc, after compinit
  carvana-ray completion fish | source           # a line for ~/.config/fish/config.fish
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``carvana-ray``; return the exit code.

    Args:
        argv: the subcommand and its flags; None for those of the process.
    """
    name, *words = (sys.argv[1:] if argv is None else argv) or ["help"]
    if name == "help" and words:
        name, words = words[0], ["--help"]
    if name in COMMANDS:
        return run_command(name, words)
    with _writing_stdout():
        if name in ("help", "-h", "--help"):
            print(_help(), end="")
        elif name == "--version":
            print(f"carvana_ray {__version__}")
        elif name == "completion":
            flags = cli.parse(config.CompletionFlags, f"{PROGRAM} {name}", words, COMPLETION)
            print(completion.script(flags.shell, COMMANDS), end="")
        else:
            names = ", ".join(COMMANDS)
            near = cli.did_you_mean(name, COMMANDS)
            advice = f"{near} The commands are {names}" if near else f"; use one of {names}"
            print(f"{PROGRAM}: error: {name} is not a command{advice}", file=sys.stderr)
            return EXIT_USAGE
    return EXIT_OK


def _help() -> str:
    text = ""
    for section, commands in itertools.groupby(COMMANDS.items(), lambda item: item[1].section):
        text += f"{section}:\n"
        text += "".join(f"  {name:18} {command.summary}\n" for name, command in commands) + "\n"
    return HELP.format(program=PROGRAM, commands=text)


@contextlib.contextmanager
def _writing_stdout() -> Iterator[None]:
    """End with exit code 1 and no traceback if stdout cannot be written.

    A closed pipe, as after ``| head``, needs no word; a full disk is named.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout:  # None if the shell has closed it
                sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"{PROGRAM}: error: stdout: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        sys.exit(EXIT_FAILURE)


def run_command(name: str, argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; return the exit code.

    Args:
        name: a key of `COMMANDS`.
        argv: its flags; None for those of the process.
    """
    command = COMMANDS[name]
    epilog = f"examples:\n{command.examples}"
    with _writing_stdout():
        flags = cli.parse(command.flags, f"{PROGRAM} {name}", argv, epilog)
        load = functools.partial(importlib.import_module, f"carvana_ray.stages.{command.stage}")
        with signals.stoppable(name):  # before the imports, which take time
            from carvana_ray.stages.guard import run_guarded, run_with_closing

            work = functools.partial(_run, name, flags, load)
            return run_guarded(name, flags, functools.partial(run_with_closing, name, flags, work))


def _run(name: str, flags: config.LogFlags, load: Callable[[], Any]) -> dict[str, Any]:
    from carvana_ray.runtime.bytecode import cache_bytecode
    from carvana_ray.stages.precheck import precheck

    precheck(name, flags)
    cache_bytecode()  # before torch and Ray are imported
    # Threads of torch sleep while they wait for each other; Ray's local processes inherit it. By
    # default they spin, which takes the cores from the processes that read images.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(flags, config.RayFlags):
        from carvana_ray.stages import few_images

        if images := few_images.count_here(name, flags):
            return few_images.run_here(name, flags, load, images)
        if name == "pipeline" and (result := _run_finished(flags, load)):
            return result
        from carvana_ray.stages.runner import run_in_session

        return run_in_session(flags, load)
    return load().run(flags)


def _run_finished(flags: Any, load: Callable[[], Any]) -> dict[str, Any] | None:
    """Return the result of a pipeline that has nothing to do, without Ray; else None."""
    from carvana_ray import storage
    from carvana_ray.stages import receipts

    ray = sys.modules.get("ray")
    if os.environ.get("RAY_ADDRESS") or (ray and ray.is_initialized()):
        return None  # the cluster's resources and paths are checked in its session
    if not receipts.may_be_finished(storage.resolve(flags.out)):
        return None  # without the imports, which take seconds
    return load().run_finished(flags)
