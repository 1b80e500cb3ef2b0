"""Policy networks: from an observation to an action, as pure functions of their parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces

from agents import spaces as _spaces
from es_rl import observations
from es_rl.rollout import Array

Activation: TypeAlias = Literal["tanh", "relu", "swish", "layer_norm_relu"]
Squash: TypeAlias = Literal["tanh", "clip"]
Forward: TypeAlias = Callable[[jax.Array], Any]


def _layer_norm_relu(x: jax.Array) -> jax.Array:
    """relu(layer_norm(x)) without affine parameters: the EGGROLL paper's choice."""
    return nn.relu(nn.LayerNorm(use_bias=False, use_scale=False)(x))


_ACTIVATIONS: dict[str, Forward] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "swish": nn.swish,
    "layer_norm_relu": _layer_norm_relu,
}


class MLP(nn.Module):
    """Dense layers with an activation between them: (..., in) -> (..., outputs)."""

    hidden: tuple[int, ...]
    outputs: int
    activation: Activation

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in self.hidden:
            x = _ACTIVATIONS[self.activation](nn.Dense(width)(x))
        return nn.Dense(self.outputs, name="head")(x)


@dataclass(frozen=True)
class NetworkConfig:
    """What a policy is made of, apart from the spaces."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    activation: Activation = "tanh"
    """Between the layers; layer_norm_relu is relu(layer_norm(x)) without affine parameters."""
    squash: Squash = "tanh"
    """How a Box action is kept within its bounds: tanh scales smoothly, clip cuts."""
    sample_actions: bool = False
    """Whether training samples discrete actions; evaluation always takes the most likely."""
    normalize_observations: bool = True
    """Whether Box observations are standardised by their running mean and std."""

    def __post_init__(self) -> None:
        if any(not isinstance(n, int) or n < 1 for n in self.hidden):
            raise ValueError(f"hidden={self.hidden}: must be widths of at least 1")
        for name, choices in (("activation", Activation), ("squash", Squash)):
            if getattr(self, name) not in get_args(choices):
                accepted = ", ".join(get_args(choices))
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {accepted}")


class Weights(NamedTuple):
    """All that a trained policy consists of, besides its configuration."""

    params: Any
    mean: Array
    """(d,), of the observations seen in training."""
    std: Array
    """(d,)."""


@dataclass(frozen=True, eq=False)
class Network:
    """A policy network for a pair of spaces.

    Raises:
      ValueError: a space that is not Box, Discrete or MultiDiscrete.
    """

    observation_space: spaces.Space
    action_space: spaces.Space
    config: NetworkConfig

    def __post_init__(self) -> None:
        _spaces.check_observation_space(self.observation_space)
        _spaces.check_action_space(self.action_space)

    @property
    def module(self) -> MLP:
        outputs = _spaces.encoded_size(self.action_space)
        return MLP(self.config.hidden, outputs, self.config.activation)

    @property
    def observation_size(self) -> int:
        """d, the length of the vector that the module reads."""
        return _spaces.encoded_size(self.observation_space)

    @property
    def normalizes(self) -> bool:
        """Whether observations are standardised: categories never are."""
        return self.config.normalize_observations and isinstance(self.observation_space, spaces.Box)

    def init(self, key: jax.Array) -> Any:
        """Parameters, with Flax's initialisers."""
        return self.module.init(key, jnp.zeros(self.observation_size))

    def vector(self, obs: jax.Array, mean: Array, std: Array) -> jax.Array:
        """One observation as a vector (d,), standardised where the network normalises."""
        vector = _spaces.encode(self.observation_space, obs)
        return observations.standardize(vector, mean, std) if self.normalizes else vector

    def action(
        self, forward: Forward, vector: jax.Array, key: jax.Array, *, sample: bool = False
    ) -> jax.Array:
        """One action for a vector from `vector`; `forward` runs the module on it."""
        head = forward(observations.clip(vector) if self.normalizes else vector)
        squash = self.config.squash
        return _spaces.decode(self.action_space, head, squash=squash, sample=sample, key=key)

    def act(self, weights: Weights, obs: jax.Array, key: jax.Array) -> jax.Array:
        """The deterministic action for one observation: what evaluation and replay use."""

        def forward(x: jax.Array) -> Any:
            return self.module.apply(weights.params, x)

        return self.action(forward, self.vector(obs, weights.mean, weights.std), key)
