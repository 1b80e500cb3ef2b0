"""Errors: those that the person who runs a program can mend, and those of a user's environment."""

from envs.host.worker import Fault


class UserError(ValueError):
    """A wrong input, a missing package, a folder that cannot be written and the like.

    The message says what is wrong and what would be accepted. The `es-rl` command prints it without
    a traceback. Every other exception is a fault in this project or in a user's code, and is
    shown with its traceback.
    """


class RemoteTraceback(Exception):
    """The traceback of an exception in a worker, as the cause of the one that tells of it."""

    def __init__(self, shown: str):
        super().__init__(shown)
        self.shown = shown

    def __str__(self) -> str:
        return f'\n"""\n{self.shown}"""'


def environment_error(message: str, fault: Fault) -> RuntimeError:
    """An error that ends a run because of an environment, with the traceback of its own."""
    error = RuntimeError(f"{message}: {fault}")
    if fault.traceback:
        error.__cause__ = RemoteTraceback(fault.traceback)
    return error


class NoPicture(UserError):
    """An environment cannot be drawn; the message says why."""


def one_line(text: object) -> str:
    """Text that may quote a stranger, as a line that does nothing to a terminal."""
    line = " ".join(str(text).split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    # What must be stands at the end.
    return line if len(line) <= 400 else f"{line[:250]} ... {line[-140:]}"
