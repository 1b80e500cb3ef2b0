"""Curves of metrics as inline SVG, which follows the theme of the page.

A chart is stretched to any width: its labels are text beside it, and the widths of its lines do not
follow the stretching. It carries its numbers for the script that shows them under the pointer.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from matplotlib.ticker import Locator, LogLocator, MaxNLocator

MOST_POINTS = 400
"""The most points of a curve. Where there are more generations, a point is the mean of several."""
_MANY = 60
"""Where there are more dots than this, they are small."""
_SIZE = 1000
"""The width and the height of the coordinates."""
_LOGARITHMIC = 100.0
"""A chart of positive numbers is logarithmic if the largest is this many times the smallest."""
_SMALLEST = 1e-100
"""Smaller numbers count as 0."""
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Curve:
    """Numbers over env steps."""

    name: str
    """What they are, as the readout says; "" if the title of the chart says it."""
    x: np.ndarray
    """(points,) env steps."""
    y: np.ndarray
    """(points,) finite numbers."""


@dataclass(frozen=True)
class Band:
    """A band around a line."""

    x: np.ndarray
    """(points,) env steps."""
    low: np.ndarray
    """(points,) its lower edge."""
    high: np.ndarray
    """(points,) its upper edge."""


@dataclass(frozen=True)
class Chart:
    """What a chart shows; a part without points is left out."""

    title: str
    line: Curve | None = None
    """Drawn as a line."""
    dots: Curve | None = None
    """Drawn as dots, which a thin line joins."""
    band: Band | None = None
    """Drawn behind the line."""
    read: Sequence[Curve] = field(default=())
    """What the readout shows besides."""
    notes: Sequence[str] = ()
    """Sentences below the chart."""

    @property
    def drawn(self) -> list[np.ndarray]:
        """All numbers that are drawn."""
        curves = [curve.y for curve in (self.line, self.dots) if curve is not None]
        return curves + ([] if self.band is None else [self.band.low, self.band.high])


def thinned(
    x: np.ndarray, y: np.ndarray, low: np.ndarray | None = None, high: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, Band | None]:
    """Reduce a curve to few points: means of equally many neighbours.

    Args:
      x: (generations,) env steps.
      y: (generations,) a metric, NaN where there is none.
      low: (generations,) the lower edge of its band.
      high: (generations,) the upper edge of its band.

    Returns:
      x and y of the points, and the band: that of the edges, or else between the smallest and the
      largest neighbour where a point is the mean of several.
    """
    there = np.isfinite(y)
    x, y = x[there], y[there]
    count = min(len(y), MOST_POINTS)
    if count == 0:
        return x, y, None
    starts = np.linspace(0, len(y), count, endpoint=False).astype(int)
    sizes = np.diff(np.append(starts, len(y)))

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.add.reduceat(values, starts) / sizes)

    if low is not None and high is not None:
        edges = [np.where(np.isfinite(edge[there]), edge[there], y) for edge in (low, high)]
        band = Band(mean(x), mean(edges[0]), mean(edges[1]))
    elif count < len(y):
        band = Band(mean(x), np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts))
    else:
        return x, y, None
    return mean(x), mean(y), band


def short(value: float) -> str:
    """A number as a short label: "1.5M", "0.003", "1e-7"."""
    for factor, name in _UNITS:
        if factor <= abs(value) < 1e15:
            return f"{value / factor:.4g}{name}"
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


@dataclass(frozen=True)
class _Axis:
    """Where numbers are along an axis, from 0 to 1."""

    low: float
    high: float
    logarithmic: bool = False

    def at(self, values: np.ndarray) -> np.ndarray:
        if self.logarithmic:
            low, high = math.log(self.low), math.log(self.high)
            return np.asarray((np.log(values) - low) / (high - low))
        return np.asarray((values - self.low) / (self.high - self.low))

    def ticks(self, count: int) -> np.ndarray:
        """Round numbers along the axis."""
        if self.logarithmic:
            locator: Locator = LogLocator(numticks=count)
        else:
            locator = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10])
        found = np.asarray(locator.tick_values(self.low, self.high))
        slack = 1e-9 * abs(self.high - self.low)
        inside = (found >= self.low - slack) & (found <= self.high + slack)
        return np.asarray(found[inside])


def _axis_of(arrays: Sequence[np.ndarray]) -> _Axis:
    """The axis of all numbers, with some room around them."""
    low = min(float(array.min()) for array in arrays)
    high = max(float(array.max()) for array in arrays)
    if low > _SMALLEST and high >= _LOGARITHMIC * low:
        return _Axis(low / 1.2, high * 1.2, logarithmic=True)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    # Numbers that are at least 0 have an axis that is too.
    return _Axis(0.0 if 0 <= low < room else low - room, high + room)


def chart_html(chart: Chart, until: float, *, large: bool = False) -> str:
    """A chart as an HTML figure.

    Args:
      chart: has at least one point.
      until: where the axis of env steps ends.
      large: whether it is the main chart of the page.
    """
    across, up = _Axis(0.0, max(until, 1.0)), _axis_of(chart.drawn)
    summary = f"{chart.title}: {_span(chart)}"
    parts = [
        f'<svg viewBox="0 0 {_SIZE} {_SIZE}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(summary)}">'
    ]
    heights = [(value, float(up.at(np.array(value)))) for value in up.ticks(4)]
    grid = "".join(f"M0 {_SIZE - round(_SIZE * at)}H{_SIZE}" for _, at in heights)
    parts.append(f'<path class="grid" d="{grid}"/>')
    if chart.band is not None:
        parts.append(f'<path class="band" d="{_band(chart.band, across, up)}"/>')
    if chart.line is not None:
        parts.append(f'<path class="line" d="{_path(chart.line, across, up)}"/>')
    if chart.dots is not None:
        parts.append(f'<path class="joined" d="{_path(chart.dots, across, up)}"/>')
        many = " many" if len(chart.dots.x) > _MANY else ""
        parts.append(f'<path class="dots{many}" d="{_path(chart.dots, across, up, dots=True)}"/>')
    parts.append('</svg><i class="here" hidden></i>')
    for value, at in heights:
        parts.append(
            f'<span class="y" style="bottom:{100 * at:.1f}%">{escape(short(value))}</span>'
        )
    for value in across.ticks(4):
        at = float(across.at(np.array(value)))
        parts.append(f'<span class="x" style="left:{100 * at:.1f}%">{escape(short(value))}</span>')
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in chart.notes)
    kind = "chart large" if large else "chart"
    return (
        f'<figure class="{kind}" data-chart="{escape(_numbers(chart, across))}"><figcaption>'
        f"<b>{escape(chart.title)}</b>{' <small>log scale</small>' if up.logarithmic else ''}"
        f'<span class="readout">{escape(_span(chart))}</span></figcaption>'
        f'<div class="plot">{"".join(parts)}</div>{notes}</figure>'
    )


def _span(chart: Chart) -> str:
    """Where the numbers of a chart begin and end, in words."""
    curves = [curve for curve in (chart.line, chart.dots) if curve is not None]
    return ", ".join(
        f"{curve.name} {short(curve.y[0])}".strip()
        + (f" to {short(curve.y[-1])}" if len(curve.y) > 1 else "")
        for curve in curves
    )


def _numbers(chart: Chart, across: _Axis) -> str:
    """The numbers of a chart as JSON: {"until": env steps, "curves": [[name, x, y], ...]}."""
    curves = [c for c in (chart.line, *chart.read, chart.dots) if c is not None and len(c.x)]
    rounded = [
        [c.name, c.x.round().tolist(), [float(f"{value:.5g}") for value in c.y]] for c in curves
    ]
    values = {"until": across.high, "curves": rounded}
    return json.dumps(values, separators=(",", ":"), allow_nan=False)


def _points(x: np.ndarray, y: np.ndarray, across: _Axis, up: _Axis) -> list[str]:
    places = zip(_SIZE * across.at(x), _SIZE * (1 - up.at(y)), strict=True)
    return [f"{place:.0f} {height:.0f}" for place, height in places]


def _path(curve: Curve, across: _Axis, up: _Axis, *, dots: bool = False) -> str:
    """A line through points, or a dot at each: a line without length, with round ends."""
    points = _points(curve.x, curve.y, across, up)
    if dots or len(points) == 1:
        return "".join(f"M{point}h0" for point in points)
    return "M" + "L".join(points)


def _band(band: Band, across: _Axis, up: _Axis) -> str:
    there = _points(band.x, band.high, across, up)
    back = _points(band.x[::-1], band.low[::-1], across, up)
    return "M" + "L".join(there + back) + "Z"
