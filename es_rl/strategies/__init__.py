"""Evolution strategies: their protocol, EGGROLL and OpenES, rules for sigma, and an optimiser."""

from es_rl.strategies.evolution import ESState, EvolutionStrategy, eggroll, open_es
from es_rl.strategies.learned_sigma import LearnedSigma, LearnedSigmaState
from es_rl.strategies.optimizers import accumulate, clip_up
from es_rl.strategies.strategy import Strategy, StrategyState
from es_rl.strategies.success_sigma import SuccessSigma, SuccessSigmaState

__all__ = [
    "ESState",
    "EvolutionStrategy",
    "LearnedSigma",
    "LearnedSigmaState",
    "Strategy",
    "StrategyState",
    "SuccessSigma",
    "SuccessSigmaState",
    "accumulate",
    "clip_up",
    "eggroll",
    "open_es",
]
