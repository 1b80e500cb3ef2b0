"""How es-rl's extras are installed, for messages about packages that are missing."""

from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def pip_install(extra: str) -> str:
    """The command that installs an extra of es-rl, from where es-rl itself is.

    In a source checkout that is the checkout, as a path that fits the working directory.
    """
    if not (_ROOT / "pyproject.toml").is_file():
        return f'pip install "es-rl[{extra}]"'
    here = "." if Path.cwd() == _ROOT else _ROOT
    return f'pip install -e "{here}[{extra}]"'


OWN_NAME = "--import MODULE brings in your own if it registers it (in Python: import it first)"
"""What a message about an unknown environment or agent says at its end."""
