"""Trains the agent of one of the modules here: `python -m tests.extend.train MODULE FOLDER`."""

import importlib
import sys

import agents
from es_rl.devices import use_cpu_devices

OPTIONS = {"env_steps": 10**9, "seed": 3, "eval_every": 2, "eval_episodes": 4}
OPTIONS |= {"checkpoint_every": 1, "checkpoint_seconds": None}


def load(name):
    """The module of that name in this folder."""
    return importlib.import_module(f"tests.extend.{name}")


if __name__ == "__main__":
    use_cpu_devices(2)
    module = load(sys.argv[1])
    with module.make_agent() as agent:
        agents.train(agent, out=sys.argv[2], **getattr(module, "TRAIN", {}), **OPTIONS)
