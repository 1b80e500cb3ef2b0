"""Evaluation of policies: deterministic actions, on episodes that training never plays.

Episode i of evaluation seed s is the same for every agent, run and process.
"""

from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from agents.network import Weights
from agents.policy import Actor, Policy
from agents.spaces import empty
from envs.base import Env, HostEnv, Lanes
from envs.errors import UserError
from es_rl.devices import Program, make_mesh, replicated
from es_rl.host_rollout import HostRollout, episode_seeds, with_idle_lanes
from es_rl.rollout import Behaviour, Jobs, Played, Rollout, episode_keys

EVALUATION_LANES = 32
"""Lanes on each device, or on the host, whatever the number of episodes: a matrix product of
another size may round differently, and a replayed episode has to give the recorded return."""
_DOMAIN = 0x65766C  # apart from the keys that training derives from a seed


@dataclass(frozen=True)
class Evaluation:
    """What a policy earned on `len(returns)` episodes."""

    seed: int
    returns: np.ndarray
    """(episodes,) undiscounted: float32 on the accelerator, float64 on the host."""
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
        """The values as JSON knows them, which keeps all of their digits."""
        returns, lengths = self.returns.tolist(), self.lengths.tolist()
        return {"seed": self.seed, "returns": returns, "lengths": lengths}

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Evaluation":
        """What `to_json` was made from."""
        returns = np.asarray(values["returns"], np.float64)
        return Evaluation(values["seed"], returns, np.asarray(values["lengths"], np.int32))


def evaluation_keys(seed: int, episodes: int) -> jax.Array:
    """One key per episode (episodes,)."""
    return episode_keys(_evaluation_key(seed), episodes)


def _evaluation_key(seed: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), _DOMAIN)


def _key_data(seed: int) -> np.ndarray:
    # NumPy's, which is at once on all devices of all processes.
    return np.asarray(jax.random.key_data(_evaluation_key(seed)))


def evaluation_behaviour(actor: Actor) -> Behaviour:
    """How an actor behaves in a rollout whose `shared` are its weights."""

    def act(weights: Weights, selected: Any, memory: Any, obs: Any, key: Any) -> Any:
        return *actor.act(weights, memory, obs, key), jnp.zeros(0)

    return Behaviour(lambda weights, member: (), actor.memory, act)


class Evaluator:
    """Plays an actor's episodes; keeps what it compiled, so make one and call it often."""

    def __init__(
        self,
        env: Env | HostEnv,
        actor: Actor,
        mesh: Mesh | None = None,
        lanes: Lanes | None = None,
    ):
        """Neither of these changes a return.

        Args:
          env: where to play.
          actor: how to act.
          mesh: the devices that share the episodes of an accelerator environment; all of them
            unless given.
          lanes: of a host environment; its own unless given.
        """

        behaviour = evaluation_behaviour(actor)
        self._obs = empty(env.spec.observation_space)
        if isinstance(env, HostEnv):
            on_host = lanes or evaluation_lanes(env)
            busy = min(EVALUATION_LANES, on_host.busy)
            self._on_host = cache(
                lambda episodes: HostRollout(env.spec.id, on_host, behaviour, _jobs(episodes), busy)
            )
            self._program = None
        else:
            mesh = mesh or make_mesh()
            everywhere = replicated(mesh)

            def program(episodes: int) -> Program:
                rollout = Rollout(env, behaviour, _jobs(episodes), mesh, EVALUATION_LANES)

                def play(weights: Weights, key_data: jax.Array) -> Played:
                    key = jax.random.wrap_key_data(key_data)
                    return rollout.play(weights, episode_keys(key, episodes))

                return Program(play, in_shardings=everywhere, out_shardings=everywhere)

            self._program = cache(program)

    def __call__(self, weights: Weights, *, episodes: int = 128, seed: int = 0) -> Evaluation:
        """Play episodes 0 ... episodes-1 of an evaluation seed."""
        if self._program is not None:
            played = self._program(episodes)(weights, _key_data(seed))
        else:
            keys = evaluation_keys(seed, episodes)
            seeds = episode_seeds(keys, evaluation=True)
            played = self._on_host(episodes).play(weights, keys, seeds)
        return Evaluation(seed, np.asarray(played.returns), np.asarray(played.lengths))

    def compile(self, weights: Weights, *, episodes: int) -> None:
        """Compile for that many episodes, before the first call."""
        if self._program is not None:
            self._program(episodes).compile(weights, _key_data(0))
        else:
            self._on_host(episodes).compile(weights, evaluation_keys(0, episodes), self._obs)


def evaluation_lanes(env: HostEnv, busy: int = EVALUATION_LANES) -> Lanes:
    """Lanes for evaluation, of which so many are used."""
    return env.lanes(with_idle_lanes(EVALUATION_LANES), busy)


def _jobs(episodes: int) -> Jobs:
    numbers = np.arange(episodes, dtype=np.int32)
    return Jobs(np.zeros_like(numbers), numbers)


def evaluate(
    policy: Policy,
    env: Env | HostEnv,
    *,
    episodes: int = 128,
    seed: int = 0,
    lanes: int | None = None,
) -> Evaluation:
    """Evaluate a policy once; `Evaluator` serves repeated calls.

    Args:
      policy: who plays.
      env: where.
      episodes: how many.
      seed: of the evaluation.
      lanes: environments stepped side by side, if they step on the host: 32, or as many as there
        are episodes, unless given. With 1, and 1 worker, there is one environment at a time.

    Raises:
      UserError: lanes are given where the environment does not step on the host.
    """
    if not isinstance(env, HostEnv):
        if lanes is not None:
            raise UserError(
                f"lanes={lanes}: {env.spec.id} does not step on the host: must not be given"
            )
        return Evaluator(env, policy.actor)(policy.weights, episodes=episodes, seed=seed)
    if lanes is not None and lanes < 1:
        raise UserError(f"lanes={lanes}: must be at least 1")
    on_host = evaluation_lanes(env, min(lanes or EVALUATION_LANES, EVALUATION_LANES, episodes))
    with closing(on_host):
        evaluator = Evaluator(env, policy.actor, lanes=on_host)
        return evaluator(policy.weights, episodes=episodes, seed=seed)
