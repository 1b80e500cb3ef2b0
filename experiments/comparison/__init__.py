"""The code of `es-rl compare`: the runs of a suite, statistics over their seeds, and the report."""
