"""Draws the figures of `concepts.md` and `algorithm.md`: `python -m docs.drawings`.

They are SVG files in `docs/assets/`, on light cards, so that both themes of the site show them
alike. On a phone they shrink to three quarters. The episode lengths in `lanes.svg` are those of a
generation that is played for it.
"""

import heapq
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.special import gammaln, kve

import agents
import envs
from docs.hyperparameters import CART_POLE, COLOURS, LINES, LOOK

ASSETS = Path(__file__).parent / "assets"
WIDTH = 480
LANES, MEMBERS, GENERATION = 8, 32, 7
"""What `lanes.svg` shows: the lanes and members of a generation of CartPole, and its number."""
_INK, _SOFT, _RULE = "#23262f", "#5d6372", "#c9cdd8"
_BLUE, _ORANGE, _GREEN, _GREY = "#cfe3f5", "#fbdcc6", "#cdeade", "#e7e9ef"


class Drawing:
    """An SVG picture that is built from a few shapes; y grows downwards."""

    def __init__(self, height: float, title: str):
        self.height = height
        self.title = title
        self._parts: list[str] = []

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, stroke: str = _RULE
    ) -> None:
        """Draw a rectangle."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3" '
            f'fill="{fill}" stroke="{stroke}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float = 14,
        anchor: str = "middle",
        colour: str = _INK,
        weight: str = "normal",
    ) -> None:
        """Write a line of text with its baseline at y."""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" '
            f'fill="{colour}" font-weight="{weight}">{escape(words)}</text>'
        )

    def labelled(
        self, x: float, y: float, width: float, height: float, words: str, fill: str
    ) -> None:
        """Draw a rectangle with a text in its middle."""
        self.box(x, y, width, height, fill)
        self.text(x + width / 2, y + height / 2 + 5, words)

    def arrow(self, *points: tuple[float, float]) -> None:
        """Draw an arrow through points."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{_SOFT}" stroke-width="1.5" '
            'marker-end="url(#tip)"/>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Draw a thin line."""
        self._parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{_SOFT}"/>'
        )

    def save(self, name: str) -> None:
        """Write the picture to `ASSETS`."""
        parts = "\n".join(self._parts)
        (ASSETS / f"{name}.svg").write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{self.height:g}" '
            f'viewBox="0 0 {WIDTH} {self.height:g}" font-family="system-ui, sans-serif">\n'
            f"<title>{escape(self.title)}</title>\n"
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{_SOFT}"/></marker>'
            "</defs>\n"
            f'<rect width="{WIDTH}" height="{self.height:g}" rx="6" fill="#fbfbfd"/>\n'
            f"{parts}\n</svg>\n"
        )


def population() -> None:
    """Draw eight members with their draws, signs, groups and episodes."""
    drawing = Drawing(326, "Members, signs, draws, groups and episodes of a population of eight")
    left, step, width = 92, 47, 43

    def row(y: float, label: str, texts: Sequence[str], fills: Sequence[str]) -> None:
        drawing.text(left - 10, y + 21, label, anchor="end", colour=_SOFT)
        span = 8 // len(texts)
        for i, words in enumerate(texts):
            fill = fills[i % len(fills)]
            drawing.labelled(left + i * span * step, y, (span - 1) * step + width, 32, words, fill)

    row(14, "member", [str(i) for i in range(8)], [_GREY])
    row(54, "sign", ["+", "−"] * 4, [_BLUE, _ORANGE])
    row(94, "draw", [f"draw {d}" for d in range(4)], [_GREY])
    drawing.line(14, 144, WIDTH - 14, 144)
    drawing.text(left, 166, "with groups of four", 13, "start", _SOFT)
    row(174, "group", ["group 0", "group 1"], [_GREEN])
    row(210, "episodes", ["those of group 0", "those of group 1"], [_GREEN])
    drawing.text(left, 268, "without groups", 13, "start", _SOFT)
    row(276, "episodes", [f"couple {d}" for d in range(4)], [_GREY])
    drawing.save("population")


