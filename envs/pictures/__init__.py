"""Pictures and solids of environments."""
