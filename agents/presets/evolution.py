"""The presets of EGGROLL and OpenES, which share them except for the rank."""

from dataclasses import replace

from agents.presets import evolution_control, evolution_games, evolution_locomotion
from agents.presets.preset import Preset, PresetTable

_PRESETS = PresetTable(
    evolution_control.PRESETS | evolution_games.PRESETS | evolution_locomotion.PRESETS
)


def eggroll_preset(env_id: str) -> Preset:
    """The preset of EGGROLL on an environment, or the agent's defaults if there is none."""
    return _PRESETS.preset(env_id)


def open_es_preset(env_id: str) -> Preset:
    """The preset of OpenES on an environment: that of EGGROLL without its rank."""
    found = eggroll_preset(env_id)
    return replace(found, settings={k: v for k, v in found.settings.items() if k != "rank"})


def tuned_ids() -> frozenset[str]:
    """The environments that have a preset."""
    return frozenset(_PRESETS)