def forward() -> None:
    """Draw the perturbed forward pass as boxes whose sides are the sizes of the arrays."""
    drawing = Drawing(300, "The product of an input with a perturbed matrix")
    size, thin = 104, 16
    drawing.labelled(16, 133, 84, 34, "x", _GREY)
    drawing.text(58, 186, "observation", 13, colour=_SOFT)
    # The shared product.
    drawing.labelled(190, 36, size, 92, "W", _BLUE)
    drawing.text(242, 26, "in × out, of all members", 13, colour=_SOFT)
    drawing.arrow((100, 143), (145, 143), (145, 82), (188, 82))
    drawing.text(340, 73, "x W")
    drawing.arrow((294, 82), (384, 82), (384, 130))
    # The member's own product.
    drawing.labelled(166, 188, thin, 92, "", _ORANGE)
    drawing.text(174, 240, "A")
    drawing.text(174, 297, "in × r", 13, colour=_SOFT)
    drawing.arrow((100, 157), (130, 157), (130, 234), (164, 234))
    drawing.arrow((182, 234), (222, 234))
    drawing.text(202, 224, "x A", 14)
    drawing.labelled(224, 218, 56, 32, "s σ/√r", _ORANGE)
    drawing.arrow((280, 234), (296, 234))
    drawing.labelled(298, 226, 92, thin, "", _ORANGE)
    drawing.text(344, 239, "Bᵀ")
    drawing.text(344, 262, "r × out", 13, colour=_SOFT)
    drawing.text(280, 282, "of this member alone", 13, colour=_SOFT)
    drawing.arrow((390, 234), (424, 234), (424, 192), (384, 192), (384, 168))
    drawing.labelled(368, 132, 32, 34, "+", _GREY)
    drawing.arrow((400, 149), (464, 149))
    drawing.text(434, 140, "outputs", 13, colour=_SOFT)
    drawing.save("forward")


def generation() -> None:
    """Draw the data flow of a generation."""
    steps = (
        ("ask", "parameters θ, generation", "σ and D draws (A, B)"),
        ("play", "N × K jobs in S lanes", "returns and lengths (N, K)"),
        ("fitness", "mean of K returns, ...", "fitness (N,)"),
        ("shape", "z-scores, ranks, groups", "weights w (N,)"),
        ("tell", "fold couples, one product", "g, of the shape of θ"),
        ("optimiser", "Optax gets −g", "θ and its state"),
    )
    drawing = Drawing(24 + 62 * len(steps), "The data flow of one generation")
    for i, (name, how, gives) in enumerate(steps):
        y = 14 + 62 * i
        drawing.box(40, y, 196, 44, _BLUE if i in (0, 4, 5) else _GREEN if i == 1 else _GREY)
        drawing.text(138, y + 19, name, 14, weight="bold")
        drawing.text(138, y + 36, how, 12.5, colour=_SOFT)
        if i + 1 < len(steps):
            drawing.arrow((138, y + 44), (138, y + 61))
        drawing.line(236, y + 22, 250, y + 22)
        drawing.text(256, y + 27, gives, 13, anchor="start", colour=_INK)
    last = 14 + 62 * (len(steps) - 1) + 22
    drawing.arrow((40, last), (18, last), (18, 36), (38, 36))
    drawing.save("generation")


def packed(lengths: Sequence[int], lanes: int) -> list[tuple[int, int]]:
    """The lane and the first step of each job, if a lane that ends takes the next job at once.

    Lanes that end in the same step take jobs in the order of their numbers.
    """
    free = [(0, lane) for lane in range(lanes)]
    placed = []
    for length in lengths:
        start, lane = heapq.heappop(free)
        placed.append((lane, start))
        heapq.heappush(free, (start + length, lane))
    return placed


