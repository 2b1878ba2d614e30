"""Small histograms as inline SVG, drawn here and not by a script, so that a page shows them whatever its reader allows."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 250, 96
_LEFT, _RIGHT, _TOP, _BOTTOM = 6, 6, 16, 18
_MOST_BARS = 24


def number(value: float) -> str:
    """A number for people: four digits."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.4g}" if abs(value) < 1e5 or abs(value) >= 1e9 else f"{value:,.0f}"


def histogram(values: Sequence[float], title: str, unit: str, what: str = "subjects") -> str:
    """How many of `what` have each value: bars between the least and the greatest; nothing where all are equal, which a table says.

    Args:
        values: finite, at least one.
        title: above the bars.
        unit: of the values.
        what: is counted.
    """
    low, high = min(values), max(values)
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        return ""
    bars = min(max(round(2 * len(values) ** (1 / 3)), 8), _MOST_BARS)  # Rice's rule
    counts, edges = np.histogram(np.asarray(values, np.float64), bars)
    return _figure(title, _bars(counts.tolist(), edges.tolist(), unit, what))


def bars(counts: Sequence[float], edges: tuple[float, float], title: str, unit: str, what: str) -> str:
    """Bars of one width of counts that are known, as tall as their square root, as a few are often far above the others."""
    return _figure(title, _bars(counts, np.linspace(*edges, len(counts) + 1).tolist(), unit, what, 0.5))


def sparkline(counts: Sequence[int]) -> str:
    """The shape of a histogram, 90 by 22 pixels, without words."""
    top = max(*counts, 1)
    points = " ".join(f"{x * 90 / len(counts):.1f},{22 - 20 * math.sqrt(count / top):.1f}" for x, count in enumerate(counts))
    return f'<svg class="spark" viewBox="0 0 90 22" width="90" height="22" aria-hidden="true"><polygon points="0,22 {points} 90,22"/></svg>'


def _bars(counts: Sequence[float], edges: Sequence[float], unit: str, what: str, power: float = 1.0) -> str:
    width, height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    top, step = max(max(counts), 1e-12), width / len(counts)
    parts = []
    for place, count in enumerate(counts):
        if count > 0:
            tall = max(height * (count / top) ** power, 2.0)
            told = f"{number(edges[place])} to {number(edges[place + 1])} {unit}".strip() + f": {number(count)} {what}"
            x, y = _LEFT + place * step, _TOP + height - tall
            place_and_size = f'x="{x + 0.5:.1f}" y="{y:.1f}" width="{max(step - 1, 0.6):.1f}" height="{tall:.1f}"'
            parts.append(f"<rect {place_and_size}><title>{escape(told)}</title></rect>")
    base = _TOP + height
    parts.append(f'<line x1="{_LEFT}" y1="{base}" x2="{WIDTH - _RIGHT}" y2="{base}"/>')
    ends = ((edges[0], "start", _LEFT), ((edges[0] + edges[-1]) / 2, "middle", WIDTH / 2), (edges[-1], "end", WIDTH - _RIGHT))
    for value, anchor, x in ends:
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{escape(number(value))}</text>')
    parts.append(f'<text class="top" x="{WIDTH - _RIGHT}" y="{_TOP - 4}" text-anchor="end">{escape(f"{number(top)} {what}")}</text>')
    return "".join(parts)


def _figure(title: str, inside: str) -> str:
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    drawing = f'<svg {size} role="img" aria-label="{escape(title)}">{inside}</svg>'
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{drawing}</figure>'
