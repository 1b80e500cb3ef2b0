"""How PPO acts while it collects transitions: it samples actions, and keeps what the update
needs."""

from typing import NamedTuple, TypeAlias

import jax

from agents.policies import distributions
from agents.policies import spaces as _spaces
from agents.policies.network import Network, Weights
from agents.ppo.update import Learner
from es_rl.play.observations import Moments

Statistics: TypeAlias = Weights | Moments
"""Either holds the mean and std (d,) of observations."""


class Drawn(NamedTuple):
    """What the collector keeps of one action in each of N lanes."""

    vector: jax.Array
    """(N, ...) the observations, converted by `Network.stored`."""
    raw: jax.Array
    """(N, ...) the actions before they were bounded."""
    log_prob: jax.Array
    """(N,) the log probability of `raw` when it was drawn."""


def act(
    learner: Learner, weights: Weights, obs: jax.Array, key: jax.Array
) -> tuple[jax.Array, Drawn]:
    """Sample actions for N observations.

    Args:
      learner: holds the policy network.
      weights: the learner's parameters, and the statistics of observations.
      obs: (N, ...) the observations.
      key: a typed key, used for all N actions.
    """
    network, params = learner.network, weights.params
    vector = stored(network, weights, obs)
    with network.precision():
        head = learner.head(params, vector)
    raw = distributions.sample(network.action_space, head, params["log_std"], key)
    log_prob = distributions.log_prob(network.action_space, head, params["log_std"], raw)
    actions = jax.vmap(
        lambda row: _spaces.to_action(network.action_space, row, network.config.squash)
    )(raw)
    return actions, Drawn(vector, raw, log_prob)


def stored(network: Network, statistics: Statistics, obs: jax.Array) -> jax.Array:
    """Apply `Network.stored` to N observations (N, ...)."""
    rows = jax.vmap(network.stored, in_axes=(0, None, None))
    return rows(obs, statistics.mean, statistics.std)
