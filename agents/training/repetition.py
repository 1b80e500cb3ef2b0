"""A check that an environment is deterministic, which replay and resume rely on."""

import numpy as np
from gymnasium import spaces

from agents.policies.spaces import bounded, categories
from es_rl.play.stage import Stage

_STEPS = 200


def check_repeats(stage: Stage, action_space: spaces.Space) -> None:
    """Warn if an environment gives different results for the same seed and actions.

    Raises:
      UserError: the environment's values do not match its declared spaces.
      RuntimeError: the environment cannot be started.
    """
    stage.check_repeats(_random_actions(action_space))


def _random_actions(space: spaces.Space) -> np.ndarray:
    """Random actions (_STEPS, ...), the same in every call."""
    rng = np.random.default_rng(0)
    if isinstance(space, spaces.Box):
        low, high = (np.where(bounded(space), edge, 0.0) for edge in (space.low, space.high))
        normal = np.clip(rng.normal(size=(_STEPS, *space.shape)), space.low, space.high)
        uniform = rng.uniform(low, high, (_STEPS, *space.shape))
        return np.where(bounded(space), uniform, normal).astype(space.dtype)
    sizes, starts = categories(space)
    chosen = rng.integers(starts, starts + sizes, (_STEPS, len(sizes)))
    return chosen.reshape(_STEPS, *(space.shape or ())).astype(space.dtype)
