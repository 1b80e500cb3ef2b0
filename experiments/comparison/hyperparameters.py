"""The settings of the agents of a comparison, side by side."""

import json

from experiments.comparison.results import Results, Task
from experiments.comparison.tables import TextTable


def settings_tables(results: Results, task: Task) -> list[TextTable]:
    """The settings of the agents on a task: a table of those that differ between agents, with a
    column for each agent, and one of those that all agents have alike.

    A cell is "-" where an agent has no such setting. Agents that have not played the task, or were
    not run here, have no column. A table without rows is left out.
    """
    of: dict[str, dict[str, str]] = {}
    sources = []
    for agent in results.agents:
        run = next(iter(results.of(task.name, agent)), None)  # all seeds have the same settings
        if run is not None and not run.imported_from:
            of[agent] = {name: json.dumps(value) for name, value in run.settings.items()}
            sources.append(f"{agent}: {run.source or 'source not recorded'}.")
    names = list(dict.fromkeys(name for settings in of.values() for name in settings))
    every = {name: [settings.get(name, "-") for settings in of.values()] for name in names}
    differing = [(name, *cells) for name, cells in every.items() if len(set(cells)) > 1]
    common = [(name, cells[0]) for name, cells in every.items() if len(set(cells)) == 1]
    both = (
        TextTable(
            f"Settings that differ on {task.name}",
            ("setting", *of),
            tuple(differing),
            tuple(sources),
        ),
        TextTable(
            f"Settings of all agents on {task.name}",
            ("setting", "value"),
            tuple(common),
            () if differing else tuple(sources),
        ),
    )
    return [table for table in both if table.rows]
