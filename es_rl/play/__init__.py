"""Rollouts: playing the episodes of a population on devices or in worker processes."""
