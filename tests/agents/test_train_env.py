"""Training on an environment of its own: who plays which, what is logged, and how a run resumes."""

import json
import re
from functools import cache, partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import agents
import envs
from agents import registry
from envs.base import EnvSpec, State, time_limited
from envs.errors import UserError
from experiments import cli
from experiments.commands import train
from tests.agents.resuming import Crash, crash_in, evaluator_of, metrics_of, weights_of

LENGTH = 4
BONUS = {"bonus": 10.0}
SMALL = {"population_size": 8, "hidden": ()}
PPO = {"num_envs": 4, "num_steps": 8, "minibatch_size": 16, "num_epochs": 1, "hidden": ()}
SETTINGS = {"eggroll": SMALL, "ppo": PPO}


class OnHost(gymnasium.Env):
    """Pays the action (0 or 1) and a bonus in every step; with a bonus every episode succeeds."""

    def __init__(self, bonus=0.0, seen=1, actions=2):
        self.bonus = bonus
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (seen,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(actions)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def _observe(self):
        return self.np_random.choice([-1.0, 1.0], self.observation_space.shape).astype(np.float32)

    def step(self, action):
        self.steps += 1
        paid = float(action) + self.bonus
        info = {"success": paid > 5, "paid": paid}
        return self._observe(), paid, self.steps == LENGTH, False, info


class OnDevice:
    """The same on the accelerator."""

    def __init__(self, bonus=0.0, seen=1, actions=2):
        self.bonus = bonus
        box = gymnasium.spaces.Box(-1.0, 1.0, (seen,), np.float32)
        self.spec = EnvSpec("apart/device", box, gymnasium.spaces.Discrete(actions), LENGTH)

    def reset(self, key):
        false, zero = jnp.zeros((), bool), jnp.float32(0)
        return State({}, self._observe(key), zero, false, false, jnp.int32(0), self._info(zero))

    def _observe(self, key):
        return jax.random.rademacher(key, self.spec.observation_space.shape, jnp.float32)

    def _info(self, paid):
        return {"success": paid > 5, "paid": paid}

    def step(self, state, action, key):
        steps, paid = state.steps + 1, jnp.float32(action + self.bonus)
        ended = time_limited(steps, steps == LENGTH, LENGTH)
        return State({}, self._observe(key), paid, *ended, steps, self._info(paid))

    def render(self, states):
        raise NotImplementedError

    scene = render


envs.register("apart/host", OnHost)
envs.register("apart/device", OnDevice)
BOTH = pytest.mark.parametrize("place", ["host", "device"])


def make_env(place, **kwargs):
    return envs.make(f"apart/{place}", **kwargs, **({"workers": 1} if place == "host" else {}))


def make(name, place, **kwargs):
    """An agent that trains with a bonus."""
    train_env = make_env(place, **BONUS, **kwargs)
    return agents.make(name, make_env(place, **kwargs), train_env=train_env, **SETTINGS[name])


@BOTH
@pytest.mark.parametrize("name", SETTINGS)
def test_training_plays_it_and_evaluations_the_real_one(name, place):
    """Otherwise training would not see the bonus, or a return with a bonus would pass for the
    task's."""
    shown = []
    with make(name, place, info_keys=["paid"]) as agent:
        result = agents.train(
            agent,
            env_steps=97,
            target_return=30.0,  # which only training reaches
            eval_every=100,
            eval_episodes=8,
            on_generation=lambda metrics, snapshot: shown.append(metrics),
        )
    assert len(shown) == 4
    for metrics in shown:
        assert 40 <= metrics["train_env_return_mean"] <= 44
        assert metrics["train_env_return_min"] >= 40
        assert metrics["train_env_success_rate"] == 1
        assert 10 <= metrics["train_env_info_paid_mean"] <= 11
        assert not any(k.startswith(("return_", "success_rate", "info_")) for k in metrics)
    # Returns of training neither end the run nor call for an evaluation.
    assert ["eval_return_mean" in metrics for metrics in shown] == [True, False, False, True]
    assert 0 <= shown[-1]["eval_return_mean"] == result.evaluation.mean <= LENGTH
    assert shown[-1]["eval_success_rate"] == 0
    assert 0 <= shown[-1]["eval_info_paid_mean"] <= 1
    assert result.policy.spec.kwargs == {"info_keys": ["paid"]}


@pytest.mark.parametrize("name", SETTINGS)
def test_parameters_are_those_of_training_there_alone(name):
    """Otherwise some part of training would still play the environment of evaluations."""
    with make(name, "device") as agent:
        apart, metrics = agent.step(agent.init(jax.random.key(0)))
        apart = agent.snapshot(apart)
    with agents.make(name, make_env("device", **BONUS), **SETTINGS[name]) as agent:
        alone, expected = agent.step(agent.init(jax.random.key(0)))
        alone = agent.snapshot(alone)
    assert jax.device_get(metrics) == jax.device_get(expected)
    leaves = jax.tree.leaves(apart.weights), jax.tree.leaves(alone.weights)
    assert all(map(np.array_equal, *leaves))
    assert apart.spec != alone.spec


def test_one_may_be_on_the_accelerator_and_the_other_on_the_host(tmp_path, monkeypatch):
    """Otherwise the programs of training and evaluation would be tied to one place, or a run could
    go on in another environment than it began with."""
    checked = []
    for stage in ("HostStage", "DeviceStage"):
        method = f"es_rl.play.stage.{stage}.check_repeats"
        monkeypatch.setattr(method, lambda stage, actions: checked.append(stage))
    env, train_env, run = make_env("host"), make_env("device", **BONUS), tmp_path / "run"
    with agents.make("eggroll", env, train_env=train_env, **SMALL) as agent:
        result = agents.train(agent, env_steps=33, eval_episodes=4, out=run)
    assert set(checked) == {agent.stage, agent.train_stage}
    assert result.evaluation.mean <= LENGTH
    assert metrics_of(run)[0]["train_env_return_min"] >= 40
    for other in (None, make_env("device", bonus=2.0), make_env("host", **BONUS)):
        with (
            agents.make("eggroll", env, train_env=other, **SMALL) as agent,
            pytest.raises(UserError, match="the run there has train_env"),
        ):
            agents.train(agent, out=run, resume=True)
    # The command makes the environments of a resumed run itself, of one id.
    with pytest.raises(UserError, match="it trains on apart/device, which must be made in Python"):
        train.main(["--resume", str(run)])


@pytest.mark.parametrize(
    ("name", "place"),
    [("eggroll", "device"), pytest.param("ppo", "host", marks=pytest.mark.slow)],
)
def test_killed_and_resumed_is_as_never_stopped(name, place, tmp_path):
    """Otherwise a run would go on in another environment than it began with."""
    budget = {"env_steps": 5 * 32, "eval_every": 2, "eval_episodes": 4, "checkpoint_every": 2}
    whole, run = tmp_path / "whole", tmp_path / "run"
    again = partial(make, name, place)
    if place == "device":  # where a second agent would only compile once more
        again = cache(again)
        budget["evaluator"] = evaluator_of(again())
    with again() as agent:
        agents.train(agent, out=whole, **budget)
    with again() as agent, pytest.raises(Crash):
        agents.train(agent, out=run, on_generation=crash_in(3), **budget)
    with again() as agent:
        agents.train(agent, out=run, resume=True, **budget)
    assert metrics_of(run) == metrics_of(whole)
    for saved in ("policy", "best"):
        assert weights_of(run, saved) == weights_of(whole, saved)


def command(capsys, *arguments):
    """The exit code of `es-rl train`, and what it prints."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", *map(str, arguments)])
    said = capsys.readouterr()
    return ended.value.code, said.out + said.err


FLAGS = ("--population-size", 8, "--hidden", "--eval-episodes", 4)


def test_the_command_trains_and_resumes(tmp_path, capsys):
    """Otherwise `--resume` would lose the arguments of training, or a policy would keep them."""
    run = tmp_path / "run"
    given = ("--env-kwargs", "seen=2", "--train-env-kwargs", "bonus=10.0", "--out", run)
    code, said = command(capsys, "apart/device", *FLAGS, "--env-steps", 32, *given)
    assert code == 0, said
    assert f"evaluation return {metrics_of(run)[-1]['eval_return_mean']:.1f}" in said
    config = json.loads((run / "config.json").read_text())
    assert config["env_kwargs"] == {"seen": 2}
    assert config["train_env"] == "apart/device"
    assert config["train_env_kwargs"] == {"seen": 2, "bonus": 10.0}

    code, said = command(capsys, "--resume", run, "--env-steps", 64)
    assert code == 0, said
    assert len(metrics_of(run)) == 2
    assert metrics_of(run)[1]["train_env_return_min"] >= 40
    policy = agents.load_policy(run)
    assert policy.spec.kwargs == {"seen": 2}
    assert max(policy.evaluation["returns"]) <= LENGTH

    code, said = command(capsys, "--resume", run, "--train-env-kwargs", "bonus=1")
    assert code == 2
    assert "--train-env-kwargs ('bonus=1',): must not be given with --resume" in said


def test_other_flags_hold_for_both_environments(monkeypatch):
    """Otherwise training would have other workers and limits than were asked for."""
    made = []
    monkeypatch.setattr(train, "train_and_report", lambda agent, *_, **__: made.append(agent) or 0)
    flags = ("--workers", 2, "--max-episode-steps", 3, "--env-kwargs", "seen=2")
    train.main([*map(str, ("apart/host", *FLAGS, *flags)), "--train-env-kwargs", "bonus=1"])
    with made[0] as agent:
        assert agent.env.workers == agent.train_env.workers == 2
        both = {"max_episode_steps": 3, "seen": 2}
        assert agent.env.spec.kwargs == both
        assert agent.train_env.spec.kwargs == {**both, "bonus": 1}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("bonus",), "--train-env-kwargs bonus: must be name=value"),
        (("bonus=1", "bonus=2"), "--train-env-kwargs bonus=2: bonus is given twice"),
        (("bonuss=1",), "--train-env-kwargs bonuss=1: .*'bonuss': must be of bonus, seen, actions"),
        (("max_episode_steps=0",), "--train-env-kwargs max_episode_steps=0: .*must be an integer"),
        (("seen=2",), r"--train-env-kwargs seen=2: its observation_space is Box.*\(2,\).*must be"),
        (("actions=3",), r"actions=3: its action_space is Discrete\(3\): must be Discrete\(2\)"),
        (("bonus=1", "--agent", "random"), "bonus=1: random trains on the .* must be left out, or"),
    ],
)
def test_what_is_wrong_with_the_arguments_names_their_flag(arguments, says, tmp_path, capsys):
    """Otherwise a person would look for the mistake in the environment of evaluations."""
    out = tmp_path / "run"
    code, said = command(capsys, "apart/host", "--train-env-kwargs", *arguments, "--out", out)
    assert code == 2
    assert re.search(says, said), said
    assert len(said.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("train_env", "says"),
    [
        (make_env("device", seen=2), r"train_env=apart/device: its observation_space is Box"),
        (make_env("host", actions=3), r"train_env=apart/host: its action_space is Discrete\(3\)"),
        ("apart/device", "train_env='apart/device': must be an environment, as envs.make gives it"),
    ],
)
def test_an_environment_of_other_spaces_is_refused(train_env, says):
    """Otherwise policies would be trained that the task cannot use."""
    with pytest.raises(UserError, match=says):
        agents.make("eggroll", make_env("device"), train_env=train_env)


def test_agents_that_cannot_train_elsewhere_are_refused():
    """Otherwise such an agent would train on the environment of evaluations without a word."""
    able = [name for name in agents.list_agents() if registry.agent_type(name).takes_train_env]
    assert {"eggroll", "open_es", "ppo", "sbx_ppo"} <= set(able)
    env = make_env("device")
    with pytest.raises(UserError, match="zero trains on .* the agent one of eggroll, open_es, ppo"):
        agents.make("zero", env, train_env=env)
