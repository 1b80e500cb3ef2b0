"""The `Agent` protocol: the contract between agents and the training loop."""

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import jax

from agents.policies.policy import Policy
from envs.base import Env, HostEnv
from envs.errors import UserError
from es_rl.play.player import Notify
from es_rl.play.stage import Stage

NO_OBJECTS: Mapping[str, Any] = MappingProxyType({})
"""The default of `Agent.objects`: no setting is an object of the user's."""


class Agent(Protocol):
    """An algorithm that trains a policy on one environment.

    States are pytrees of arrays; `step` may reuse the memory of the state that it is given. Agents
    inherit from this class. An agent opens its worker processes when it is made; `close`, or the
    end of a `with` block, ends them. `agents.register` gives an agent class a name; `agents.make`
    then calls `AgentClass(name, env, config)`.
    """

    name: str
    """The name that the agent is registered with."""
    env: Env | HostEnv
    """The environment that policies are for. All evaluations play it."""
    stage: Stage
    """Where episodes of `env` are played: its devices or worker processes."""
    train_env: Env | HostEnv | None = None
    """The environment of training, of the same spaces, if it is another than `env`."""
    config: Any
    """A frozen dataclass of JSON values. The environments, this and `objects` define the agent
    completely."""
    objects: Mapping[str, Any] = NO_OBJECTS
    """Settings that are Python objects of the user's, such as a network, by the setting's name."""
    takes: ClassVar[tuple[str, ...]] = ()
    """The settings that may be objects of the user's. A class that lists any of them is called with
    `objects` as its fourth argument."""
    takes_train_env: ClassVar[bool] = False
    """Whether training may play another environment than evaluation. If one is given, such a class
    is called with `train_env`; it sets `train_env` and `train_stage`, and trains there."""
    resumable: bool = True
    """Whether a state holds everything that `step` depends on, so that a run can be resumed."""
    in_processes: bool = False
    """Whether several processes can train one agent together."""
    summary: str = ""
    """One line about the agent that `es-rl train` prints; nothing is printed if it is empty."""

    @cached_property
    def train_stage(self) -> Stage:
        """Where training plays: `stage`, unless the agent sets it to a stage of `train_env`."""
        return self.stage

    @classmethod
    def obstacle(cls, env: Env | HostEnv) -> str | None:
        """Why the agent cannot be trained on an environment; None if it can."""
        return None

    @classmethod
    def plays(cls, env: Env | HostEnv) -> bool:
        """Whether the agent can be trained on an environment."""
        return cls.obstacle(env) is None

    @classmethod
    def missing_package(cls) -> str | None:
        """How to install the packages that the agent needs; None if nothing is missing."""
        return None

    def init(self, key: jax.Array) -> Any:
        """The state before any training; `key` is typed."""
        ...

    def with_policy(self, state: Any, policy: Policy) -> Any:
        """Replace the parameters and observation statistics of a state by those of a policy.

        Args:
          state: from `init`.
          policy: a policy of this or another agent.

        Raises:
          UserError: the policy does not fit the agent's spaces and network; the message names the
            first difference.
        """
        del state, policy
        raise UserError(f"agent={self.name}: must be another agent to start from a policy")

    def compile(self, state: Any) -> None:
        """Compile `step` for states like this one; otherwise the first step compiles it."""
        ...

    def step(self, state: Any, notify: Notify | None = None) -> tuple[Any, dict[str, Any]]:
        """Run one iteration of training (for evolution, one generation).

        Args:
          state: the state before the iteration.
          notify: called from time to time with the number of episodes of the iteration that have
            ended and their total number, by agents whose iterations may take long. If it raises,
            the iteration is abandoned and `state` stays valid and unchanged.

        Returns:
          The next state, and a dict of scalar metrics. It holds at least "return_mean" and
          "env_steps", the steps of live episodes in this iteration. What episodes returned and
          reported is of `train_env` if there is one; `agents.train` then names it accordingly.
        """
        ...

    def snapshot(self, state: Any) -> Policy:
        """The current policy; for evolution this is the mean policy."""
        ...

    def close(self) -> None:
        """End all worker processes of the agent; it cannot step afterwards.

        Closing twice is harmless.
        """
        self.stage.close()
        self.train_stage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
