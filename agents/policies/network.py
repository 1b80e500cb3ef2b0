"""Policy networks: from an observation to an action, as pure functions of their parameters."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from gymnasium import spaces

from agents import settings
from agents.policies import spaces as _spaces
from agents.policies.policy_files import MAX_WEIGHT_BYTES
from envs.errors import UserError
from es_rl.play import observations
from es_rl.play.jobs import Array

Activation: TypeAlias = Literal["tanh", "relu", "swish", "layer_norm_relu"]
Squash: TypeAlias = Literal["tanh", "clip"]
MatmulPrecision: TypeAlias = Literal["float32", "tensorfloat32", "bfloat16"]
Forward: TypeAlias = Callable[[Any, jax.Array], tuple[Any, Any]]
"""(memory, vector) -> (memory, output of the head)."""
MAX_LAYERS = 64
MAX_WIDTH = 1 << 20
"""Sizes beyond which a saved network is not even looked at: nobody's is, and numbers of weights
would no longer fit into 64 bits."""


def _layer_norm_relu(x: jax.Array) -> jax.Array:
    """relu(layer_norm(x)) without affine parameters: the EGGROLL paper's choice."""
    return nn.relu(nn.LayerNorm(use_bias=False, use_scale=False)(x))


_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "swish": nn.swish,
    "layer_norm_relu": _layer_norm_relu,
}


class PolicyModule(nn.Module):
    """Dense layers with an activation between them, then a GRU cell if there is to be memory.

    (memory (..., units) or (), x (..., in)) -> (memory, (..., outputs)).
    """

    hidden: tuple[int, ...]
    memory: int
    outputs: int
    activation: Activation

    @nn.compact
    def __call__(self, memory: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        for width in self.hidden:
            x = _ACTIVATIONS[self.activation](nn.Dense(width)(x))
        if self.memory:
            memory, x = nn.GRUCell(self.memory, name="memory")(memory, x)
        # From zero, as ARS (Mania et al. 2018): a random head saturates its actions from the start,
        # which holds Swimmer at 30 where it otherwise reaches 300, and slows HalfCheetah down.
        zeros = nn.initializers.zeros
        return memory, nn.Dense(self.outputs, kernel_init=zeros, name="head")(x)


@dataclass(frozen=True)
class NetworkConfig:
    """What a policy is made of, apart from the spaces."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    memory: int = 0
    """Units of a GRU cell after them, whose state lasts for the episode; 0 for none."""
    activation: Activation = "tanh"
    """Between the layers; layer_norm_relu is relu(layer_norm(x)) without affine parameters."""
    squash: Squash = "tanh"
    """How a Box action is kept within its bounds: tanh scales smoothly, clip cuts."""
    normalize_observations: bool = True
    """Whether Box observations are standardised by their running mean and std."""
    matmul_precision: MatmulPrecision = "float32"
    """Of matrix products in forward and update, where the device is faster with less; a CPU is
    not, and computes float32 whatever is chosen."""

    def __post_init__(self) -> None:
        settings.check(self)
        if len(self.hidden) > MAX_LAYERS:
            raise UserError(f"hidden has {len(self.hidden)} layers: must be at most {MAX_LAYERS}")
        if any(not 1 <= n <= MAX_WIDTH for n in self.hidden):
            raise UserError(
                f"hidden={self.hidden}: must be widths of at least 1, at most {MAX_WIDTH}"
            )
        if not 0 <= self.memory <= MAX_WIDTH:
            raise UserError(f"memory={self.memory}: must be at least 0, at most {MAX_WIDTH}")


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
      UserError: a space that is not Box, Discrete or MultiDiscrete.
    """

    observation_space: spaces.Space
    action_space: spaces.Space
    config: NetworkConfig

    def __post_init__(self) -> None:
        _spaces.check_observation_space(self.observation_space)
        _spaces.check_action_space(self.action_space)
        widths = [self.observation_size, *self.config.hidden]
        count = sum(inputs * outputs for inputs, outputs in pairwise(widths))
        memory = self.config.memory
        count += 3 * memory * (widths[-1] + memory)
        count += (memory or widths[-1]) * _spaces.encoded_size(self.action_space)
        if 4 * count > MAX_WEIGHT_BYTES:
            raise UserError(
                f"hidden={list(self.config.hidden)}: makes a network of {count / 2**28:.1f} GiB of "
                f"weights: must be at most {MAX_WEIGHT_BYTES >> 30} GiB"
            )

    @property
    def module(self) -> PolicyModule:
        config = self.config
        outputs = _spaces.encoded_size(self.action_space)
        return PolicyModule(config.hidden, config.memory, outputs, config.activation)

    @property
    def memory(self) -> Any:
        """What it remembers when an episode starts: zeros (units,), or ()."""
        return jnp.zeros(self.config.memory) if self.config.memory else ()

    def precision(self) -> AbstractContextManager[None]:
        """Trace within this for matrix products in the configured precision."""
        name: str = self.config.matmul_precision
        if jax.default_backend() == "cpu":  # not all of its matrix products know another one
            name = "float32"
        # JAX takes its own "bfloat16" for "the fastest", which is TF32 on a GPU.
        return jax.default_matmul_precision("BF16_BF16_F32" if name == "bfloat16" else name)

    @property
    def observation_size(self) -> int:
        """d, the length of the vector that the module reads."""
        return _spaces.encoded_size(self.observation_space)

    @property
    def normalizes(self) -> bool:
        """Whether observations are standardised: categories never are."""
        return self.config.normalize_observations and isinstance(self.observation_space, spaces.Box)

    def init(self, key: jax.Array) -> Any:
        """Parameters, with Flax's initialisers but for the head, which is zero."""
        return self.module.init(key, self.memory, jnp.zeros(self.observation_size))

    @property
    def statistics_size(self) -> int:
        """How many numbers `statistics` returns, and of how many there are mean and std."""
        return self.observation_size if self.normalizes else 0

    def observe(self, obs: jax.Array, mean: Array, std: Array) -> jax.Array:
        """One observation as a vector (d,), standardised where the network normalises."""
        x = _spaces.encode(self.observation_space, obs)
        return observations.standardize(x, mean, std) if self.normalizes else x

    def statistics(self, x: jax.Array) -> jax.Array:
        """What to take statistics of in what `observe` returned: nothing where it is not scaled."""
        return x if self.normalizes else jnp.zeros(0)

    def apply(self, params: Any, memory: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        """(new memory, outputs of the head) for what `observe` returned."""
        module: Any = self.module
        return module.apply(params, memory, x)

    def action(
        self,
        forward: Forward,
        memory: Any,
        x: jax.Array,
        key: jax.Array,
        *,
        sample: bool = False,
    ) -> tuple[jax.Array, Any]:
        """(one action, new memory) for what `observe` returned; `forward` runs the module."""
        with self.precision():
            x = observations.clip(x) if self.normalizes else x
            memory, head = forward(memory, x)
        squash = self.config.squash
        action = _spaces.decode(self.action_space, head, squash=squash, sample=sample, key=key)
        return action, memory

    def act(
        self, weights: Weights, memory: Any, obs: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        """(the deterministic action for one observation, new memory): for evaluation, replay."""

        def forward(memory: Any, x: jax.Array) -> Any:
            return self.apply(weights.params, memory, x)

        return self.action(forward, memory, self.observe(obs, weights.mean, weights.std), key)
