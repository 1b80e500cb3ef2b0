"""What every agent is: the contract between agents and the training loop."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import jax

from agents.policies.policy import Policy
from envs.base import Env, HostEnv
from envs.errors import UserError
from es_rl.play.player import Notify
from es_rl.play.stage import Stage

NO_OBJECTS: Mapping[str, Any] = MappingProxyType({})
"""What an agent is made with where no setting is an object of the user's."""


class Agent(Protocol):
    """A way of making a policy for one environment.

    States are pytrees of arrays; `step` may reuse the memory of the state that it is given. Agents
    inherit from this class, and open what they need when they are made: `close` ends it, and so
    does the end of a `with` block. `agents.register` gives one a name; it is then made as
    `AgentClass(name, env, config)`.
    """

    name: str
    """The name that the agent is registered with."""
    env: Env | HostEnv
    stage: Stage
    """Where it plays, and where its policies are evaluated."""
    config: Any
    """A frozen dataclass of JSON values: with the environment and `objects`, all that defines the
    agent."""
    objects: Mapping[str, Any] = NO_OBJECTS
    """Settings that are objects of the user's, as a network; by the setting's name."""
    takes: ClassVar[tuple[str, ...]] = ()
    """The settings that may be such objects. A class that names any is made with a fourth argument,
    `objects`."""
    resumable: bool = True
    """Whether its states hold everything that `step` depends on, so that a run can be resumed."""
    in_processes: bool = False
    """Whether several processes can train one together."""
    summary: str = ""
    """One line about what was built, which `es-rl train` prints; empty for no line."""

    @classmethod
    def obstacle(cls, env: Env | HostEnv) -> str | None:
        """Why the agent cannot be trained on an environment; None where it can."""
        return None

    @classmethod
    def plays(cls, env: Env | HostEnv) -> bool:
        """Whether the agent can be trained on an environment."""
        return cls.obstacle(env) is None

    @classmethod
    def missing_package(cls) -> str | None:
        """How to install what the agent needs and does not find; None where nothing is missing."""
        return None

    def init(self, key: jax.Array) -> Any:
        """The state before any training; `key` is typed."""
        ...

    def with_policy(self, state: Any, policy: Policy) -> Any:
        """A state in which a policy's parameters and observation statistics replace the agent's.

        Args:
          state: from `init`.
          policy: saved by this or another agent.

        Raises:
          UserError: it does not fit the agent's spaces and network; the first difference is named.
        """
        del state, policy
        raise UserError(f"agent={self.name}: must be another agent to start from a policy")

    def compile(self, state: Any) -> None:
        """Compile `step` for states like this one; without it the first step does so."""
        ...

    def step(self, state: Any, notify: Notify | None = None) -> tuple[Any, dict[str, Any]]:
        """One iteration (for evolution a generation).

        Args:
          state: where to start from.
          notify: told from time to time how many episodes of the iteration have ended, and how many
            there are, by agents whose iterations may take long. Where it raises, the iteration is
            given up, and `state` is as it was.

        Returns:
          The next state, and scalars that hold at least "env_steps", the steps of live episodes
          in this iteration, and "return_mean".
        """
        ...

    def snapshot(self, state: Any) -> Policy:
        """The policy as it stands: for evolution the mean policy."""
        ...

    def close(self) -> None:
        """End all worker processes of the agent, which cannot step afterwards.

        Closing twice is harmless.
        """
        self.stage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
