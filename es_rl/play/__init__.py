"""Rollouts: a population's episodes, on devices or in worker processes."""
