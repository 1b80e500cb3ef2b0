"""The `es-rl` command: picks the subcommand, and turns bad input into one line and exit code 2."""

import contextlib
import difflib
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from envs.errors import UserError

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
"""What each of them does. They live in the modules of `module_of`."""
_KINDS = {"INT": "a whole number", "FLOAT": "a number", "[INT [INT ...]]": "whole numbers"}
"""What tyro calls a flag's values, and what we do."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; exits with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help"):
        print(_usage())
        return
    try:
        # Imported when chosen: JAX alone takes a second.
        sys.exit(importlib.import_module(module_of(name)).main(rest))
    except BrokenPipeError:
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"es-rl {name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        sys.exit(_fail(name, str(error), rest))


def module_of(command: str) -> str:
    """The module whose `main` is the command.

    Raises:
      UserError: there is no such command.
    """
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"must be one of {', '.join(COMMANDS)}"
        raise UserError(f"no command {command!r}: {hint}")
    return f"experiments.commands.{'list_envs' if command == 'envs' else command}"


def _usage() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = "\n".join(f"  {name:{width}}{does}" for name, does in COMMANDS.items())
    return (
        f"usage: es-rl COMMAND ...\n\n{lines}\n\nes-rl COMMAND --help shows the flags of a command."
    )


def _fail(command: str, message: str, arguments: list[str]) -> int:
    """Print one line; a message "some_name=value: ..." names a flag, and is shown as one."""
    # It may quote a stranger's file.
    message = "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))
    match = re.match(r"(\w+)=(.*?): ", message)
    if match:
        name, given = match[1], match[2].strip("'") or "''"
        if any(argument.startswith(f"{name}=") for argument in arguments):
            shown = f"--env-kwargs {name}={given}"
        elif name == "env" or (command, name) == ("compare", "suite"):
            shown = f"{name.upper()} {given}"
        else:
            shown = f"--{name.replace('_', '-')} {given}"
        message = f"{shown}: {message[match.end() :]}"
    print(f"es-rl {' '.join(command.split())}: error: {message}", file=sys.stderr)
    return 2


def parse(command: str, flags: Any, arguments: list[str], default: T | None = None) -> T:
    """Parse flags with tyro; its errors become a UserError of one line.

    Args:
      command: for the usage line.
      flags: the dataclass of the flags.
      arguments: what came after the command's name.
      default: an instance with the defaults.
    """
    import tyro

    from agents import settings

    if any(a in ("-h", "--help") for a in arguments):
        tyro.cli(flags, args=arguments, prog=f"es-rl {command}", default=default)
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(shown):
            parsed: T = tyro.cli(flags, args=arguments, prog=f"es-rl {command}", default=default)
    except SystemExit:
        raise UserError(_in_our_words(command, _unboxed(shown.getvalue()), arguments)) from None
    settings.check(parsed)
    return parsed


def check_output(name: str, path: Path) -> None:
    """Refuse a file that could not be written in the end.

    Raises:
      UserError: it is a folder, or lies where no folder can be made.
    """
    if os.path.isdir(path) or not can_be_made(path.parent):
        raise UserError(f"{name}={path}: must be a file, in a folder that can be written")


def can_be_made(folder: Path) -> bool:
    """Whether a folder is there, or could be, and files could be written into it."""
    there = next((p for p in (folder, *folder.absolute().parents) if os.path.lexists(p)), folder)
    return os.path.isdir(there) and os.access(there, os.W_OK)


def _unboxed(text: str) -> str:
    """What a panel of tyro's says, without its frame, its title and its pointer to --help."""
    text = re.sub(r"\x1b\[[0-9;]*m|[─━╭╮╰╯│┃]+|-{4,}", " ", text)
    text = re.sub(r"For full helptext, .*", "", " ".join(text.split()))
    titles = r"\w+ error|Unrecognized options(?! ?:)|Invalid choice|Missing argument"
    titles += r"|Required options|Error parsing settings:"
    return re.sub(rf"^(({titles}) ?)+", "", text).strip()


def _in_our_words(command: str, text: str, arguments: list[str]) -> str:
    """A message of tyro's without help texts, that names the flag and says what is accepted."""
    flags = f"`es-rl {command} --help` shows the flags"
    if match := re.match(
        r"Error parsing (-\w/)?--([\w-]+): (.*?)(?: Argument helptext: (.*)|$)", text
    ):
        short, name, reason, helptext = match.groups(default="")
        arguments = [f"--{name}" if short == f"{argument}/" else argument for argument in arguments]
        kind = re.search(r" (?:\{None\}\|)?(INT|FLOAT|\[INT \[INT \.\.\.\]\]) ", helptext)
        if kind is None:
            return f"--{name}: {reason}; {flags}"
        given = " ".join(_values_of(name, arguments))
        return f"{name.replace('-', '_')}={given}: must be {_KINDS[kind[1]]}"
    if match := re.match(r"Unrecognized options: (.*?)(?: Perhaps you meant: (.*)|$)", text):
        unknown, options = match.groups(default="")
        close = difflib.get_close_matches(
            unknown.split(",")[0], re.findall(r"--[a-z][\w-]*", options), n=2
        )
        after = _flag_before(unknown, arguments)
        hint = f"did you mean {' or '.join(dict.fromkeys(close))}?" if close else flags
        return f"Unrecognized options: {unknown}{f', after {after}' if after else ''}; {hint}"
    if match := re.match(r"Missing from es-rl [\w-]+: (\S+) (.*?)(?: \(required\))?$", text):
        return f"{match[1]}: must be given: {match[2]}"
    return text


def _values_of(flag: str, arguments: list[str]) -> list[str]:
    """What was given for a flag, where it stands last."""
    values: list[str] = []
    taken = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            taken = name.removeprefix("--").replace("_", "-") == flag
            values = ([value] if equals else []) if taken else values
        elif taken:
            values.append(argument)
    return values


def _flag_before(unknown: str, arguments: list[str]) -> str | None:
    """The flag that a value was given for which it does not take."""
    given = [" ".join(argument.split()) for argument in arguments]  # as tyro shows them
    for before, argument in zip(["", *given], given, strict=False):
        name, _, value = argument.partition("=")
        if name.startswith("--") and value and value.strip() == unknown:
            return name
        if argument == unknown and before.startswith("--") and not argument.startswith("-"):
            return before
    return None


if __name__ == "__main__":
    main()
