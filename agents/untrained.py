"""The agents that do not learn, for trying out an environment: `random` and `zero`."""

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from agents import settings
from agents.base import Agent
from agents.policies.actors import RandomActor, ZeroActor
from agents.policies.masks import mask_of
from agents.policies.network import Weights
from agents.policies.policy import Policy
from agents.settings import MAY_CHANGE
from agents.training.evaluation import Evaluator
from envs.base import Env, EnvSpec, HostEnv
from envs.errors import UserError
from es_rl.play.player import Notify
from es_rl.play.stage import open_stage


def untrained_policy(name: str, spec: EnvSpec, *, action_mask: bool = True) -> Policy:
    """The policy of the `random` or of the `zero` agent.

    Args:
      name: the name of the agent.
      spec: the environment's description.
      action_mask: see `UntrainedConfig`.
    """
    nothing = np.zeros(0, np.float32)
    mask = mask_of(spec) if action_mask else None
    actor = (RandomActor if name == "random" else ZeroActor)(spec.action_space, mask)
    return Policy(spec, actor, Weights({}, nothing, nothing), agent=name)


@dataclass(frozen=True)
class UntrainedConfig:
    """Settings of the `random` and `zero` agents."""

    episodes: int = 64
    """Episodes played in each iteration."""
    action_mask: bool = True
    """Whether no action is taken that the part "action_mask" of a Dict observation forbids."""
    lanes: int | None = field(default=None, metadata=MAY_CHANGE)
    """Environments stepped in lockstep, if they step on the host: 32 unless given."""

    def __post_init__(self) -> None:
        settings.check(self)
        for name in ("episodes", "lanes"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")


class UntrainedAgent(Agent):
    """Plays random or zero actions; its state counts the iterations."""

    resumable = True

    def __init__(self, name: str, env: Env | HostEnv, config: UntrainedConfig):
        self.name = name
        self.env = env
        self.config = config
        self._policy = untrained_policy(name, env.spec, action_mask=config.action_mask)
        self.stage = open_stage(env, lanes=config.lanes)
        self._evaluator = Evaluator(env, self._policy.actor, self.stage)

    def init(self, key: jax.Array) -> np.int32:
        del key
        return np.int32(0)

    def compile(self, state: np.int32) -> None:
        self._evaluator.compile(self._policy.weights, episodes=self.config.episodes)

    def step(
        self, state: np.int32, notify: Notify | None = None
    ) -> tuple[np.int32, dict[str, Any]]:
        # Seeds start at 1, as evaluation seed 0 is for the reported episodes.
        played = self._evaluator(
            self._policy.weights, episodes=self.config.episodes, seed=int(state) + 1, notify=notify
        )
        return np.int32(state + 1), {
            "env_steps": int(played.lengths.sum()),
            "return_mean": played.mean,
            "return_std": played.std,
            "return_max": float(played.returns.max()),
            "return_min": float(played.returns.min()),
        }

    def snapshot(self, state: np.int32) -> Policy:
        return self._policy
