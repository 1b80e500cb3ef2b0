"""Evaluation of policies: deterministic actions, on episodes that training never plays.

Episode i of evaluation seed s is the same for every agent, run and process.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from agents.network import Weights
from agents.policy import Actor, Policy
from envs.base import Env, HostEnv, Lanes
from es_rl.devices import Program, make_mesh
from es_rl.host_rollout import episode_seeds, play_on_host
from es_rl.rollout import Behaviour, Jobs, Rollout, episode_keys, step_keys

EVALUATION_LANES = 32
"""Lanes on each device, whatever the number of episodes: a matrix product of another size may
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

    def __init__(self, env: Env | HostEnv, actor: Actor, mesh: Mesh | None = None):
        """`mesh`: the devices that share the episodes of an accelerator environment, all of them
        unless given. They change no return."""
        self._actor = actor
        self._lanes: Lanes | None = None
        if isinstance(env, HostEnv):
            self._lanes = env.lanes(_HOST_LANES)
            self._act = jax.jit(self._act_in_lanes)
        else:
            self._env = env
            self._mesh = mesh or make_mesh()
            self._program = cache(self._make_program)

    def __call__(self, weights: Weights, *, episodes: int = 128, seed: int = 0) -> Evaluation:
        """Play episodes 0 ... episodes-1 of an evaluation seed."""
        keys = evaluation_keys(seed, episodes)
        if self._lanes is None:
            played = self._program(episodes)(weights, keys)
        else:
            seeds = episode_seeds(keys, evaluation=True)

            def act(memory: Any, member: Any, episode: Any, steps: Any, obs: Any) -> Any:
                return self._act(weights, keys, memory, episode, steps, obs)

            jobs, memory = _jobs(episodes), self._actor.memory
            played = play_on_host(self._lanes, act, memory, jobs, seeds, lanes=_HOST_LANES)
        return Evaluation(seed, np.asarray(played.returns), np.asarray(played.lengths))

    def compile(self, weights: Weights, *, episodes: int) -> None:
        """Compile for that many episodes, before the first call."""
        if self._lanes is None:
            self._program(episodes).compile(weights, evaluation_keys(0, episodes))

    def _make_program(self, episodes: int) -> Program:
        def act(weights: Weights, selected: Any, memory: Any, obs: Any, key: Any) -> Any:
            return *self._actor.act(weights, memory, obs, key), jnp.zeros(0)

        behaviour = Behaviour(lambda weights, member: (), self._actor.memory, act)
        jobs = _jobs(episodes)
        return Program(Rollout(self._env, behaviour, jobs, self._mesh, EVALUATION_LANES).play)

    def _act_in_lanes(
        self,
        weights: Weights,
        keys: jax.Array,
        memory: Any,
        episode: jax.Array,
        steps: jax.Array,
        obs: jax.Array,
    ) -> tuple[jax.Array, Any, jax.Array]:
        policy_keys, _ = jax.vmap(step_keys)(keys[episode], steps)
        act = jax.vmap(self._actor.act, in_axes=(None, 0, 0, 0))
        return *act(weights, memory, obs, policy_keys), jnp.zeros((obs.shape[0], 0))


def _jobs(episodes: int) -> Jobs:
    numbers = np.arange(episodes, dtype=np.int32)
    return Jobs(np.zeros_like(numbers), numbers)


def evaluate(
    policy: Policy, env: Env | HostEnv, *, episodes: int = 128, seed: int = 0
) -> Evaluation:
    """Evaluate a policy once; `Evaluator` serves repeated calls."""
    return Evaluator(env, policy.actor)(policy.weights, episodes=episodes, seed=seed)
