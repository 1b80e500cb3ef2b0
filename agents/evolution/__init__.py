"""The agents that train a policy with evolution strategies."""
