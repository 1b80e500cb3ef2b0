"""Images and 3D scenes of environments."""
