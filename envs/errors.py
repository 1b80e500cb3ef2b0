"""The one kind of error that the person who runs a program can mend."""


class UserError(ValueError):
    """A wrong input, a missing package, a folder that cannot be written and the like.

    The message says what is wrong and what would be accepted. The `es-rl` command prints it without
    a traceback. Every other exception is a fault in this project or in a user's code, and is
    shown with its traceback.
    """


class NoPicture(UserError):
    """An environment cannot be drawn; the message says why."""
