"""The presets of `ppo`; `sbx_ppo` has those of Gymnasium's environments, the only ones it plays."""

from agents.presets import ppo_accelerator, ppo_gymnasium
from agents.presets.preset import PresetTable

PRESETS = PresetTable(ppo_gymnasium.PRESETS | ppo_accelerator.PRESETS)
