"""The default settings for training an agent on one environment, and tables of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Preset:
    """Options of a run and settings of an agent that suit one environment."""

    run: dict[str, Any] = field(default_factory=dict)
    """Values for fields of `RunConfig`; the other fields have their defaults."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Values for fields of the agent's configuration; the other fields have their defaults."""
    source: str = "the agent's defaults, not tuned for this task"
    """Where the settings come from."""


Maker: TypeAlias = Callable[[], Preset]


class PresetTable(dict[str, Maker]):
    """Functions that make presets, by the id of the environment."""

    def on(self, *env_ids: str) -> Callable[[Maker], Maker]:
        """Decorate a function that makes the preset of these environments."""

        def register(maker: Maker) -> Maker:
            self.update(dict.fromkeys(env_ids, maker))
            return maker

        return register

    def preset(self, env_id: str) -> Preset:
        """Make the preset of an environment; one without settings if there is none."""
        return self[env_id]() if env_id in self else Preset()
