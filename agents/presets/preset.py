"""What a preset is: how to train an agent on one environment, unless told otherwise."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Options of a run, and settings of an agent, that were tuned for one environment."""

    run: dict[str, Any] = field(default_factory=dict)
    """Fields of `RunConfig`; the others have their defaults."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of the agent's configuration; the others have their defaults."""
    source: str = "the agent's defaults, not tuned for this task"
    """Where the settings come from."""
