"""Adapters, one file for each suite of environments."""
