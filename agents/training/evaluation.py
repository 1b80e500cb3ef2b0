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

from agents.policies.actors import Actor
from agents.policies.network import Weights
from agents.policies.policy import Policy
from agents.policies.policy_files import check_evaluation
from agents.policies.spaces import empty
from envs.base import Env, HostEnv, Lanes
from envs.errors import UserError
from envs.precision import in_32_bits
from es_rl.devices import Program, all_at_once, make_mesh, replicated, spread
from es_rl.play.host_rollout import HostRollout, episode_seeds, with_idle_lanes
from es_rl.play.jobs import Jobs, Played, episode_keys
from es_rl.play.pacing import Notify, PacedRollout
from es_rl.play.rollout import Behaviour, Episodes, Progress, Rollout

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
        """What `to_json` was made from.

        Raises:
          UserError: it is none of any evaluation.
        """
        check_evaluation(values)
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

    @in_32_bits
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
        self._opened: Lanes | None = None
        if isinstance(env, HostEnv):
            if lanes is None:
                lanes = self._opened = evaluation_lanes(env)
            on_host = lanes
            busy = min(EVALUATION_LANES, on_host.busy)
            self._on_host = cache(
                lambda episodes: HostRollout(env.spec.id, on_host, behaviour, _jobs(episodes), busy)
            )
            self._program = None
        else:
            mesh = mesh or make_mesh()
            self._program = cache(lambda episodes: _Programs(env, behaviour, mesh, episodes))

    @in_32_bits
    def __call__(
        self,
        weights: Weights,
        *,
        episodes: int = 128,
        seed: int = 0,
        notify: Notify | None = None,
    ) -> Evaluation:
        """Play episodes 0 ... episodes-1 of an evaluation seed.

        Args:
          weights: of the actor.
          episodes: how many to play.
          seed: which episodes they are.
          notify: told from time to time how many episodes have ended.
        """
        seed = int(seed)  # a NumPy integer cannot be saved with the policy
        if self._program is not None:
            played = self._program(episodes).play(weights, seed, notify)
        else:
            keys = evaluation_keys(seed, episodes)
            seeds = episode_seeds(keys, evaluation=True)
            played = self._on_host(episodes).play(weights, keys, seeds, notify)
        return Evaluation(seed, np.asarray(played.returns), np.asarray(played.lengths))

    def close(self) -> None:
        """End the worker processes that it opened, which are none where it was given lanes."""
        if self._opened is not None:
            self._opened.close()

    @in_32_bits
    def compile(self, weights: Weights, *, episodes: int) -> None:
        """Compile for that many episodes, before the first call."""
        if self._program is not None:
            self._program(episodes).compile(weights)
        else:
            self._on_host(episodes).compile(weights, evaluation_keys(0, episodes), self._obs)


class _Programs:
    """The compiled programs that play so many episodes on an accelerator."""

    def __init__(self, env: Env, behaviour: Behaviour, mesh: Mesh, episodes: int):
        rollout = Rollout(env, behaviour, _jobs(episodes), mesh, EVALUATION_LANES)
        everywhere, apart = replicated(mesh), spread(mesh)

        def start(weights: Weights, key_data: jax.Array) -> tuple[Episodes, Progress]:
            key = jax.random.wrap_key_data(key_data)
            return rollout.start(weights, episode_keys(key, episodes))

        self._start = Program(start, in_shardings=everywhere, out_shardings=apart)
        self._advance = PacedRollout(rollout)
        self._finish = Program(rollout.finish, in_shardings=apart, out_shardings=everywhere)
        self._started = start

    def compile(self, weights: Weights) -> None:
        started, progress = jax.eval_shape(self._started, weights, _key_data(0))
        all_at_once(
            lambda: self._start.compile(weights, _key_data(0)),
            lambda: self._advance.compile(weights, started, progress),
            lambda: self._finish.compile(progress),
        )

    def play(self, weights: Weights, seed: int, notify: Notify | None) -> Played:
        started, progress = self._start(weights, _key_data(seed))
        return self._finish(self._advance(weights, started, progress, notify))


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
