"""The numbers, pictures and names of the pages are those of the committed results and the code."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from docs import figures
from experiments.benchmarks.scaling import tables as tables_of_scaling
from experiments.cli import COMMANDS
from experiments.commands.benchmark import Section
from experiments.comparison import results, suites, tables
from experiments.comparison.outputs import write_tables
from experiments.comparison.trials import differing_settings

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
RESULTS = ROOT / "experiments" / "results"
README = (ROOT / "README.md").read_text()
EVERYTHING = README + "".join(page.read_text() for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("name", [path.parent.name for path in RESULTS.glob("*/results.json")])
def test_the_tables_are_made_of_the_results(name, tmp_path):
    folder = RESULTS / name
    write_tables(results.load(folder / "results.json"), tmp_path)
    for path in tmp_path.iterdir():
        if (folder / path.name).exists():
            assert (folder / path.name).read_text() == path.read_text(), path.name
    assert (folder / "table.md").exists()


@pytest.mark.parametrize("name", [path.parent.name for path in RESULTS.glob("*/results.json")])
def test_the_results_are_of_the_settings_of_today(name):
    found = results.load(RESULTS / name / "results.json")
    suite = suites.load(found.suite)
    entries = {entry.task.name: entry for entry in suite.entries}
    agents = {each.name: each for each in suite.contestants}
    # What older results say otherwise and mean alike: with an MLP no activation is tanh, and no
    # memory is used.
    alike = {"activation", "memory"} if name in ("classic", "reference") else set()
    for run in found.runs:
        wanted = entries[run.task].settings_of(agents[run.agent])
        assert {*differing_settings(run, wanted)} <= alike, (run.task, run.agent)


def test_benchmarks_has_the_table_of_classic_control():
    table = tables.markdown_table(results.load(RESULTS / "classic" / "results.json"))
    assert table.strip() in (DOCS / "benchmarks.md").read_text()


def test_the_commands_of_the_results_can_be_typed_anywhere():
    commands = [results.load(path).command for path in RESULTS.glob("*/results.json")]
    assert len(commands) >= 4
    assert not any(" /" in command for command in commands)


@pytest.mark.parametrize("name", ["ablation", "masks", "mujoco", "reference"])
def test_shortened_tables_have_the_numbers_of_the_results(name):
    written = tables.markdown_table(results.load(RESULTS / name / "results.json"))
    measured = {row[2:].split(" ")[0].split("/")[-1]: row for row in written.splitlines()[2:]}
    text = (DOCS / "benchmarks.md").read_text().partition(f"experiments/results/{name}/")[2]
    (shown,) = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)[:1]
    compared = 0
    for row in shown.splitlines()[2:]:
        task, *cells = row.strip("| ").split(" | ")
        numbers = [re.match(r"-?[\d.,]+\d( \[[^]]*\])?", cell) for cell in cells]
        for number in filter(None, numbers):
            assert f"| {number[0]}" in measured[task.split(",")[0]]
            compared += 1
    assert compared >= 6


@pytest.mark.parametrize("name", ["paper", "paper_60s"])
def test_the_scores_of_the_papers_tasks_are_those_of_the_results(name):
    text = (DOCS / "benchmarks.md").read_text().partition(f"experiments/results/{name}/")[2]
    (shown,) = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)[:1]
    lines = shown.splitlines()
    assert len(lines) > 8
    assert {*lines} <= {*(RESULTS / name / "table.md").read_text().splitlines()}


def test_the_rates_beside_the_suites_own_loops_are_those_of_the_results():
    text = (DOCS / "benchmarks.md").read_text()
    measured = json.loads((RESULTS / "benchmark-suites.json").read_text())["tables"]
    assert len(measured) > 8
    for table in measured:
        ours, own = (row["values"]["env steps/s"] for row in table["rows"])
        name = table["title"].removeprefix("(i) ")
        assert f"| {name} | {ours:,.0f} | {own:,.0f} | {ours / own:.2f} |" in text


def test_the_seconds_until_the_first_generation_are_those_of_the_results():
    (table,) = json.loads((RESULTS / "benchmark-starts.json").read_text())["tables"]
    shown = [
        f"| {row['name']} | {row['values']['cold s']:.1f} s | {row['values']['warm s']:.1f} s |"
        for row in table["rows"]
    ]
    assert len(shown) == 4
    text = (DOCS / "benchmarks.md").read_text()
    assert all(line in text for line in shown)
    ant = next(row["values"] for row in table["rows"] if row["name"] == "brax/ant")
    assert f"{ant['cold s']:.0f} seconds" in README
    assert f"{ant['warm s']:.0f} seconds" in README


def test_the_scaling_page_shows_what_was_measured():
    table = tables_of_scaling(json.loads((RESULTS / "scaling" / "scaling.json").read_text()))
    assert (RESULTS / "scaling" / "table.md").read_text() == table
    assert table.strip() in (DOCS / "scaling.md").read_text()


def test_the_headline_is_drawn_from_the_results(tmp_path):
    figures.draw(tmp_path)
    for name in ("headline.svg", "ablation.svg", "networks.png", "scaling.png"):
        assert (tmp_path / name).read_bytes() == (figures.ASSETS / name).read_bytes()


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_commands_agents_and_suites_are_explained():
    # In a process of its own: other tests register agents that the pages know nothing of.
    code = "import agents; print(*agents.list_agents())"
    agents = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    names = agents.stdout.split()
    assert "eggroll" in names
    for name in (*names, *suites.bundled()):
        assert f"`{name}`" in EVERYTHING or f"es-rl compare {name}" in EVERYTHING
    for command in COMMANDS:
        assert f"es-rl {command}" in EVERYTHING


def test_commands_of_the_benchmark_name_its_sections():
    # The tests of the pages run these commands with --help alone, as a whole run takes minutes.
    shown = re.findall(r"^es-rl benchmark([a-z ]*)", EVERYTHING, re.MULTILINE)
    assert len(shown) >= 2
    assert {section for words in shown for section in words.split()} <= {*get_args(Section)}


def test_devices_are_there_after_import_es_rl():
    code = "import es_rl; es_rl.devices.use_cpu_devices(1)"
    subprocess.run([sys.executable, "-c", code], check=True)
