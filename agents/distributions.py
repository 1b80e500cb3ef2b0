"""A network's output as a distribution of actions, for agents that learn from probabilities.

A Box gets a Gaussian around the output, of a standard deviation that does not depend on the
observation; its draws are bounded after their probability is taken, as in Stable-Baselines3.
Every category of a Discrete or MultiDiscrete space gets the softmax of its logits.
"""

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents import spaces as _spaces


def sample(space: spaces.Space, head: jax.Array, log_std: jax.Array, key: jax.Array) -> jax.Array:
    """Raw numbers for `spaces.to_action`: (..., k) floats, or (..., c) ints.

    Args:
      space: the action space.
      head: (..., encoded_size) the network's output.
      log_std: (k,), of a Box; of no use for categories.
      key: a typed key.
    """
    if isinstance(space, spaces.Box):
        return head + jnp.exp(log_std) * jax.random.normal(key, head.shape)
    logits = _spaces.split_logits(space, head)
    keys = jax.random.split(key, len(logits))
    drawn = [jax.random.categorical(k, x) for k, x in zip(keys, logits, strict=True)]
    return jnp.stack(drawn, axis=-1)


def log_prob(space: spaces.Space, head: jax.Array, log_std: jax.Array, raw: jax.Array) -> jax.Array:
    """(...,) log probability (density) of raw numbers from `sample`."""
    if isinstance(space, spaces.Box):
        return jax.scipy.stats.norm.logpdf(raw, head, jnp.exp(log_std)).sum(axis=-1)
    logs = map(jax.nn.log_softmax, _spaces.split_logits(space, head))
    chosen = [
        jnp.take_along_axis(log, raw[..., i, None], axis=-1)[..., 0] for i, log in enumerate(logs)
    ]
    return jnp.stack(chosen, axis=-1).sum(axis=-1)


def entropy(space: spaces.Space, head: jax.Array, log_std: jax.Array) -> jax.Array:
    """(...,) entropy in nats; of a Box before it is bounded."""
    if isinstance(space, spaces.Box):
        total = jnp.sum(log_std + 0.5 * np.log(2 * np.pi * np.e))
        return jnp.broadcast_to(total, head.shape[:-1])
    logs = map(jax.nn.log_softmax, _spaces.split_logits(space, head))
    each = [-jnp.sum(jnp.exp(log) * log, axis=-1) for log in logs]
    return jnp.stack(each, axis=-1).sum(axis=-1)
