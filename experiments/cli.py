"""The `es-rl` command: selects the subcommand, and reports invalid input.

JAX is not imported here: that takes a second, and `es-rl --help` does not need it.
"""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import make_dataclass
from typing import Annotated, Any, Union

COMMANDS = {
    "train": "train a policy: es-rl train brax/inverted_pendulum",
    "launch": "train in several processes: es-rl launch -n 4 -- train brax/ant",
    "replay": "play a saved policy again: es-rl replay RUN --video replay.gif",
    "report": "make a page of a run: curves, films, settings: es-rl report RUN",
    "compare": "train several agents on a suite of tasks: es-rl compare classic",
    "tune": "search for settings of an agent: es-rl tune brax/hopper --trials 40",
    "export": "write a saved policy as an ONNX model: es-rl export RUN policy.onnx",
    "benchmark": "measure the engine beside its alternatives",
    "envs": "list the environments",
    "doctor": "show versions and devices, and check that everything works",
}
"""The help of each subcommand; `module_of` gives its module."""
_POSITIONAL = (("compare", "suite"), ("export", "file"), ("launch", "command"), ("report", "run"))
"""Arguments by subcommand that have no flag, besides ENV."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command, and exit with its code.

    The code is 2 for invalid input, with tyro's message or that of a `UserError`; 130 after Ctrl-C;
    and 1 with a traceback for any other exception.
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
    """Import and run a subcommand, and return its exit code."""
    import experiments.commands  # noqa: F401 - first, as it checks that `envs` is ours
    from envs.errors import UserError

    try:
        return importlib.import_module(module_of(name)).main(arguments)
    except UserError as error:
        # The message may quote an untrusted file.
        shown = "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))
        command = " ".join(name.split())
        print(f"es-rl {command}: error: {_with_flag(command, shown)}", file=sys.stderr)
        return 2


def _with_flag(command: str, message: str) -> str:
    """Replace the setting in a message "some_name=value: ..." by the flag that sets it."""
    name, equals, rest = message.partition("=")
    given, colon, says = rest.partition(": ")
    if not (equals and colon and name.isidentifier()):
        return message
    positional = name == "env" or (command, name) in _POSITIONAL
    flag = name.upper() if positional else f"--{name.replace('_', '-')}"
    if given[:1] == given[-1:] == "'":
        given = given[1:-1]
    shown = given or "''"
    return f"{flag} {shown}: {says}"


def module_of(command: str) -> str:
    """The module whose `main` function is the command.

    Raises:
      UserError: the command is unknown.
    """
    from envs.errors import UserError, did_you_mean

    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS) or f": must be one of {', '.join(COMMANDS)}"
        raise UserError(f"no command {command!r}{hint}")
    return f"experiments.commands.{'list_envs' if command == 'envs' else command}"


def _show_help() -> None:
    """Print the subcommands as tyro does, and exit."""
    import tyro

    commands = [
        Annotated[make_dataclass(name, []), tyro.conf.subcommand(name, description=does)]
        for name, does in COMMANDS.items()
    ]
    description = "es-rl COMMAND --help shows the flags of a command."
    shown: Any = Union[tuple(commands)]  # noqa: UP007 - its members are known only at run time
    tyro.cli(shown, args=["--help"], prog="es-rl", description=description)


if __name__ == "__main__":
    main()
