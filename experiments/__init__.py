"""What a person runs: the `es-rl` command and what stands behind it."""
