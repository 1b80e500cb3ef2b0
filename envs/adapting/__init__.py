"""What adapters of suites share: building environments, states, and repairs of dependencies."""
