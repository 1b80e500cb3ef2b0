"""Evaluation of policies: deterministic actions, on episodes that training never plays.

Episode i of evaluation seed s has the same start state and randomness for every agent, run and
process.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.policies.actors import Actor
from agents.policies.network import Weights
from agents.policies.policy import Policy
from agents.policies.policy_files import check_evaluation
from envs.base import Env, HostEnv
from envs.errors import UserError
from envs.precision import in_32_bits
from es_rl.play.jobs import Jobs, episode_keys, info_metric
from es_rl.play.player import Behaviour, Notify, Player
from es_rl.play.stage import Stage, open_stage

_DOMAIN = 0x65766C  # apart from the keys that training derives from a seed


@dataclass(frozen=True)
class Evaluation:
    """The results of a policy on `len(returns)` episodes."""

    seed: int
    """The evaluation seed, which determines the episodes."""
    returns: np.ndarray
    """(episodes,) undiscounted returns: float32 from the accelerator, float64 from the host."""
    lengths: np.ndarray
    """(episodes,) int32, the env steps of each episode."""
    info: dict[str, np.ndarray] = field(default_factory=dict)
    """(episodes,) float32 for each name: what the environment reported at the end of each episode;
    see `es_rl.play.jobs.Played`."""

    @property
    def info_means(self) -> dict[str, float]:
        """The mean over episodes of each reported scalar, by the name of its metric.

        "success_rate" is the share of successful episodes, and "info_distance_mean" the mean of
        "distance". A scalar that no episode reported is left out.
        """
        reported = {info_metric(k): x for k, x in self.info.items() if not np.isnan(x).all()}
        return {name: float(np.nanmean(x, dtype=np.float64)) for name, x in reported.items()}

    @property
    def success_rate(self) -> float | None:
        """The share of successful episodes; None if the environment does not report success."""
        return self.info_means.get("success_rate")

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean(dtype=np.float64))

    @property
    def std(self) -> float:
        """The standard deviation of the returns over episodes."""
        return float(self.returns.std(dtype=np.float64))

    def to_json(self) -> dict[str, Any]:
        """The evaluation as JSON values, which keep all digits of the returns."""
        returns, lengths = self.returns.tolist(), self.lengths.tolist()
        return {"seed": self.seed, "returns": returns, "lengths": lengths}

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Evaluation":
        """The evaluation that `to_json` wrote.

        Raises:
          UserError: the values do not describe an evaluation.
        """
        check_evaluation(values)
        returns = np.asarray(values["returns"], np.float64)
        return Evaluation(values["seed"], returns, np.asarray(values["lengths"], np.int32))


def evaluation_keys(seed: int, episodes: int) -> np.ndarray:
    """The key data of episodes 0 ... episodes-1 of an evaluation seed, (episodes, ...)."""
    key = jax.random.fold_in(jax.random.key(seed), _DOMAIN)
    return np.asarray(jax.random.key_data(episode_keys(key, episodes)))


def evaluation_behaviour(actor: Actor) -> Behaviour:
    """The behaviour of an actor in a rollout; the `shared` data are the actor's weights."""

    def act(weights: Weights, selected: Any, memory: Any, obs: Any, key: Any) -> Any:
        return *actor.act(weights, memory, obs, key), jnp.zeros(0)

    return Behaviour(lambda weights, member: (), actor.memory, act)


class Evaluator:
    """Evaluates an actor's weights; it keeps its compiled programs, so make it once and call it
    often."""

    @in_32_bits
    def __init__(self, env: Env | HostEnv, actor: Actor, stage: Stage | None = None):
        """Make an evaluator.

        Args:
          env: the environment to play on.
          actor: computes the actions.
          stage: the stage of the environment; unless given, the evaluator opens one. Returns do not
            depend on it.
        """
        self._opened = open_stage(env) if stage is None else None
        self._behaviour = evaluation_behaviour(actor)
        self._stage = stage or self._opened
        self._players: dict[int, Player] = {}

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
          weights: the weights of the actor.
          episodes: how many to play.
          seed: the evaluation seed, which determines the episodes.
          notify: called from time to time with the number of episodes that have ended and their
            total number.
        """
        seed = int(seed)  # a NumPy integer cannot be saved with the policy
        keys = evaluation_keys(seed, episodes)
        played = self._player(episodes).play(weights, keys, notify)
        info = {name: np.asarray(x) for name, x in played.info.items()}
        return Evaluation(seed, np.asarray(played.returns), np.asarray(played.lengths), info)

    @in_32_bits
    def compile(self, weights: Weights, *, episodes: int) -> None:
        """Compile for this number of episodes, before the first call."""
        self._player(episodes).compile(weights, evaluation_keys(0, episodes))

    def close(self) -> None:
        """End the worker processes that the evaluator opened; it opens none if it was given a
        stage."""
        if self._opened is not None:
            self._opened.close()

    def _player(self, episodes: int) -> Player:
        if episodes not in self._players:
            assert self._stage is not None
            jobs = _jobs(episodes)
            self._players[episodes] = self._stage.player(self._behaviour, jobs, evaluation=True)
        return self._players[episodes]


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
      policy: the policy to evaluate.
      env: the environment to play on.
      episodes: how many to play.
      seed: the evaluation seed.
      lanes: environments stepped in lockstep, if they step on the host; unless given 32, or the
        number of episodes if that is smaller. With 1 lane and 1 worker there is one environment at
        a time.

    Raises:
      UserError: there are no episodes, or the seed is negative; lanes are given for an environment
        that does not step on the host, or are fewer than 1.
    """
    if episodes < 1:
        raise UserError(f"episodes={episodes}: must be at least 1")
    if seed < 0:
        raise UserError(f"seed={seed}: must be at least 0")
    with open_stage(env, lanes=lanes, episodes=episodes) as stage:
        evaluator = Evaluator(env, policy.actor, stage)
        return evaluator(policy.weights, episodes=episodes, seed=seed)
