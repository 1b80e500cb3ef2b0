"""The subcommands of `es-rl`."""

from pathlib import Path

from es_rl.neighbours import check

check(str(Path(__file__).parent), "agents", "envs", "es_rl")
