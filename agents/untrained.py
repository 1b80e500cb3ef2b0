"""The agents that do not learn: `random` and `zero`, for looking at an environment."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from agents import settings
from agents.actors import RandomActor, ZeroActor
from agents.base import Agent
from agents.evaluation import EVALUATION_LANES, Evaluator
from agents.network import Weights
from agents.policy import Policy
from envs.base import Env, HostEnv, Lanes
from envs.errors import UserError
from es_rl.devices import make_mesh
from es_rl.host_rollout import with_idle_lanes
from es_rl.pacing import Notify


@dataclass(frozen=True)
class UntrainedConfig:
    """Settings of the `random` and `zero` agents."""

    episodes: int = 64
    """Episodes played in each iteration."""

    def __post_init__(self) -> None:
        settings.check(self)
        if self.episodes < 1:
            raise UserError(f"episodes={self.episodes}: must be at least 1")


class UntrainedAgent(Agent):
    """Plays random or zero actions; its state counts the iterations."""

    resumable = True

    def __init__(self, name: str, env: Env | HostEnv, config: UntrainedConfig):
        self.name = name
        self.env = env
        self.config = config
        space = env.spec.action_space
        self._actor = RandomActor(space) if name == "random" else ZeroActor(space)
        empty = np.zeros(0, np.float32)
        self._weights = Weights({}, empty, empty)
        self.mesh = make_mesh(1 if isinstance(env, HostEnv) else None)
        self.lanes: Lanes | None = None
        if isinstance(env, HostEnv):
            self.lanes = env.lanes(with_idle_lanes(EVALUATION_LANES))
        self._evaluator = Evaluator(env, self._actor, self.mesh, self.lanes)

    def init(self, key: jax.Array) -> np.int32:
        del key
        return np.int32(0)

    def compile(self, state: np.int32) -> None:
        self._evaluator.compile(self._weights, episodes=self.config.episodes)

    def step(
        self, state: np.int32, notify: Notify | None = None
    ) -> tuple[np.int32, dict[str, Any]]:
        # Seeds from 1: evaluation seed 0 is for the reported episodes.
        played = self._evaluator(
            self._weights, episodes=self.config.episodes, seed=int(state) + 1, notify=notify
        )
        return np.int32(state + 1), {
            "env_steps": int(played.lengths.sum()),
            "return_mean": played.mean,
            "return_std": played.std,
            "return_max": float(played.returns.max()),
            "return_min": float(played.returns.min()),
        }

    def snapshot(self, state: np.int32) -> Policy:
        return Policy(self.env.spec, self._actor, self._weights, agent=self.name)
