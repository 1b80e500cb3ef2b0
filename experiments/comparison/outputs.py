"""The files of a comparison that are text: CSV, Markdown and LaTeX."""

from pathlib import Path

from es_rl.files import write_whole
from experiments.comparison import findings, imported, latex, tables
from experiments.comparison.hyperparameters import settings_tables
from experiments.comparison.results import Results


def write_tables(results: Results, folder: Path) -> None:
    """Write `results.csv`, the tables of the results (`table.md`, `table.tex`), and those of the
    agents' settings side by side (`settings.md`, `settings.tex`), into a folder that exists."""
    tables.write_csv(results, folder / "results.csv")
    relative, notes = findings.relative_table(results), imported.notes(results)
    in_markdown = [tables.markdown_table(results)]
    in_latex = [latex.table(tables.results_table(results), grouped=True)]
    if notes:
        in_markdown.append(" ".join(notes) + "\n")
        in_latex.append(latex.paragraph(" ".join(notes)))
    if relative is not None:
        in_markdown.append(tables.markdown(relative))
        in_latex.append(latex.table(relative))
    settings = [table for task in results.tasks for table in settings_tables(results, task)]
    for name, texts in {
        "table.md": in_markdown,
        "table.tex": [latex.HEAD, *in_latex],
        "settings.md": list(map(tables.markdown, settings)),
        "settings.tex": [latex.HEAD, *map(latex.table, settings)],
    }.items():
        write_whole(folder / name, "\n".join(texts).encode())
