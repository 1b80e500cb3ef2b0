"""A check that Python imports this project's own packages, whose names are common ones."""

from importlib.util import find_spec
from pathlib import Path


def check(package_file: str, *names: str) -> None:
    """Check that Python finds packages in the folder of this project.

    Args:
      package_file: `__file__` of the package that is about to import them.
      names: the names of the packages.

    Raises:
      ImportError: Python finds another package of that name first. The message says which, and what
        to do.
    """
    root = Path(package_file).resolve().parents[1]
    for name in names:
        found = find_spec(name)
        places = list(found.submodule_search_locations or [str(found.origin)]) if found else []
        if all(Path(place).resolve() != root / name for place in places):
            where = places[0] if places else "nothing"
            raise ImportError(
                f"es-rl needs its own package {name!r}, {root / name}, but Python finds {where} "
                f"first: rename that, or run from another folder"
            )
