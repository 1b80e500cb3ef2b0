"""Random search, an agent of one's own, whose settings are flags of the command."""

from dataclasses import dataclass

import jax
import numpy as np

import agents
from agents.policies.network import Network, NetworkConfig, Weights
from es_rl.play.stage import open_stage


@dataclass(frozen=True)
class SearchConfig:
    trials: int = 8
    """Episodes that a candidate plays."""
    step_size: float = 0.5
    """Standard deviation of the step from the best candidate to the next one."""


class RandomSearch(agents.Agent):
    def __init__(self, name, env, config):
        self.name, self.env, self.config, self.stage = name, env, config, open_stage(env)
        spaces, settings = (env.spec.observation_space, env.spec.action_space), {"hidden": ()}
        self.network = Network(*spaces, NetworkConfig(normalize_observations=False, **settings))
        self.evaluate = agents.Evaluator(env, self.network, self.stage)

    def init(self, key):
        params = jax.tree.map(np.array, self.network.init(key))
        return {"params": params, "score": np.float32(-1e9), "count": np.int32(0)}

    def compile(self, state):
        self.evaluate.compile(self.snapshot(state).weights, episodes=self.config.trials)

    def step(self, state, notify=None):
        rng, size = np.random.default_rng(int(state["count"])), self.config.step_size
        step = jax.tree.map(lambda x: np.float32(rng.normal(0, size, x.shape)), state["params"])
        tried = {"params": jax.tree.map(np.add, state["params"], step)}
        weights, seed = self.snapshot(tried).weights, int(state["count"]) + 1
        played = self.evaluate(weights, episodes=self.config.trials, seed=seed)
        tried["score"] = np.float32(played.mean)
        best = max(state, tried, key=lambda each: each["score"])
        metrics = {"env_steps": int(played.lengths.sum()), "return_mean": played.mean}
        return {**best, "count": np.int32(seed)}, metrics

    def snapshot(self, state):
        nothing = np.zeros(0, np.float32)
        weights = Weights(state["params"], nothing, nothing)
        return agents.Policy(self.env.spec, self.network, weights, agent=self.name)


agents.register("random_search", SearchConfig, RandomSearch)
