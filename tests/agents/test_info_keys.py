"""Scalars in the info of an episode's last step, from the environment to the metrics."""

import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import agents
import envs
from envs.errors import UserError
from experiments import cli
from tests.agents.signs import Signs

SMALL = {"population_size": 8, "hidden": ()}
PPO = {"num_envs": 4, "num_steps": 8, "minibatch_size": 16, "num_epochs": 1, "hidden": ()}
LENGTH = 4
KEYS = ["steps", "reward/last"]


class OnHost(Signs):
    """Pays for the last action; the info counts, and has the last reward."""

    def step(self, action):
        right = self._is_right(action)
        over = self._steps == LENGTH
        paid = float(over and right)
        info = {"steps": self._steps, "reward/last": np.float32(paid), "text": "far"}
        return self._next(), paid, over, False, info


class OnDevice:
    """The same: a probe that reports."""

    def __init__(self, max_episode_steps=LENGTH):
        self._probe = envs.make("probe/delayed_reward", max_episode_steps=max_episode_steps)
        self.spec = self._probe.spec
        self.render, self.scene = self._probe.render, self._probe.scene

    def reset(self, key):
        return self._reporting(self._probe.reset(key))

    def step(self, state, action, key):
        return self._reporting(self._probe.step(state, action, key))

    def _reporting(self, state):
        info = {"steps": state.steps, "reward/last": state.reward, "vector": jnp.zeros(2)}
        return state.replace(info={**state.info, **info})


envs.register("reports/host", OnHost)
envs.register("reports/device", OnDevice)
BOTH = pytest.mark.parametrize("name", ["reports/host", "reports/device"])


def trained(name, agent="eggroll", settings=SMALL, **kwargs):
    """The result of two generations, and the metrics of the last."""
    shown = []
    env = envs.make(name, **kwargs, **({"workers": 1} if name == "reports/host" else {}))
    with agents.make(agent, env, **settings) as made:
        result = agents.train(
            made,
            env_steps=33,
            eval_episodes=8,
            on_generation=lambda metrics, snapshot: shown.append(metrics),
        )
    return result, shown[-1]


@BOTH
@pytest.mark.parametrize(("agent", "settings"), [("eggroll", SMALL), ("ppo", PPO)])
def test_their_means_are_logged_in_training_and_in_evaluation(name, agent, settings):
    result, last = trained(name, agent, settings, info_keys=KEYS)
    assert last["info_steps_mean"] == last["eval_info_steps_mean"] == LENGTH
    # Only the last step pays.
    assert last["info_reward/last_mean"] == pytest.approx(last["return_mean"], abs=1e-6)
    assert last["eval_info_reward/last_mean"] == last["eval_return_mean"]
    assert last["eval_return_mean"] > 0
    np.testing.assert_array_equal(
        result.evaluation.info["reward/last"], np.float32(result.evaluation.returns)
    )


@BOTH
def test_they_change_nothing_else(name):
    plain, shown = trained(name)
    assert not any("info" in metric for metric in shown)
    reporting, _ = trained(name, info_keys=KEYS)
    leaves = jax.tree.leaves(plain.policy.weights), jax.tree.leaves(reporting.policy.weights)
    assert all(map(np.array_equal, *leaves))
    assert "info_keys" not in plain.policy.spec.kwargs


def test_ppo_logs_success_in_training():
    _, last = trained("reports/device", "ppo", PPO)
    assert last["success_rate"] == pytest.approx(last["return_mean"])


def test_what_no_episode_reports_on_the_host_is_said_and_not_logged(caplog):
    with caplog.at_level(logging.WARNING, "es_rl"):
        _, last = trained("reports/host", info_keys=["steps", "distance"])
    assert last["info_steps_mean"] == LENGTH
    assert not any("distance" in metric for metric in last)
    told = [r.getMessage() for r in caplog.records if "info['distance']" in r.getMessage()]
    assert len(told) == 2  # by training and by evaluation, not in every generation
    assert "no episode has ended with info['distance'], which info_keys names" in told[0]


def test_what_is_no_number_is_refused():
    with pytest.raises(UserError, match=r"step 4 .* returned info\['text'\]='far': must be one nu"):
        trained("reports/host", info_keys=["text"])


@pytest.mark.parametrize(
    ("name", "keys", "told"),
    [
        ("reports/device", ["distance"], "report 'distance': must be of reward/last, steps$"),
        ("reports/device", ["vector"], "does not report 'vector'"),
        ("probe/recall", ["distance"], "does not report 'distance': must be of none"),
        ("reports/device", "steps", "info_keys='steps': must be a list of different names"),
        ("reports/device", ["steps", "steps"], "must be a list of different names"),
        ("reports/host", ["success"], "without success, which is logged anyway"),
    ],
)
def test_keys_that_cannot_be_logged_are_refused_when_the_environment_is_made(name, keys, told):
    with pytest.raises(UserError, match=told):
        envs.make(name, info_keys=keys)


def test_metrics_of_brax_are_infos():
    env = envs.make("brax/hopper", backend="positional", info_keys=["x_position"])
    state = jax.eval_shape(env.reset, jax.random.key(0))
    assert state.info["x_position"].shape == ()
    assert env.spec.kwargs == {"backend": "positional", "info_keys": ["x_position"]}
    plain = envs.make("brax/hopper", backend="positional")
    assert jax.eval_shape(plain.reset, jax.random.key(0)).info == {}
    with pytest.raises(UserError, match="does not report 'y': must be of .*x_position"):
        envs.make("brax/hopper", backend="positional", info_keys=["y"])


@pytest.mark.parametrize(
    "name", ["reports/device", pytest.param("reports/host", marks=pytest.mark.slow)]
)
def test_the_commands_log_them_and_a_replay_tells_them_again(name, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = ["train", name, "--env-steps", "9", "--eval-episodes", "4", "--out", str(run)]
    arguments += ["--population-size", "8", "--hidden", "--info-keys", *KEYS]
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0
    assert json.loads((run / "config.json").read_text())["env_kwargs"] == {"info_keys": KEYS}
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["replay", str(run), "--episodes", "4", "--json"])
    played = json.loads(capsys.readouterr().out)
    assert played["info_steps_mean"] == last["eval_info_steps_mean"] == LENGTH
    assert played["info_reward/last_mean"] == last["eval_info_reward/last_mean"]
