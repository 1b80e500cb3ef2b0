"""Whether an environment repeats itself: what replay and resume rest on."""

import numpy as np
from gymnasium import spaces

from agents.policies.spaces import bounded, categories
from es_rl.play.stage import Stage

_STEPS = 200


def check_repeats(stage: Stage, action_space: spaces.Space) -> None:
    """Warn if an environment is not the same each time, with the same random actions.

    Raises:
      UserError: what the environment returns is not what it declares.
      RuntimeError: it cannot be started.
    """
    stage.check_repeats(_random_actions(action_space))


def _random_actions(space: spaces.Space) -> np.ndarray:
    """(_STEPS, ...), always the same ones."""
    rng = np.random.default_rng(0)
    if isinstance(space, spaces.Box):
        low, high = (np.where(bounded(space), edge, 0.0) for edge in (space.low, space.high))
        normal = np.clip(rng.normal(size=(_STEPS, *space.shape)), space.low, space.high)
        uniform = rng.uniform(low, high, (_STEPS, *space.shape))
        return np.where(bounded(space), uniform, normal).astype(space.dtype)
    sizes, starts = categories(space)
    chosen = rng.integers(starts, starts + sizes, (_STEPS, len(sizes)))
    return chosen.reshape(_STEPS, *(space.shape or ())).astype(space.dtype)
