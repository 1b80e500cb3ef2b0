"""`es-rl envs`: the environments by suite."""

from dataclasses import dataclass

import envs
from agents.presets.evolution import tuned_ids
from envs.available import exists, obstacle
from experiments.flags.parsing import parse


@dataclass(frozen=True)
class EnvsFlags:
    """List the environments. A * marks those with tuned settings; those that cannot run here show
    why."""

    suite: str | None = None
    """The name of a suite, such as brax or jumanji; all of them unless given."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    flags: EnvsFlags = parse("envs", EnvsFlags, arguments)
    tuned = tuned_ids()
    for env_id in filter(exists, envs.list_ids(flags.suite)):
        reason = obstacle(env_id)
        star = " *" if env_id in tuned else ""
        print(f"{env_id}{star}{f'  ({reason})' if reason else ''}")
    return 0
