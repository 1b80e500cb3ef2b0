"""The `Actor` protocol, and the two actors that learn nothing: random and zero."""

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.policies import masks
from agents.policies import spaces as _spaces
from agents.policies.network import Weights


class Actor(Protocol):
    """A rule for actions, as a pure function."""

    @property
    def memory(self) -> Any:
        """The actor's memory at the start of an episode, a pytree of arrays; () if it has none."""
        ...

    def act(
        self, weights: Weights, memory: Any, obs: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        """One action for one observation, and the memory for the next one."""
        ...


@dataclass(frozen=True, eq=False)
class RandomActor:
    """Draws uniform actions; standard normal ones in the unbounded dimensions of a Box."""

    action_space: spaces.Space
    mask: slice | None = None
    """Where the mask of legal actions is in a flat observation; None if all actions are legal."""
    memory = ()

    def __post_init__(self) -> None:
        _spaces.check_action_space(self.action_space)

    def act(
        self, weights: Any, memory: Any, obs: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        del weights
        space = self.action_space
        if isinstance(space, spaces.Box):
            bounded = _spaces.bounded(space)
            low, high = (np.where(bounded, edge, 0.0) for edge in (space.low, space.high))
            uniform = low + jax.random.uniform(key, space.shape) * (high - low)
            normal = jnp.clip(jax.random.normal(key, space.shape), space.low, space.high)
            return jnp.where(bounded, uniform, normal).astype(jnp.float32), memory
        # Sampling from equal logits is uniform.
        logits = masks.legal(jnp.zeros(_spaces.num_outputs(space)), obs, self.mask)
        return _spaces.decode(space, logits, squash="clip", sample=True, key=key), memory


@dataclass(frozen=True, eq=False)
class ZeroActor:
    """Always plays zero, or the value of the Box nearest to it; the first (legal) category of
    discrete spaces."""

    action_space: spaces.Space
    mask: slice | None = None
    """Where the mask of legal actions is in a flat observation; None if all actions are legal."""
    memory = ()

    def __post_init__(self) -> None:
        _spaces.check_action_space(self.action_space)

    def act(
        self, weights: Any, memory: Any, obs: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        del weights
        head = masks.legal(jnp.zeros(_spaces.num_outputs(self.action_space)), obs, self.mask)
        action = _spaces.decode(self.action_space, head, squash="clip", sample=False, key=key)
        return action, memory
