"""What a comparison writes for papers: figures in three formats, LaTeX, settings side by side."""

import re
from dataclasses import replace

import pytest

from experiments.comparison import latex, outputs, tables
from experiments.comparison.figures import _file_names, draw
from experiments.comparison.hyperparameters import settings_tables
from experiments.comparison.latex import escaped
from experiments.comparison.results import Task
from experiments.comparison.tables import TextTable
from tests.experiments.comparison.synthetic import CART_POLE, comparison, results, run


@pytest.fixture(scope="module")
def small():
    """One task of `comparison`."""
    found = comparison(seeds=2)
    runs = tuple(run for run in found.runs if run.task == CART_POLE)
    return replace(found, tasks=found.tasks[:1], runs=runs)


def test_figures_are_png_svg_and_pdf_and_the_same_each_time(small, tmp_path):
    for name in ("first", "second"):
        pictures = draw(small, tmp_path / name)
    stems = {picture.path.stem for picture in pictures}
    assert len(stems) == 4
    files = sorted((tmp_path / "first").iterdir())
    wanted = {f"{stem}.{ending}" for stem in stems for ending in ("png", "svg", "pdf")}
    assert {path.name for path in files} == wanted
    for path in files:
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()
        assert not re.search(rb"date>|CreationDate|matplotlib v?\d", path.read_bytes(), re.I)
    (curves,) = [path for path in files if path.name.endswith("env-steps.svg")]
    text = curves.read_text()
    for word in ("evaluation return", "eggroll", CART_POLE):
        assert f">{word}</text>" in text
    pdf = curves.with_suffix(".pdf").read_bytes()
    assert b"/FontFile2" in pdf, "TrueType, and no drawn letters (type 3)"
    assert b"/Type3" not in pdf


def test_figures_keep_their_names_when_other_tasks_come(small):
    second = replace(small.tasks[0], name="brax/ant", env="brax/ant")
    alone = _file_names(small.tasks)
    assert set(alone) < set(_file_names((second, *small.tasks)))
    alike = [replace(second, name=name) for name in ("a b", "a/b", "c", "a-b")]
    assert _file_names(alike) == ["a-b", "a-b_", "c", "a-b__"]


def test_latex_prints_every_character():
    assert escaped("a_b & 5 % #1 $x$ {y}") == r"a\_b \& 5 \% \#1 \$x\$ \{y\}"
    assert escaped("\\ ~ ^") == r"\textbackslash{} \textasciitilde{} \textasciicircum{}"
    assert escaped("a > b < c | d") == r"a \textgreater{} b \textless{} c \textbar{} d"
    assert escaped("[1]\n*") == "{[}1{]} {*}"
    assert escaped("-1.5 [-2, 3] 1e-5 seed-0") == "$-$1.5 {[}$-$2, 3{]} 1e-5 seed-0"
    table = TextTable("t_1", ("a", "b"), (("x", "-"), ("", "[2]"), ("y", "-3")), ("50 %",))
    assert latex.table(table, grouped=True).splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{t\_1}",
        r"\begin{tabular}{ll}",
        r"\toprule",
        r"a & b \\",
        r"\midrule",
        r"x & -- \\",
        r" & {[}2{]} \\",
        r"\addlinespace",
        r"y & $-$3 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\footnotesize 50 \%",
        r"\end{table}",
    ]


def test_tables_of_results(small, tmp_path):
    found = replace(small, relative_to="ppo")
    outputs.write_tables(found, tmp_path)
    text = (tmp_path / "table.tex").read_text()
    assert text.startswith("% Needs \\usepackage{booktabs}.\n")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    assert r"\caption{Score relative to ppo}" in text
    for agent, cell in zip(found.agents, tables.results_table(found).rows, strict=True):
        assert cell[1] == agent
        assert escaped(cell[2]) in text
        assert cell[2] in (tmp_path / "table.md").read_text()
    assert r" & open\_es & " in text
    assert (tmp_path / "results.csv").read_text() == tables.csv_text(found)
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines[:5]} == {4}


def test_settings_that_differ_are_beside_each_other(tmp_path):
    of = {
        "x": {"sigma": 0.1, "hidden": [64, 64], "seed_kind": "a", "rank": 1},
        "y": {"sigma": 0.1, "hidden": [], "seed_kind": "a"},
        "z": {"sigma": 0.1, "hidden": []},
    }
    runs = [run("a", agent, 0, 1.0, settings=given) for agent, given in of.items()]
    runs[1] = replace(runs[1], source="the zoo")
    runs.append(replace(run("a", "theirs", 0, 1.0), imported_from="imported/theirs.csv"))
    task = Task("a", 1.0, 1, 1.0)
    found = results([task], runs, agents=(*of, "theirs", "none"))
    differing, common = settings_tables(found, task)
    assert differing.head == ("setting", "x", "y", "z")
    assert differing.rows == (
        ("hidden", "[64, 64]", "[]", "[]"),
        ("seed_kind", '"a"', '"a"', "-"),
        ("rank", "1", "-", "-"),
    )
    assert differing.notes[:2] == ("x: source not recorded.", "y: the zoo.")
    assert common.rows == (("sigma", "0.1"),)
    outputs.write_tables(found, tmp_path)
    assert "| hidden | [64, 64] | [] | [] |" in (tmp_path / "settings.md").read_text()
    assert r"seed\_kind & {\char34}a{\char34} &" in (tmp_path / "settings.tex").read_text()
    (alone,) = settings_tables(replace(found, agents=("x",)), task)
    assert alone.head == ("setting", "value")
    assert len(alone.rows) == 4
    assert settings_tables(replace(found, agents=("none",)), task) == []
