"""The built-in networks, as Flax modules that are called on one observation.

They follow the same contract as a user's own network: see `agents.policies.functions`.
"""

from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn

from agents.policies import images

Activation: TypeAlias = Literal["tanh", "relu", "swish", "layer_norm_relu"]
CnnName: TypeAlias = Literal["nature", "small"]
Convolution: TypeAlias = tuple[int, int, int]
"""One layer: (filters, side of the kernel, stride)."""


def _layer_norm_relu(x: jax.Array) -> jax.Array:
    """relu(layer_norm(x)) without affine parameters: the EGGROLL paper's choice."""
    return nn.relu(nn.LayerNorm(use_bias=False, use_scale=False)(x))


_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "swish": nn.swish,
    "layer_norm_relu": _layer_norm_relu,
}
CONVOLUTIONS: dict[str, tuple[Convolution, ...]] = {
    "nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),  # Mnih et al. 2015, "Methods"
    "small": ((16, 3, 1),),  # Young & Tian 2019, arXiv 1903.03176
}
CNN_HIDDEN: dict[str, tuple[int, ...]] = {"nature": (512,), "small": (128,)}
"""Widths of the dense layers after the convolutions, from the same papers."""
LEAST_SIDE: dict[str, int] = {"nature": 36, "small": 3}
"""The smallest side of an image for which the output of the convolutions is not empty."""


def _head(outputs: int) -> nn.Dense:
    """The last layer, which is initialised with zeros.

    ARS (Mania et al. 2018) does the same. A random head saturates the actions from the start:
    Swimmer then stays at a return of 30 instead of reaching 300, and HalfCheetah learns more
    slowly.
    """
    return nn.Dense(outputs, kernel_init=nn.initializers.zeros, name="head")


def _hidden(x: jax.Array, widths: tuple[int, ...], activation: Activation) -> jax.Array:
    """Apply dense layers, each followed by the activation; call it within a compact method."""
    for width in widths:
        x = _ACTIVATIONS[activation](nn.Dense(width)(x))
    return x


class Mlp(nn.Module):
    """Dense layers: x of any shape -> (outputs,)."""

    hidden: tuple[int, ...]
    outputs: int
    activation: Activation

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _head(self.outputs)(_hidden(jnp.ravel(x), self.hidden, self.activation))


class Gru(nn.Module):
    """Dense layers, then a GRU cell: (memory (units,), x of any shape) -> (memory, (outputs,))."""

    hidden: tuple[int, ...]
    units: int
    outputs: int
    activation: Activation

    def initial_memory(self) -> jax.Array:
        """The memory at the start of an episode: zeros (units,)."""
        return jnp.zeros(self.units)

    @nn.compact
    def __call__(self, memory: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = _hidden(jnp.ravel(x), self.hidden, self.activation)
        memory, x = nn.GRUCell(self.units, name="memory")(memory, x)
        return memory, _head(self.outputs)(x)


class Cnn(nn.Module):
    """Convolutions without padding, then dense layers: an image for `images.arrange` ->
    (outputs,)."""

    convolutions: tuple[Convolution, ...]
    hidden: tuple[int, ...]
    outputs: int
    activation: Activation

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = images.arrange(x)
        for filters, side, stride in self.convolutions:
            convolution = nn.Conv(filters, (side, side), (stride, stride), padding="VALID")
            x = _ACTIVATIONS[self.activation](convolution(x))
        return _head(self.outputs)(_hidden(jnp.ravel(x), self.hidden, self.activation))
