"""The code of `es-rl benchmark`: times of the engine and its alternatives."""
