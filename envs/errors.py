"""The one kind of error that the person who runs a program can mend, and how to quote in it."""


class UserError(ValueError):
    """A wrong input, a missing package, a folder that cannot be written and the like.

    The message says what is wrong and what would be accepted. The `es-rl` command prints it without
    a traceback. Every other exception is a fault in this project or in a user's code, and is
    shown with its traceback.
    """


class NoPicture(UserError):
    """An environment cannot be drawn; the message says why."""


def one_line(text: object) -> str:
    """Text that may quote a stranger, as a line that does nothing to a terminal."""
    line = " ".join(str(text).split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    # What must be stands at the end.
    return line if len(line) <= 400 else f"{line[:250]} ... {line[-140:]}"
