"""What stands behind `es-rl benchmark`: the engine and its alternatives, timed side by side."""
