"""An agent of a user's own, in a module outside our folders, through the whole command."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

AGENT = '''
"""Random search: the best of so many random policies."""

from dataclasses import dataclass

import agents
import jax
import numpy as np
from agents.policies.network import Network, NetworkConfig, Weights
from es_rl.play.stage import open_stage


@dataclass(frozen=True)
class RandomSearchConfig:
    """Settings of random search."""

    tries: int = 2
    """The number of policies that an iteration draws."""
    spread: float = 1.0
    """The standard deviation of their parameters."""


class RandomSearchAgent(agents.Agent):
    summary = "random search in all directions"

    def __init__(self, name, env, config):
        self.name, self.env, self.config = name, env, config
        network = NetworkConfig(hidden=(4,), normalize_observations=False)
        self.network = Network(env.spec.observation_space, env.spec.action_space, network)
        self.stage = open_stage(env)
        self._play = agents.Evaluator(env, self.network, self.stage)

    def _draw(self, key):
        leaves, tree = jax.tree.flatten(self.network.init(key))
        seed = np.asarray(jax.random.key_data(key))
        draws = [np.random.default_rng([*seed, i]) for i in range(len(leaves))]
        noise = [d.normal(0, self.config.spread, x.shape) for d, x in zip(draws, leaves)]
        return jax.tree.unflatten(tree, [n.astype(np.float32) for n in noise])

    def init(self, key):
        return self._draw(key), np.float32(-np.inf), key, np.int32(0)

    def compile(self, state):
        self._play.compile(self.snapshot(state).weights, episodes=8)

    def step(self, state, notify=None):
        best, best_return, key, done = state
        steps, returns = 0, []
        for i in range(self.config.tries):
            params = self._draw(jax.random.fold_in(jax.random.fold_in(key, done), i))
            played = self._play(self._weights(params), episodes=8, seed=int(done) + 1)
            steps, returns = steps + int(played.lengths.sum()), [*returns, played.mean]
            if played.mean > best_return:
                best, best_return = params, np.float32(played.mean)
        metrics = {"env_steps": steps, "return_mean": float(np.mean(returns))}
        return (best, best_return, key, np.int32(done + 1)), metrics

    def _weights(self, params):
        nothing = np.zeros(0, np.float32)
        return Weights(params, nothing, nothing)

    def snapshot(self, state):
        return agents.Policy(self.env.spec, self.network, self._weights(state[0]), agent=self.name)


agents.register("random_search", RandomSearchConfig, RandomSearchAgent)
'''
SUITE = """
modules = ["my_search"]
agents = ["random_search"]
[[tasks]]
env = "probe/policy_reward"
threshold = 100
env_steps = 300
seconds = 60
"""
OWN = ("--import", "my_search", "--agent", "random_search")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "my_search.py").write_text(AGENT)
    (folder / "small.toml").write_text(SUITE)
    return folder


def es_rl(place, *arguments):
    command = [sys.executable, "-m", "experiments.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=place, timeout=300)


def weights_of(run):
    return (run / "policy" / "weights.safetensors").read_bytes()


def test_it_trains_with_its_flags_and_goes_on_with_the_same_bits(place):
    train = ("train", "probe/policy_reward", *OWN, "--spread", 3, "--eval-episodes", 4)
    whole = es_rl(place, *train, "--env-steps", 600, "--out", place / "whole")
    assert whole.returncode == 0, whole.stderr
    assert "random search in all directions\n" in whole.stdout
    config = json.loads((place / "whole" / "config.json").read_text())
    assert config["settings"] == {"tries": 2, "spread": 3.0}
    assert config["env_steps"] == 600

    run = place / "run"
    assert es_rl(place, *train, "--env-steps", 200, "--out", run).returncode == 0
    unknown = es_rl(place, "train", "--resume", run)
    assert unknown.returncode == 2
    assert "agent='random_search': must be one of eggroll" in unknown.stderr
    resume = ("train", "--resume", run, "--import", "my_search", "--env-steps", 600)
    other = es_rl(place, *resume, "--spread", 2)
    assert other.returncode == 2
    assert other.stderr == (
        "es-rl train: error: --spread 2.0: must be 3.0, as the run began with it\n"
    )
    resumed = es_rl(place, *resume)
    assert resumed.returncode == 0, resumed.stderr
    assert weights_of(run) == weights_of(place / "whole")
    replayed = es_rl(place, "replay", run, "--json", "--episodes", 4)
    saved = json.loads((run / "policy" / "policy.json").read_text())["evaluation"]
    assert json.loads(replayed.stdout)["returns"] == saved["returns"]


def test_its_flags_are_shown_and_checked(place):
    shown = es_rl(place, "train", *OWN, "--help")
    assert shown.returncode == 0
    assert "The standard deviation of their parameters." in shown.stdout
    wrong = es_rl(place, "train", "probe/policy_reward", *OWN, "--spread", "nan")
    assert wrong.returncode == 2
    assert "es-rl train: error: --spread nan: must be finite" in wrong.stderr
    unknown = es_rl(place, "train", "probe/policy_reward", "--agent", "random_serach")
    assert unknown.returncode == 2
    assert "--agent random_serach: must be one of eggroll" in unknown.stderr


def test_it_is_compared(place):
    done = es_rl(place, "compare", "small.toml", "--seeds", 1, "--out", place / "compared")
    assert done.returncode == 0, done.stderr
    assert "probe/policy_reward random_search seed 0: " in done.stdout
    assert "failed" not in done.stdout
