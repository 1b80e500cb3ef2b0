"""The engine: low-rank evolution strategies and population rollouts, usable on any function."""

# ruff: noqa: E402 - first check that Python would import this project's own packages.
from es_rl.neighbours import check

check(__file__, "envs")

from importlib.metadata import version

from es_rl import devices
from es_rl.noise import Frozen, Full, Layout, LowRank, Noise, View
from es_rl.noise_report import Description, describe
from es_rl.perturbed import apply_selected, layout, materialize, perturbed_apply, select
from es_rl.shaping import centered_rank, replace_nonfinite, shape_fitness, zscore
from es_rl.strategies import (
    ESState,
    EvolutionStrategy,
    LearnedSigma,
    Strategy,
    SuccessSigma,
    accumulate,
    clip_up,
    eggroll,
    open_es,
)

__all__ = [
    "Description",
    "ESState",
    "EvolutionStrategy",
    "Frozen",
    "Full",
    "Layout",
    "LearnedSigma",
    "LowRank",
    "Noise",
    "Strategy",
    "SuccessSigma",
    "View",
    "accumulate",
    "apply_selected",
    "centered_rank",
    "clip_up",
    "describe",
    "devices",
    "eggroll",
    "layout",
    "materialize",
    "open_es",
    "perturbed_apply",
    "replace_nonfinite",
    "select",
    "shape_fitness",
    "zscore",
]

__version__ = version("es-rl")
