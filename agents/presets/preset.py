"""The `Preset` class: the default settings for training an agent on one environment."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Options of a run and settings of an agent that suit one environment."""

    run: dict[str, Any] = field(default_factory=dict)
    """Values for fields of `RunConfig`; the other fields have their defaults."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Values for fields of the agent's configuration; the other fields have their defaults."""
    source: str = "the agent's defaults, not tuned for this task"
    """Where the settings come from."""
