"""What every agent is: the contract between agents and the training loop."""

from typing import Any, Protocol, Self

import jax

from agents.policies.policy import Policy
from envs.base import Env, HostEnv
from es_rl.play.player import Notify
from es_rl.play.stage import Stage


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
    """A frozen dataclass of JSON values: with the environment, all that defines the agent."""
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
