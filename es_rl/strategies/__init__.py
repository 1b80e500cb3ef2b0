"""Evolution strategies: the protocol, and ours."""

from es_rl.strategies.evolution import ESState, EvolutionStrategy, eggroll, open_es
from es_rl.strategies.strategy import Strategy, StrategyState

__all__ = ["ESState", "EvolutionStrategy", "Strategy", "StrategyState", "eggroll", "open_es"]
