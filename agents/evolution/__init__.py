"""The agents that evolve a policy."""
