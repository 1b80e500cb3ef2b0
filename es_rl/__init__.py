"""The engine: low-rank evolution strategies and population rollouts, usable on any function."""

from es_rl.noise import Frozen, Full, LowRank, Noise
from es_rl.perturbed import materialize, perturbed_apply
from es_rl.shaping import centered_rank, replace_nonfinite, shape_fitness, zscore
from es_rl.strategy import ESState, EvolutionStrategy, eggroll, open_es

__all__ = [
    "ESState",
    "EvolutionStrategy",
    "Frozen",
    "Full",
    "LowRank",
    "Noise",
    "centered_rank",
    "eggroll",
    "materialize",
    "open_es",
    "perturbed_apply",
    "replace_nonfinite",
    "shape_fitness",
    "zscore",
]
