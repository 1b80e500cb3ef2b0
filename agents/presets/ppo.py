"""The presets of `ppo` and `sbx_ppo`, which share them."""

from agents.presets import ppo_brax, ppo_gymnasium, ppo_jax
from agents.presets.preset import Preset, PresetTable

_PRESETS = PresetTable(ppo_gymnasium.PRESETS | ppo_brax.PRESETS | ppo_jax.PRESETS)


def ppo_preset(env_id: str) -> Preset:
    """The preset of PPO on an environment, or the agent's defaults if there is none."""
    return _PRESETS.preset(env_id)


def ppo_tuned_ids() -> frozenset[str]:
    """The environments that have a preset."""
    return frozenset(_PRESETS)
