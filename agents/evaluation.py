"""Evaluation of policies: deterministic actions, on episodes that training never plays.

Episode i of evaluation seed s is the same for every agent, run and process.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.network import Weights
from agents.policy import Actor, Policy
from envs.base import Env, HostEnv
from es_rl.host_rollout import episode_seeds, play_on_host
from es_rl.rollout import Jobs, Played, episode_keys, play, step_keys

EVALUATION_LANES = 32
"""Lanes on the accelerator, whatever the number of episodes: a matrix product of another size may
round differently, and a replayed episode has to give the return that was recorded."""
_HOST_LANES = 8
_DOMAIN = 0x65766C  # apart from the keys that training derives from a seed


@dataclass(frozen=True)
class Evaluation:
    """What a policy earned on `len(returns)` episodes."""

    seed: int
    returns: np.ndarray
    """(episodes,) float32, undiscounted."""
    lengths: np.ndarray
    """(episodes,) int32, env steps."""

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean(dtype=np.float64))

    @property
    def std(self) -> float:
        """The standard deviation of the returns over episodes."""
        return float(self.returns.std(dtype=np.float64))

    def to_json(self) -> dict[str, Any]:
        """The values as JSON knows them; float32 returns survive exactly."""
        returns, lengths = self.returns.tolist(), self.lengths.tolist()
        return {"seed": self.seed, "returns": returns, "lengths": lengths}


def evaluation_keys(seed: int, episodes: int) -> jax.Array:
    """One key per episode (episodes,)."""
    return episode_keys(jax.random.fold_in(jax.random.key(seed), _DOMAIN), episodes)


class Evaluator:
    """Plays an actor's episodes; keeps what it compiled, so make one and call it often."""

    def __init__(self, env: Env | HostEnv, actor: Actor):
        self._env = env
        self._actor = actor
        self._play = jax.jit(self._play_on_accelerator)
        self._act = jax.jit(self._act_in_lanes)
        self._lanes = env.lanes(_HOST_LANES) if isinstance(env, HostEnv) else None

    def __call__(self, weights: Weights, *, episodes: int = 128, seed: int = 0) -> Evaluation:
        """Play episodes 0 ... episodes-1 of an evaluation seed."""
        keys = evaluation_keys(seed, episodes)
        if self._lanes is None:
            played = self._play(weights, keys)
        else:
            jobs = Jobs(np.zeros(episodes, np.int32), np.arange(episodes))
            seeds = episode_seeds(keys, evaluation=True)

            def act(member: Any, episode: Any, steps: Any, obs: Any) -> Any:
                return self._act(weights, keys, episode, steps, obs)

            played = play_on_host(self._lanes, act, jobs, seeds, lanes=_HOST_LANES)
        return Evaluation(seed, np.asarray(played.returns), np.asarray(played.lengths))

    def _play_on_accelerator(self, weights: Weights, keys: jax.Array) -> Played:
        assert not isinstance(self._env, HostEnv)
        episodes = jnp.arange(keys.shape[0])

        def act(member: jax.Array, obs: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            return self._actor.act(weights, obs, key), jnp.zeros(0)

        return play(
            self._env, act, Jobs(jnp.zeros_like(episodes), episodes), keys, lanes=EVALUATION_LANES
        )

    def _act_in_lanes(
        self,
        weights: Weights,
        keys: jax.Array,
        episode: jax.Array,
        steps: jax.Array,
        obs: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        policy_keys, _ = jax.vmap(step_keys)(keys[episode], steps)
        act = jax.vmap(self._actor.act, in_axes=(None, 0, 0))
        return act(weights, obs, policy_keys), jnp.zeros((obs.shape[0], 0))


def evaluate(
    policy: Policy, env: Env | HostEnv, *, episodes: int = 128, seed: int = 0
) -> Evaluation:
    """Evaluate a policy once; `Evaluator` serves repeated calls."""
    return Evaluator(env, policy.actor)(policy.weights, episodes=episodes, seed=seed)
