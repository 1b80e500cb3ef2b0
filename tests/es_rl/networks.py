"""Networks whose matrices are no leaves of two axes: attention, and layers that a scan stacks."""

import jax.numpy as jnp
from flax import linen as nn


class Layer(nn.Module):
    """A residual layer of two-axis kernels, to be stacked by a scan."""

    @nn.compact
    def __call__(self, x, _=None):
        return x + nn.Dense(x.shape[-1])(nn.tanh(nn.LayerNorm()(x))), None


class Heads(nn.Module):
    """Attention with two heads, to be stacked by a scan."""

    @nn.compact
    def __call__(self, x, _=None):
        return nn.MultiHeadDotProductAttention(2)(x), None


class Block(nn.Module):
    """A layer of a transformer, to be stacked by a scan or called in a loop."""

    heads: int = 4

    @nn.compact
    def __call__(self, x, _=None):
        x = x + nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x))
        hidden = nn.gelu(nn.Dense(4 * x.shape[-1])(nn.LayerNorm()(x)))
        return x + nn.Dense(x.shape[-1])(hidden), None


class Transformer(nn.Module):
    """Layers with kernels of their own, called one after the other."""

    layers: int

    @nn.compact
    def __call__(self, x, _=None):
        for _ in range(self.layers):
            x, _ = Block()(x)
        return x, None


def scanned(layer, length=3):
    """A module of `length` such layers, whose kernels are stacked along their first axis."""
    return nn.scan(
        nn.remat(layer), variable_axes={"params": 0}, split_rngs={"params": True}, length=length
    )()


def first_output(outputs):
    """The output of a network, without what a scan returns beside its carry."""
    return outputs[0] if isinstance(outputs, tuple) else jnp.asarray(outputs)
