"""What a person runs: the `es-rl` command and what stands behind it."""

from es_rl.neighbours import check

check(__file__, "agents", "envs", "es_rl")
