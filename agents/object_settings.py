"""Settings that may be objects of the user's, and what these make void."""

from collections.abc import Iterable

from agents.evolution.config import STRATEGY_SETTINGS
from agents.policies.network import BUILT_IN_SETTINGS

OBJECTS = ("network", "critic", "strategy", "shaping", "fitness")
"""The settings that may be objects of the user's in place of a text."""
VOID = {"network": BUILT_IN_SETTINGS, "strategy": STRATEGY_SETTINGS}
"""The settings that have no effect where one of these is an object of the user's."""


def made_void(objects: Iterable[str]) -> set[str]:
    """The settings that have no effect where these are objects of the user's."""
    return {setting for name in objects for setting in VOID.get(name, ())}
