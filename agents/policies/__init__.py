"""Policies: networks, spaces, and the files that they are saved in."""
