"""The presets of `ppo`; `sbx_ppo` has those of Gymnasium's environments, the only ones it plays."""

from agents.presets import ppo_brax, ppo_gymnasium, ppo_jax
from agents.presets.preset import PresetTable

PRESETS = PresetTable(ppo_gymnasium.PRESETS | ppo_brax.PRESETS | ppo_jax.PRESETS)
