"""The `es-rl` command: picks the subcommand, and turns bad input into one line and exit code 2."""

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_USAGE = """usage: es-rl COMMAND ...

  train      train a policy: es-rl train brax/inverted_pendulum
  replay     play a saved policy again: es-rl replay RUN --video replay.gif
  compare    train several agents on a suite of tasks: es-rl compare classic
  benchmark  measure the engine beside its alternatives
  envs       list the environments

es-rl COMMAND --help shows the flags of a command."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; exits with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name in ("-h", "--help"):
        print(_USAGE)
        return
    try:
        sys.exit(_command(name)(rest))
    except (ValueError, RuntimeError) as error:
        sys.exit(_fail(name, str(error)))
    except BrokenPipeError:
        sys.exit(1)


def _command(name: str) -> Callable[[list[str]], int]:
    # Imported when chosen: JAX alone takes a second.
    match name:
        case "train":
            from experiments import train

            return train.main
        case "replay":
            from experiments import replay

            return replay.main
        case "compare":
            from experiments import compare

            return compare.main
        case "benchmark":
            from experiments import benchmark

            return benchmark.main
        case "envs":
            from experiments import list_envs

            return list_envs.main
    commands = ("train", "replay", "compare", "benchmark", "envs")
    close = difflib.get_close_matches(name, commands, n=1)
    hint = f"did you mean {close[0]}?" if close else f"must be one of {', '.join(commands)}"
    raise ValueError(f"no command {name!r}: {hint}")


def _fail(command: str, message: str) -> int:
    """Print one line; a message "some_name=value: ..." names a flag, and is shown as one."""
    message = " ".join(message.split())
    match = re.match(r"(\w+)=(\S+): ", message)
    if match:
        flag = match[1].replace("_", "-")
        label = "ENV" if flag == "env" else f"--{flag}"
        message = f"{label} {match[2].strip(chr(39))}: {message[match.end() :]}"
    print(f"es-rl {command}: error: {message}", file=sys.stderr)
    return 2


def parse(command: str, flags: Any, arguments: list[str], default: T | None = None) -> T:
    """Parse flags with tyro; its errors become a ValueError of one line.

    Args:
      command: for the usage line.
      flags: the dataclass of the flags.
      arguments: what came after the command's name.
      default: an instance with the defaults.
    """
    import tyro

    if any(a in ("-h", "--help") for a in arguments):
        tyro.cli(flags, args=arguments, prog=f"es-rl {command}", default=default)
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(shown):
            parsed: T = tyro.cli(flags, args=arguments, prog=f"es-rl {command}", default=default)
    except SystemExit:
        raise ValueError(_unboxed(shown.getvalue())) from None
    return parsed


def _unboxed(text: str) -> str:
    """What a panel of tyro's says, without its frame, its title and its pointer to --help."""
    text = re.sub(r"\x1b\[[0-9;]*m|[─━╭╮╰╯│┃]+|-{4,}", " ", text)
    text = re.sub(r"For full helptext, .*", "", " ".join(text.split()))
    titles = r"\w+ error|Unrecognized options(?! ?:)|Invalid choice|Missing argument"
    titles += r"|Required options|Error parsing \S+:"
    return re.sub(rf"^(({titles}) ?)+", "", text).strip()


if __name__ == "__main__":
    main()
