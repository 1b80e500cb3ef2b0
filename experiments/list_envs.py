"""`es-rl envs`: the environments by suite."""

from dataclasses import dataclass

import envs
from agents.presets import tuned_ids
from experiments.cli import parse


@dataclass(frozen=True)
class EnvsFlags:
    """List the environments; * marks those with tuned settings."""

    suite: str | None = None
    """brax, gymnasium or probe; all of them unless given."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    flags: EnvsFlags = parse("envs", EnvsFlags, arguments)
    tuned = tuned_ids()
    for env_id in envs.list_ids(flags.suite):
        print(f"{env_id} *" if env_id in tuned else env_id)
    return 0
