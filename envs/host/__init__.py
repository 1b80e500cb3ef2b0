"""Environments that step on the host: worker processes and the pool that drives them."""
