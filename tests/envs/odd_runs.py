"""Short runs on the environments of `odd_envs`, for tests."""

import agents
import envs

envs.import_module("tests.envs.odd_envs")

ES = {"population_size": 8, "hidden": ()}
SETTINGS = {
    "eggroll": ES,
    "ppo": {"num_envs": 2, "num_steps": 16, "minibatch_size": 16, "num_epochs": 1, "hidden": ()},
    "random": {"episodes": 2},
}


def make(name, **kwargs):
    return envs.make(f"gymnasium/{name}-v0", **{"workers": 1, **kwargs})


def train(env, agent="eggroll", *, env_steps=80, **settings):
    """A short run: (its result, the metrics of its generations)."""
    made = agents.make(agent, env, **{**SETTINGS[agent], **settings})
    lines = []
    try:
        result = agents.train(
            made,
            env_steps=env_steps,
            eval_every=1,
            eval_episodes=2,
            on_generation=lambda metrics, _: lines.append(metrics),
        )
    finally:
        made.close()
    return result, lines
