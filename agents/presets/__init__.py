"""Tuned settings for environments."""
