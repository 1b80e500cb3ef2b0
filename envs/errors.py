"""Errors that the person who runs a program can fix, and errors of a user's environment."""

import difflib
from collections.abc import Iterable

from envs.host.worker import Fault


class UserError(ValueError):
    """An error that the user can fix, such as a wrong input or a missing package.

    The message says what is wrong and what would be accepted. The `es-rl` command prints it without
    a traceback. Every other exception is a fault in this project or in the user's code, and is
    shown with its traceback.
    """


class RemoteTraceback(Exception):
    """The traceback of an exception in a worker process.

    It is set as the `__cause__` of the exception that reports the failure in the main process.
    """

    def __init__(self, shown: str):
        super().__init__(shown)
        self.shown = shown

    def __str__(self) -> str:
        return f'\n"""\n{self.shown}"""'


def environment_error(message: str, fault: Fault) -> RuntimeError:
    """Make the error that ends a run because of an environment.

    The environment's own traceback, if there is one, is attached as the cause.
    """
    error = RuntimeError(f"{message}: {fault}")
    if fault.traceback:
        error.__cause__ = RemoteTraceback(fault.traceback)
    return error


class NoPicture(UserError):
    """An environment cannot be drawn; the message says why."""


def one_line(text: object) -> str:
    """Return untrusted text as one printable line without terminal control characters.

    Long text is shortened in the middle, to about 400 characters.
    """
    line = " ".join(str(text).split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    # The end is kept because error messages state there what would be accepted.
    return line if len(line) <= 400 else f"{line[:250]} ... {line[-140:]}"


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """The end of a message about an unknown name: "; did you mean sigma?", of up to `most` known
    names that are similar; "" if none is."""
    close = difflib.get_close_matches(name, list(known), n=most)
    return f"; did you mean {', '.join(close)}?" if close else ""
