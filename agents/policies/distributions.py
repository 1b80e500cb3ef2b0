"""A network's output as a distribution of actions, for agents that learn from probabilities.

A Box gets a Gaussian around the output, of a standard deviation that does not depend on the
observation; its draws are bounded after their probability is taken, as in Stable-Baselines3.
Every dimension of a discrete space gets the softmax of its logits.
"""

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.policies import spaces as _spaces


def sample(space: spaces.Space, head: jax.Array, log_std: jax.Array, key: jax.Array) -> jax.Array:
    """Raw numbers for `spaces.to_action`: (..., k) floats, or (..., c) ints.

    Args:
      space: the action space.
      head: (..., num_outputs) the network's output.
      log_std: (k,), of a Box; of no use for categories.
      key: a typed key.
    """
    if isinstance(space, spaces.Box):
        return head + jnp.exp(log_std) * jax.random.normal(key, head.shape)
    logits, _ = _spaces.category_logits(space, head)
    return _spaces.sample_categories(logits, key)


def log_prob(space: spaces.Space, head: jax.Array, log_std: jax.Array, raw: jax.Array) -> jax.Array:
    """(...,) log probability (density) of raw numbers from `sample`."""
    if isinstance(space, spaces.Box):
        return jax.scipy.stats.norm.logpdf(raw, head, jnp.exp(log_std)).sum(axis=-1)
    logits, _ = _spaces.category_logits(space, head)
    logs = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(logs, raw[..., None], axis=-1)[..., 0].sum(axis=-1)


def entropy(space: spaces.Space, head: jax.Array, log_std: jax.Array) -> jax.Array:
    """(...,) entropy in nats; of a Box before it is bounded."""
    if isinstance(space, spaces.Box):
        total = jnp.sum(log_std + 0.5 * np.log(2 * np.pi * np.e))
        return jnp.broadcast_to(total, head.shape[:-1])
    logits, there = _spaces.category_logits(space, head)
    # Where there is no such category, 0 x -inf would be no number.
    logs = jnp.where(there, jax.nn.log_softmax(logits), 0.0)
    return -jnp.sum(jnp.exp(logs) * logs, axis=-1).sum(axis=-1)
