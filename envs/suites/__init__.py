"""Adapters from suites of environments to the interface in `envs.base`."""
