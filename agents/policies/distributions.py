"""A network's output as a distribution of actions, for agents that learn from probabilities.

For a Box the distribution is a Gaussian whose mean is the output and whose standard deviation does
not depend on the observation. As in Stable-Baselines3, log probabilities are those of the draws
before they are bounded. Each dimension of a discrete space has a categorical distribution, the
softmax of its logits.
"""

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.policies import spaces as _spaces


def sample(space: spaces.Space, head: jax.Array, log_std: jax.Array, key: jax.Array) -> jax.Array:
    """Draw the raw numbers that `spaces.to_action` takes: (..., k) floats or (..., c) ints.

    Args:
      space: the action space.
      head: (..., num_outputs) the network's output.
      log_std: (k,) log standard deviation of a Box; ignored for categories.
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
    """(...,) entropy in nats; for a Box that of the Gaussian before actions are bounded."""
    if isinstance(space, spaces.Box):
        total = jnp.sum(log_std + 0.5 * np.log(2 * np.pi * np.e))
        return jnp.broadcast_to(total, head.shape[:-1])
    logits, there = _spaces.category_logits(space, head)
    # The logit of a missing category is -inf, and 0 x -inf would be NaN.
    logs = jnp.where(there, jax.nn.log_softmax(logits), 0.0)
    return -jnp.sum(jnp.exp(logs) * logs, axis=-1).sum(axis=-1)
