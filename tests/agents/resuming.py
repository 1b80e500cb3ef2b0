"""Runs that end at once in some generation, and what two runs have in common."""

import json

import jax

from agents.training.evaluation import Evaluator

TIMES = ("wall_seconds", "evaluation_seconds", "steps_per_second")
"""Metrics that differ between equal runs."""


class Crash(BaseException):
    """Ends a run at once: no `except Exception` sees it."""


def crash_in(generation):
    def on_generation(metrics, snapshot):
        if metrics["generation"] == generation:
            raise Crash

    return on_generation


def metrics_of(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def weights_of(run, name="policy"):
    return (run / name / "weights.safetensors").read_bytes()


def evaluator_of(agent):
    """What is compiled for an evaluation serves all of the runs."""
    actor = agent.snapshot(agent.init(jax.random.key(0))).actor
    return Evaluator(agent.env, actor, agent.stage)
