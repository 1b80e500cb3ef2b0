"""The `es-rl` command: picks the subcommand, and says what is wrong with its input.

Nothing heavy is imported here: JAX alone takes a second, which `es-rl --help` does not need.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

T = TypeVar("T")

COMMANDS = {
    "train": "train a policy: es-rl train brax/inverted_pendulum",
    "launch": "train in several processes: es-rl launch -n 4 -- train brax/ant",
    "replay": "play a saved policy again: es-rl replay RUN --video replay.gif",
    "compare": "train several agents on a suite of tasks: es-rl compare classic",
    "export": "write a saved policy as an ONNX model: es-rl export RUN policy.onnx",
    "benchmark": "measure the engine beside its alternatives",
    "envs": "list the environments",
    "doctor": "show versions and devices, and check that everything works",
}
"""What each subcommand does; `module_of` says in which module it lives."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; exits with its code.

    That is 2 where the input is wrong, with a message of tyro's, or of ours for a `UserError`; 130
    after Ctrl-C; and 1 with a traceback for any other exception.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        _show_help()
    name, rest = arguments[0], arguments[1:]
    try:
        sys.exit(_run(name, rest))
    except BrokenPipeError:
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"es-rl {name}: interrupted", file=sys.stderr)
        sys.exit(130)


def _run(name: str, arguments: list[str]) -> int:
    """The exit code of a subcommand, which is imported only now."""
    import experiments.commands  # noqa: F401 - first, as it sees that `envs` is ours
    from envs.errors import UserError

    try:
        return importlib.import_module(module_of(name)).main(arguments)
    except UserError as error:
        # The message may quote a stranger's file.
        shown = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
        command = " ".join(name.split())
        print(f"es-rl {command}: error: {_with_flag(command, shown)}", file=sys.stderr)
        return 2


def _with_flag(command: str, message: str) -> str:
    """A message "some_name=value: ..." about a setting, with the flag that sets it."""
    name, equals, rest = message.partition("=")
    given, colon, says = rest.partition(": ")
    if not (equals and colon and name.isidentifier()):
        return message
    positional = name == "env" or (command, name) == ("compare", "suite")
    flag = name.upper() if positional else f"--{name.replace('_', '-')}"
    if given[:1] == given[-1:] == "'":
        given = given[1:-1]
    shown = given or "''"
    return f"{flag} {shown}: {says}"


def module_of(command: str) -> str:
    """The module whose `main` is the command.

    Raises:
      UserError: there is no such command.
    """
    from envs.errors import UserError

    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"must be one of {', '.join(COMMANDS)}"
        raise UserError(f"no command {command!r}: {hint}")
    return f"experiments.commands.{'list_envs' if command == 'envs' else command}"


def _show_help() -> None:
    """Print the subcommands as tyro does, and exit."""
    import tyro

    commands = [
        Annotated[make_dataclass(name, []), tyro.conf.subcommand(name, description=does)]
        for name, does in COMMANDS.items()
    ]
    description = "es-rl COMMAND --help shows the flags of a command."
    shown: Any = Union[tuple(commands)]  # noqa: UP007 - of what is known at run time only
    tyro.cli(shown, args=["--help"], prog="es-rl", description=description)


def parse(command: str, flags: Any, arguments: list[str], default: T | None = None) -> T:
    """Parse flags with tyro, which exits with a message of its own where they are wrong.

    Args:
      command: for the usage line.
      flags: the dataclass of the flags.
      arguments: what came after the command's name.
      default: an instance with the defaults.

    Raises:
      UserError: a value is out of the range of its type.
    """
    import tyro

    from agents import settings

    parsed: T = tyro.cli(flags, args=arguments, prog=f"es-rl {command}", default=default)
    settings.check(parsed)
    return parsed


def check_output(name: str, path: Path) -> None:
    """Refuse a file that could not be written in the end.

    Raises:
      UserError: it is a folder, or lies where no folder can be made.
    """
    from envs.errors import UserError

    if os.path.isdir(path) or not can_be_made(path.parent):
        raise UserError(f"{name}={path}: must be a file, in a folder that can be written")


def can_be_made(folder: Path) -> bool:
    """Whether a folder is there, or could be, and files could be written into it."""
    there = next((p for p in (folder, *folder.absolute().parents) if os.path.lexists(p)), folder)
    return os.path.isdir(there) and os.access(there, os.W_OK)


if __name__ == "__main__":
    main()
