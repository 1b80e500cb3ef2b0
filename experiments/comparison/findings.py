"""The sentences and tables of a comparison's report, made from its results."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Literal, TypeAlias

from experiments.comparison import imported
from experiments.comparison.results import Results, Run, Task
from experiments.comparison.statistics import (
    RESAMPLES,
    Aggregate,
    Estimate,
    Unit,
    aggregate,
    chance_of_better,
    comparable,
    difference,
    final_return,
    final_score,
    has_relative_scale,
    improvement,
    mean,
    relative_score,
    spent_until,
    times_as_long,
    to_threshold,
)
from experiments.comparison.tables import (
    COVERAGE,
    TextTable,
    absence,
    estimate_text,
    failures,
    number,
    quantity,
    ratio_text,
    to_threshold_text,
)

Outcome: TypeAlias = Literal["better", "worse", "no clear difference", "too few seeds"]


def outcome(results: Results, task: Task, agent: str, other: str) -> Outcome | None:
    """Whether an agent is better than another on a task, judged by the interval of the
    difference."""
    found, _ = _judged(results, task, agent, other)
    if found is None:
        return None
    if found.interval is None:
        return "too few seeds"
    low, high = found.interval
    neutral = 0.5 if task.stop_when_solved else 0.0
    return "better" if low > neutral else "worse" if high < neutral else "no clear difference"


def summary(results: Results) -> list[str]:
    """The sentences at the top of the report: what was run, the first agent against the others, and
    scores."""
    total, failed = len(results.runs), len(results.failed())
    agents = ", ".join(results.label(agent) for agent in results.agents)
    tasks = _count(len(results.tasks), "task")
    return [
        f"{agents} on {tasks}: {_count(total, 'run')}, {failed} failed.",
        *(_against(results, results.agents[0], other) for other in results.agents[1:]),
        _solved(results),
        *_scored(aggregate(results)),
    ]


def head_to_head(results: Results) -> TextTable | None:
    """The first agent against each other agent, task by task; None if there is only one agent."""
    if len(results.agents) < 2:
        return None
    first, *others = results.agents
    rows = []
    for task in results.tasks:
        cells = [_outcome_text(results, task, first, other) for other in others]
        rows.append((task.name, *cells))
    return TextTable(
        f"{results.label(first)} against each other agent",
        ("task", *(f"against {results.label(other)}" for other in others)),
        tuple(rows),
        (
            "By the final return: the difference of interquartile means. Where runs stop when "
            "solved: P, the probability of solving the task in fewer seconds of training. Better "
            "or worse: the interval leaves out 0, or 0.5 for P. Each stands for itself; of twenty "
            "that say 95 %, one may well be wrong.",
        ),
    )


def scores_table(found: Aggregate) -> TextTable | None:
    """Normalised scores over all tasks; None if there are no scores."""
    if not found.scores:
        return None
    rows = tuple((found.labels[a], estimate_text(score)) for a, score in found.scores.items())
    return TextTable(
        "Normalised score",
        ("agent", "IQM over tasks and seeds"),
        rows,
        (f"0 is random actions, 1 the threshold. Tasks: {', '.join(found.tasks)}.",),
    )


def relative_table(results: Results) -> TextTable | None:
    """Scores relative to one of the agents, beside published ones; None if there is no such agent.

    The tasks that are not run have a row too.
    """
    one = results.relative_to
    if not one:
        return None
    ours = [agent for agent in results.agents if agent != one]
    names = list(dict.fromkeys((*results.published, *(task.name for task in results.tasks))))
    published = {name: results.published.get(name, {}) for name in names}
    theirs = list(dict.fromkeys(agent for scores in published.values() for agent in scores))
    run = {task.name: task for task in results.tasks}
    scored = [task for task in results.tasks if has_relative_scale(results, task)]
    rows = [
        (
            name,
            *(_relative_text(results, run.get(name), agent) for agent in ours),
            *(_published_mean(published, [name], agent) for agent in theirs),
        )
        for name in names
    ]
    means = [estimate_text(relative_score(results, scored, agent)) for agent in ours]
    of_scored = [_published_mean(published, [t.name for t in scored], agent) for agent in theirs]
    of_all = [_published_mean(published, names, agent) for agent in theirs]
    rows.append((f"mean of the {len(scored)} with scores", *means, *of_scored))
    rows.append((f"mean of all {len(names)}", *("-" for _ in ours), *of_all))
    return TextTable(
        f"Score relative to {one}",
        ("task", *map(results.label, ours), *(f"{agent}, published" for agent in theirs)),
        tuple(rows),
        (
            f"0 is random actions, 1 the mean return of {one} over seeds: (m - r) / (p - r), with "
            "the mean returns m of the agent, p of that agent and r of random actions. There is "
            f"no score where {one} is not better than random actions. Published scores are not of "
            "these runs, and may be of other budgets.",
        ),
    )


def _relative_text(results: Results, task: Task | None, agent: str) -> str:
    """An agent's relative score on a task, or why there is none."""
    if task is None:
        return "not run"
    if not results.of(task.name, agent):
        failed = failures(results, task.name, agent)
        return absence(results, task.name, agent) if failed else "not run"
    return estimate_text(relative_score(results, [task], agent))


