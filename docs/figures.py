"""The pictures of the README and of these pages, drawn from the committed measurements.

    python -m docs.figures                 # headline.svg, and copies of figures of experiments
    python -m docs.figures runs/hopper     # policy.gif, the best policy of that run

They are written into `docs/assets/`.
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import agents
import envs
from agents.training.filming import film
from experiments.comparison import results
from experiments.comparison.statistics import final_return, to_threshold

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "docs" / "assets"
RESULTS = ROOT / "experiments" / "results"
COLOURS = {"eggroll": "#2f6db5", "ppo": "#d9822b", "sbx_ppo": "#8a8f98"}
NAMES = ("EGGROLL", "PPO", "PPO of SBX")
_LOOPS = {
    "lanes, 2 devices": ("lanes (es_rl)", "#2f6db5"),
    "fixed scan, 2 devices": ("fixed scan", "#8a8f98"),
    "evosax OpenES, 1 device": ("evosax", "#c9ccd1"),
}
_CHANGES = {
    "preset": "the preset",
    "no_offset": "without the reward offset",
    "all_draws": "all draws, not the best",
    "mlp_64x64": "MLP 64x64, not linear",
    "rank_1": "rank 1, not 4",
    "full_noise": "full noise",
    "learned_sigma": "all draws, sigma learned",
}
"""The contestants of the ablation, and what they change in the preset."""
_FILM = slice(30, 80)
"""The frames of a film that are shown."""
_COLOURS = 24
"""The number of colours of a frame of a film."""
_BELOW = {
    "loc": "upper center",
    "bbox_to_anchor": (0.5, -0.07),
    "ncols": 3,
    "frameon": False,
    "columnspacing": 1,
}
"""Where legends stand."""
_EARLIEST = 0.01
"""The left end of the axes, in seconds."""


def film_run(run: Path) -> None:
    """Film a few seconds of a run's best policy, small enough for a README."""
    policy = agents.load_policy(run / "best")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # Gymnasium's of other versions
        played = film(policy, envs.make(policy.spec.id, workers=1), max_frames=_FILM.stop)
    first, *others = [
        Image.fromarray(frame[::2, ::2]).quantize(_COLOURS, dither=Image.Dither.NONE)
        for frame in played.frames[_FILM]
    ]
    duration = 1000 / played.frames_per_second
    first.save(
        ASSETS / "policy.gif", save_all=True, append_images=others, duration=duration, loop=0
    )


def draw(folder: Path) -> None:
    """Draw and copy all figures into a folder."""
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "es_rl", "font.family": "sans-serif"}
    ):
        figure = Figure(figsize=(10, 4.2))
        left, right = figure.subplots(1, 2)
        _times(left)
        _generations(right)
        figure.tight_layout(w_pad=3)
        figure.savefig(folder / "headline.svg", metadata={"Date": None}, bbox_inches="tight")
        _ablation().savefig(folder / "ablation.svg", metadata={"Date": None}, bbox_inches="tight")
    shutil.copy(RESULTS / "scaling" / "scaling.png", folder)
    shutil.copy(RESULTS / "networks" / "networks.png", folder)


def _times(axes: Axes) -> None:
    """Seconds of training until the threshold, as far as evaluations tell: the median seed reached
    it between the two ends of a line."""
    found = results.load(RESULTS / "classic" / "results.json")
    for row, task in enumerate(found.tasks):
        for place, agent in enumerate(COLOURS):
            time = to_threshold(found, task, agent, "seconds")
            if time is not None:
                ends = [max(time.after, _EARLIEST), time.median.value]
                height = row + 0.24 * (place - 1)
                axes.plot(ends, [height] * 2, color=COLOURS[agent], linewidth=5, alpha=0.45)
                axes.plot(ends[1:], [height], "o", color=COLOURS[agent], markersize=7)
    axes.set_yticks(range(len(found.tasks)), [task.name.split("/")[-1] for task in found.tasks])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(_EARLIEST, 30)
    axes.set_xticks([0.01, 0.1, 1, 10], ["0.01 s", "0.1 s", "1 s", "10 s"])
    axes.set_title("Training until solved (median of 5 seeds)")
    marks = [axes.plot([], [], "o", color=colour)[0] for colour in COLOURS.values()]
    _plain(axes)
    axes.legend(marks, NAMES, **_BELOW)


def _generations(axes: Axes) -> None:
    """Seconds of a first generation of 256 members: lanes beside a fixed scan and evosax."""
    tables = json.loads((RESULTS / "benchmark-cpu.json").read_text())["tables"]
    tables = [table for table in tables if table["title"].startswith("(c) first generation")]
    for place, (name, (label, colour)) in enumerate(_LOOPS.items()):
        for row, table in enumerate(tables):
            seconds = {r["name"]: r["values"]["seconds"] for r in table["rows"]}
            if name not in seconds:
                continue
            height = row + 0.27 * (place - 1)
            axes.barh(height, seconds[name], 0.24, color=colour, label=None if row else label)
            ratio = seconds[name] / seconds["lanes, 2 devices"]
            text = f"{seconds[name]:.2g} s" if place == 0 else f"{ratio:.0f}x"
            axes.text(seconds[name] * 1.1, height, text, va="center", fontsize=9)
    names = [table["title"].split(",")[1].split("/")[-1].strip() for table in tables]
    axes.set_yticks(range(len(tables)), [name.replace("-v1", "") for name in names])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(_EARLIEST, 60)
    axes.set_xticks([0.01, 0.1, 1, 10], ["0.01 s", "0.1 s", "1 s", "10 s"])
    axes.set_title("First generation of 256 members")
    _plain(axes)
    axes.legend(**_BELOW)


def _ablation() -> Figure:
    """Final returns where one choice of EGGROLL's presets is changed: a panel for each task."""
    found = results.load(RESULTS / "ablation" / "results.json")
    figure = Figure(figsize=(10, 3))
    panels = figure.subplots(1, len(found.tasks), sharey=True)
    for axes, task in zip(panels, found.tasks, strict=True):
        for row, agent in enumerate(_CHANGES):
            colour = COLOURS["eggroll" if agent == "preset" else "sbx_ppo"]
            returns = [run.return_mean for run in found.of(task.name, agent)]
            axes.plot(returns, [row] * len(returns), "o", color=colour, alpha=0.35, markersize=4)
            mean = final_return(found, task.name, agent)
            if mean is not None and mean.interval is not None:
                axes.plot(mean.interval, [row] * 2, color=colour, linewidth=5, alpha=0.45)
                axes.plot(mean.value, row, "o", color=colour, markersize=7)
        axes.axvline(task.threshold, color="#888888", linestyle=":", linewidth=1)
        axes.set_title(f"{task.name.split('/')[-1]}, {task.env_steps:,} env steps", fontsize=10)
        _plain(axes)
    panels[0].set_yticks(range(len(_CHANGES)), _CHANGES.values())
    panels[0].invert_yaxis()
    figure.tight_layout()
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        film_run(Path(sys.argv[1]))
    else:
        draw(ASSETS)
