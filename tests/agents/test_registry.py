"""Agents of the user's: what `agents.register` takes, and what is asked of an agent."""

from dataclasses import dataclass, field

import pytest

import agents
import envs
from agents import registry
from agents.untrained import UntrainedAgent, UntrainedConfig
from envs.errors import UserError


@dataclass(frozen=True)
class Config(UntrainedConfig):
    """Settings of an agent of the user's."""

    weight: float = 1.0
    """A setting of its own."""


@dataclass(frozen=True)
class Seeded(Config):
    """Has a field with the name of an option of a run."""

    seed: int = field(default=0)


@dataclass(frozen=True)
class Elsewhere(Config):
    """Has a field with the name of an argument of `agents.make`, which would never reach it."""

    train_env: str = ""


@dataclass
class Thawed:
    """Can be changed."""


class Picky(UntrainedAgent):
    """Plays on the host alone."""

    @classmethod
    def obstacle(cls, env):
        return None if isinstance(env, envs.HostEnv) else f"{env.spec.id} does not step on the host"


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_AGENTS", dict(registry._AGENTS))
    agents.register("picky", Config, Picky)


def test_a_registered_agent_is_made_with_its_settings(registered):
    assert "picky" in agents.list_agents()
    env = envs.make("gymnasium/CartPole-v1")
    with agents.make("picky", env, weight=2, lanes=1) as agent:
        assert isinstance(agent, Picky)
        assert agent.config == Config(weight=2, lanes=1)
    with pytest.raises(UserError, match="weight='heavy': must be a number"):
        agents.make("picky", env, weight="heavy")
    with pytest.raises(UserError, match="wieght=3: no such setting of picky; did you mean weight"):
        agents.make("picky", env, wieght=3)


def test_an_agent_says_what_it_plays(registered):
    env = envs.make("probe/policy_reward")
    assert not registry.agent_type("picky").plays(env)
    assert registry.agent_type("eggroll").plays(env)
    assert not registry.agent_type("sbx_ppo").plays(env)
    with pytest.raises(UserError, match="agent='picky': probe/policy_reward does not step on the"):
        agents.make("picky", env)


def test_a_missing_package_is_said_before_an_agent_is_made(registered, monkeypatch):
    monkeypatch.setattr(Picky, "missing_package", classmethod(lambda cls: "needs picky-rl"))
    with pytest.raises(UserError, match="agent='picky': needs picky-rl"):
        agents.make("picky", envs.make("gymnasium/CartPole-v1"))


@pytest.mark.parametrize(
    ("name", "config", "agent", "says"),
    [
        ("eggroll", Config, Picky, "name='eggroll': must be an identifier that no agent has yet"),
        ("my agent", Config, Picky, "name='my agent': must be an identifier"),
        ("mine", Thawed, Picky, "config=.*: must be a frozen dataclass"),
        ("mine", dict, Picky, "config=.*: must be a frozen dataclass"),
        ("mine", Seeded, Picky, "config=.*: the field seed must have another name"),
        ("mine", Elsewhere, Picky, "config=.*: the field train_env must have another name"),
        ("mine", Config, dict, "agent=.*: must be a subclass of agents.Agent"),
        ("mine", Config, lambda *of: None, "agent=.*: must be a subclass of agents.Agent"),
    ],
)
def test_what_cannot_be_registered(registered, name, config, agent, says):
    with pytest.raises(UserError, match=says):
        agents.register(name, config, agent)
    assert "mine" not in agents.list_agents()