def _published_mean(
    published: Mapping[str, Mapping[str, float]], tasks: Sequence[str], agent: str
) -> str:
    """The mean over tasks of an agent's published scores; "-" unless each task has one."""
    found = [published[task][agent] for task in tasks if agent in published[task]]
    return number(sum(found) / len(found)) if found and len(found) == len(tasks) else "-"


def improvement_table(results: Results) -> TextTable | None:
    """P(X > Y) of every pair of agents; None if no two agents have a task in common."""
    rows = []
    for agent, other in combinations(results.agents, 2):
        found = improvement(results, agent, other)
        if found is not None:
            chance = estimate_text(found.probability)
            pair = f"P({results.label(agent)} > {results.label(other)})"
            rows.append((pair, chance, str(len(found.tasks))))
    if not rows:
        return None
    return TextTable(
        "Probability of improvement",
        ("of X over Y", "probability", "tasks"),
        tuple(rows),
        (
            "How likely a run of X is better than a run of Y on a task that both play, the mean "
            "over these tasks: by the final return or, where runs stop when solved, by seconds. A "
            "tie counts half. An interval of one point says that every "
            "resample agrees, which few seeds soon do, and not that it is certain.",
        ),
    )


def returns_table(results: Results, task: Task) -> TextTable:
    """The final returns on a task."""
    rows = []
    for agent in results.agents:
        middle, label = final_return(results, task.name, agent), results.label(agent)
        if middle is None:
            rows.append((label, absence(results, task.name, agent), "-", "-", "-"))
            continue
        average = final_return(results, task.name, agent, mean)
        score_text = estimate_text(final_score(results, task, agent))
        seeds = _seeds(results, task.name, agent)
        rows.append((label, estimate_text(middle), estimate_text(average), score_text, seeds))
    return TextTable(
        "Return of the final evaluation",
        ("agent", "IQM", "mean", "score", "seeds"),
        tuple(rows),
    )


def times_table(results: Results, task: Task) -> TextTable:
    """The time and env steps that agents need to reach the threshold of a task."""
    units: tuple[Unit, ...] = ("seconds", "device_seconds", "env_steps")
    rows: list[tuple[str, ...]] = []
    for agent in results.agents:
        found = {unit: to_threshold(results, task, agent, unit) for unit in units}
        first, label = found["env_steps"], results.label(agent)
        if first is None:
            rows.append((label, absence(results, task.name, agent), "-", "-", "-", "-"))
            continue
        reached = f"{first.reached} of {first.seeds}"
        cells = [to_threshold_text(times, unit) for unit, times in found.items()]
        rows.append((label, reached, *cells, _times_as_long(results, task, agent)))
    head = ("agent", "seeds that do", "seconds", "device-seconds", "env steps")
    return TextTable(
        f"Until an evaluation reaches {number(task.threshold)}",
        (*head, f"times the seconds of {results.label(results.agents[0])}"),
        tuple(rows),
        (
            "Medians over seeds. A to B: at A was the last evaluation below the threshold, at B "
            "the first at or above it, and nobody looked between them; a ratio of two such times "
            "has as wide a range. Intervals reach from the low end for A to the high end for B. "
            "With > it is longer than that: too few seeds got there.",
        ),
    )


