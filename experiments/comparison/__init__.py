"""What stands behind `es-rl compare`: the runs of a suite, what their seeds say, and the report."""
