"""Agents: policies, the algorithms that train them, and how policies are saved and loaded."""

# ruff: noqa: E402 - the check must run before any import of ours.
from es_rl.neighbours import check

check(__file__, "envs", "es_rl")

from agents.base import Agent
from agents.policies.policy import Policy, load_policy
from agents.policies.spaces import num_outputs
from agents.policies.starting import network_settings
from agents.registry import list_agents, make, register
from agents.training.evaluation import Evaluation, Evaluator, evaluate
from agents.training.loggers import Logger
from agents.training.loop import Diverged, TrainResult
from agents.training.run_config import RunConfig
from agents.training.train import train

__all__ = [
    "Agent",
    "Diverged",
    "Evaluation",
    "Evaluator",
    "Logger",
    "Policy",
    "RunConfig",
    "TrainResult",
    "evaluate",
    "list_agents",
    "load_policy",
    "make",
    "network_settings",
    "num_outputs",
    "register",
    "train",
]