def _times_as_long(results: Results, task: Task, agent: str) -> str:
    """The ratio of an agent's time to the threshold to that of the first agent, as text."""
    first = results.agents[0]
    ours, theirs = (to_threshold(results, task, name, "seconds") for name in (first, agent))
    if agent == first or ours is None or theirs is None:
        return "-"
    return ratio_text(times_as_long(ours, theirs))


def failed_table(results: Results) -> TextTable | None:
    """The runs that failed; None if none did."""
    rows = tuple((r.task, r.agent, str(r.seed), r.error or "") for r in results.failed())
    return (
        TextTable("They have no return", ("task", "agent", "seed", "error"), rows) if rows else None
    )


def runs_table(results: Results) -> TextTable:
    """One row for each run."""
    head = ("task", "agent", "seed", "return", "episodes", "env steps", "seconds", "devices")
    more = ("device-seconds", "compilation", "evaluation")
    notes = ("The first seed compiles for those after it.",)
    rows = tuple(_run_cells(run, results.label(run.agent)) for run in results.runs)
    return TextTable("One row a run", head + more, rows, notes)


def tasks_table(results: Results) -> TextTable:
    """The tasks, their thresholds, scales of scores, and budgets."""
    rows = []
    for task in results.tasks:
        kwargs = ", ".join(f"{name}={value}" for name, value in task.env_kwargs.items())
        if task.train_env_kwargs:
            own = ", ".join(f"{name}={value}" for name, value in task.train_env_kwargs.items())
            kwargs = f"{kwargs}; in training {own}".removeprefix("; ")
        if task.name != task.env:
            kwargs = f"{task.env} {kwargs}".strip()
        scale = "-" if task.random_return is None else number(task.random_return)
        stop = "yes" if task.stop_when_solved else "no"
        budget = (quantity(task.env_steps, "env_steps"), quantity(task.seconds, "seconds"))
        evaluated = f"{task.evaluations} times, {task.evaluation_episodes} episodes"
        row = (task.name, kwargs or "-", number(task.threshold), scale, *budget, evaluated, stop)
        rows.append(row)
    budgets = ("env steps", "seconds", "evaluated", "stops when solved")
    head = ("task", "arguments", "threshold", "random", *budgets)
    return TextTable("Tasks and budgets", head, tuple(rows))


def protocol(results: Results) -> list[str]:
    """Sentences on how the comparison was measured, and on how far to trust the intervals."""
    made = [run for run in results.runs if run.error is None and not run.imported_from]
    episodes = sorted({len(run.returns) for run in made})
    counts = " or ".join(map(str, episodes)) or "no"
    trained = any(task.train_env_kwargs for task in results.tasks)
    return [
        "All agents play the same environments: the same versions, arguments and horizon."
        + (" Arguments of training hold for no evaluation." if trained else ""),
        "An evaluation is of the policy without noise, and without sampling unless its setting "
        "stochastic_evaluation is true, on episodes whose seeds "
        f"training never uses. The final one ({counts} episodes) has seeds that no evaluation "
        "before it used, and alone decides the returns; those during training decide when the "
        "threshold was reached.",
        "Seconds are of training. Compilation and evaluation are measured apart, and listed with "
        "every run. A run ends with whichever of its budgets, env steps or seconds, is spent "
        "first; on tasks where runs stop when solved, with the evaluation that reaches the "
        "threshold. Then agents are compared by the seconds to it, the final return says little "
        "more than that it was reached, and no score counts as more than 1.",
        "A threshold is reached after the last evaluation below it and not after the first at or "
        "above it. Both times are given, as nothing is known of what lies between them; a lucky "
        "evaluation counts. P compares runs by the latter: differences smaller than the time "
        "between two evaluations mean little.",
        "A run that failed is listed as failed. It has no return, and no number contains one.",
        f"Intervals are 95 % percentiles of {RESAMPLES:,} bootstrap resamples of the seeds, within "
        f"each task and agent (Agarwal et al. 2021, arXiv 2108.13264). {COVERAGE}",
        *_machines(results),
        *imported.notes(results),
    ]