def played_lengths() -> tuple[list[int], int]:
    """The lengths of the episodes of a generation of CartPole, in job order, and its limit."""
    env = envs.make(CART_POLE.env)
    settings = {**CART_POLE.base, "population_size": MEMBERS, "lanes": LANES, "devices": 1}
    agent: Any = agents.make(settings.pop("agent"), env, **settings)
    with agent:
        state = agent.init(jax.random.key(0))
        for _ in range(GENERATION):
            state, _ = agent.step(state)
        lengths = agent.player.play(*agent.ask(state)).lengths
    return np.asarray(lengths).tolist(), env.spec.max_episode_steps


def lanes() -> None:
    """Draw a generation's episodes in lanes that refill, and in a scan of a fixed length."""
    lengths, limit = played_lengths()
    waves = math.ceil(MEMBERS / LANES)
    drawing = Drawing(368, "Episodes in lanes that take the next job, and in a fixed scan")
    left, right, lane = 16, WIDTH - 16, 15
    scale = (right - left) / (waves * limit)
    refilled = packed(lengths, LANES)
    fixed = [(job % LANES, job // LANES * limit) for job in range(MEMBERS)]
    last = max(start + n for (_, start), n in zip(refilled, lengths, strict=True))
    title = f"{LANES} lanes that take the next job: {last:,} steps"
    for top, words, places in (
        (34, title, refilled),
        (212, f"a scan of {limit} steps, {waves} times: {waves * limit:,} steps", fixed),
    ):
        drawing.text(left, top - 12, words, anchor="start", weight="bold")
        for k in range(LANES):
            end = last if places is refilled else waves * limit
            drawing.box(left, top + k * lane, end * scale, lane - 2, _GREY, "none")
        for i, ((k, start), length) in enumerate(zip(places, lengths, strict=True)):
            fill = COLOURS[0] if i % 2 == 0 else COLOURS[1]
            x = left + start * scale
            drawing.box(x, top + k * lane, max(length * scale - 1, 0.8), lane - 2, fill, "none")
    episodes = f"{MEMBERS} episodes of {min(lengths)} to {max(lengths)} steps"
    drawing.text(left, 174, episodes, 13, "start", _SOFT)
    drawing.text(left, 352, "grey: steps of lanes without an episode", 13, "start", _SOFT)
    drawing.save("lanes")


def density(x: np.ndarray, rank: int) -> np.ndarray:
    """The density of an entry of A B^T / sqrt(r), for x > 0.

    An entry is the mean of r products of two standard normal numbers, times sqrt(r). The density of
    the sum of such products is known (a variance-gamma distribution); that of one product is
    K_0(|x|) / pi.
    """
    scaled, order = x * math.sqrt(rank), (rank - 1) / 2
    log = order * np.log(scaled / 2) - scaled - gammaln(rank / 2)
    return math.sqrt(rank / math.pi) * kve(order, scaled) * np.exp(log)


def noise() -> None:
    """Draw the density of an entry of the noise for several ranks."""
    x = np.linspace(0.01, 4, 400)
    figure = Figure(figsize=(4.8, 2.8), layout="constrained")
    axes = figure.subplots()
    for i, rank in enumerate((1, 4, 16)):
        y = density(x, rank)
        axes.plot(np.r_[-x[::-1], x], np.r_[y[::-1], y], LINES[i], color=COLOURS[i], linewidth=1.6,
                  label=f"rank {rank}")  # fmt: skip
    both = np.r_[-x[::-1], x]
    normal = np.exp(-(both**2) / 2) / math.sqrt(2 * math.pi)
    axes.plot(both, normal, ":", color="#23262f", linewidth=1.6, label="normal")
    axes.set_ylim(0, 0.9)
    axes.set_xlabel("entry of E, in units of its standard deviation")
    axes.set_ylabel("density")
    axes.legend(loc="upper right", fontsize=8.5)
    figure.savefig(ASSETS / "noise.svg", metadata={"Date": None, "Creator": None})


def main() -> None:
    """Draw all figures."""
    population()
    forward()
    generation()
    lanes()
    with matplotlib.rc_context(LOOK):
        noise()


if __name__ == "__main__":
    main()
