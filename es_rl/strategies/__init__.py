"""Evolution strategies: the protocol of a strategy, and the strategies EGGROLL and OpenES."""

from es_rl.strategies.evolution import ESState, EvolutionStrategy, eggroll, open_es
from es_rl.strategies.strategy import Strategy, StrategyState

__all__ = ["ESState", "EvolutionStrategy", "Strategy", "StrategyState", "eggroll", "open_es"]