def _machines(results: Results) -> list[str]:
    """A sentence on the machines, if there are several."""
    count = Counter(run.machine or "not recorded" for run in results.runs if run.error is None)
    if len(count) < 2:
        return []
    named = "; ".join(f"{name}: {_count(runs, 'run')}" for name, runs in count.items())
    return [f"Runs were on several machines, whose seconds are not comparable. {named}."]


def _run_cells(run: Run, label: str) -> tuple[str, ...]:
    start = (run.task, label, str(run.seed))
    if run.error is not None:
        return (*start, "failed", *("-",) * 7)
    if run.imported_from:
        spent = "-" if run.seconds is None else quantity(run.seconds, "seconds")
        return (*start, number(run.return_mean), "-", f"{run.env_steps:,}", spent, *("-",) * 4)
    seconds = (run.compile_seconds, run.evaluation_seconds)
    return (
        *(*start, number(run.return_mean), str(len(run.returns))),
        *(f"{run.env_steps:,}", quantity(spent_until(run, None, "seconds"), "seconds")),
        str(run.devices),
        quantity(spent_until(run, None, "device_seconds"), "device_seconds"),
        *(quantity(value, "seconds") for value in seconds),
    )


def _against(results: Results, agent: str, other: str) -> str:
    found = {task.name: outcome(results, task, agent, other) for task in results.tasks}
    outcomes: tuple[tuple[Outcome, str], ...] = (
        ("better", "clearly better on"),
        ("worse", "clearly worse on"),
        ("no clear difference", "no clear difference on"),
        ("too few seeds", "too few seeds to tell on"),
    )
    parts = []
    for kind, words in outcomes:
        tasks = [name for name, said in found.items() if said == kind]
        if tasks:
            parts.append(f"{words} {', '.join(tasks)}")
    both = f"{results.label(agent)} against {results.label(other)}"
    return f"{both}: {'; '.join(parts) or 'no task in common'}."


def _solved(results: Results) -> str:
    parts = []
    for agent in results.agents:
        found = [to_threshold(results, task, agent, "env_steps") for task in results.tasks]
        played = [times for times in found if times is not None]
        solved = sum(not times.median.exceeded for times in played)
        parts.append(f"{results.label(agent)} on {solved} of {len(played)}")
    return f"The median seed reaches the threshold: {', '.join(parts)} tasks played."


def _scored(found: Aggregate) -> Iterable[str]:
    if found.scores:
        scores = ", ".join(f"{found.labels[a]} {estimate_text(s)}" for a, s in found.scores.items())
        tasks = _count(len(found.tasks), "task")
        yield f"Normalised score on the {tasks} that all play, 1 at the threshold: {scores}."


def _judged(results: Results, task: Task, agent: str, other: str) -> tuple[Estimate | None, str]:
    """The estimate that compares two agents on a task, and the name of the quantity."""
    if not all(comparable(results, task, name) for name in (agent, other)):
        return None, ""
    if not task.stop_when_solved:
        return difference(results, task.name, agent, other), ""
    return chance_of_better(results, [task], agent, other), "P "


def _outcome_text(results: Results, task: Task, agent: str, other: str) -> str:
    found, name = _judged(results, task, agent, other)
    said = outcome(results, task, agent, other)
    return "-" if said is None else f"{said}: {name}{estimate_text(found)}"


def _seeds(results: Results, task: str, agent: str) -> str:
    failed = failures(results, task, agent)
    return f"{len(results.of(task, agent))}" + (f" ({failed} failed)" if failed else "")


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
