"""What the README shows is what was measured, and what can be typed."""

import json
import re
import subprocess
import sys
from pathlib import Path

from experiments.benchmarks.scaling import tables as tables_of_scaling
from experiments.comparison import results, suites, tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_tables_are_made_of_the_results():
    for name in ("classic", "reference"):
        folder = ROOT / "experiments" / "results" / name
        table = tables.markdown_table(results.load(folder / "results.json"))
        assert (folder / "table.md").read_text() == table
        assert name != "classic" or table.strip() in README


def test_the_scaling_page_shows_what_was_measured():
    folder = ROOT / "experiments" / "results" / "scaling"
    table = tables_of_scaling(json.loads((folder / "scaling.json").read_text()))
    assert (folder / "table.md").read_text() == table
    assert table.strip() in (ROOT / "docs" / "scaling.md").read_text()


def test_commands_and_names_exist():
    commands = set(re.findall(r"^    es-rl ([a-z]+)", README, re.MULTILINE))
    assert commands == {
        "train",
        "replay",
        "compare",
        "tune",
        "export",
        "benchmark",
        "envs",
        "doctor",
        "launch",
    }
    # In a process of its own: other tests register agents that the README knows nothing of.
    code = "import agents; print(*agents.list_agents())"
    agents = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    names = agents.stdout.split()
    assert "eggroll" in names
    for name in (*names, *suites.bundled()):
        assert f"`{name}`" in README


def test_files_that_are_named_are_there():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        paths = r"`((?:tests|agents|envs|es_rl|experiments|docs)/[\w./-]*)`"
        named = re.findall(paths, page.read_text())
        assert [path for path in named if not (ROOT / path).exists()] == []


def test_devices_are_there_after_import_es_rl():
    code = "import es_rl; es_rl.devices.use_cpu_devices(1)"
    subprocess.run([sys.executable, "-c", code], check=True)
