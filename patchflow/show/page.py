"""A page of texts and panels, filled in pixels from the top left."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from patchflow.show.panels import INK

DPI = 100
LINE = 17
"""Pixels of a line of small text."""
DOT = "   ·   "
"""Between texts that stand in one line."""


class Page:
    """A figure that is filled in pixels from the top left; its height comes out in the end."""

    def __init__(self, figure: Any, renderer: Any) -> None:
        from matplotlib.font_manager import FontProperties

        self.figure, self._renderer, self._font = figure, renderer, FontProperties
        self._texts: list[tuple[float, float, str, dict[str, Any]]] = []
        self._panels: list[tuple[tuple[float, float, float, float], Any]] = []

    def measure(self, text: str, points: float, bold: bool = False) -> float:
        """Pixels that a line of text is wide."""
        font = self._font(family="DejaVu Sans", size=points, weight="bold" if bold else "normal")
        return float(self._renderer.get_text_width_height_descent(text, font, False)[0])

    def text(self, x: float, y: float, text: str, points: float = 9, colour: str = INK, bold: bool = False, **more: Any) -> None:
        """Put a line of text with its left end at x and its middle at y."""
        look = {"fontsize": points, "color": colour, "weight": "bold" if bold else "normal", "va": "center", "family": "DejaVu Sans"}
        self._texts.append((x, y, text, {**look, "parse_math": False, **more}))

    def paragraph(self, x: float, y: float, parts: Sequence[str], width: float, points: float, colour: str, bold: bool = False) -> float:
        """Put texts one after the other into lines of at most so many pixels; returns the y below the last line."""
        height = LINE * points / 9
        for line in _wrapped(parts, lambda text: self.measure(text, points, bold) <= width):
            self.text(x, y + height / 2, line, points, colour, bold)
            y += height
        return y

    def panel(self, x: float, y: float, width: float, height: float, draw: Any) -> None:
        """Let `draw` fill matplotlib axes of this box."""
        self._panels.append(((x, y, width, height), draw))

    def finish(self, width: float, height: float) -> None:
        """Give the page its size and put everything on it."""
        width, height = float(np.ceil(width)), float(np.ceil(height))
        self.figure.set_size_inches(width / DPI, height / DPI)
        for (x, y, w, h), draw in self._panels:
            draw(self.figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height)))
        for x, y, text, look in self._texts:
            self.figure.text(x / width, 1 - y / height, text, **look)


def _wrapped(parts: Sequence[str], fits: Callable[[str], bool]) -> list[str]:
    """Lines of texts with a dot between them; a text that does not fit is broken between words, and a word where it must be."""
    lines: list[str] = []
    for part in parts:
        joined = f"{lines[-1]}{DOT}{part}" if lines else part
        if lines and fits(joined):
            lines[-1] = joined
            continue
        lines.append("")
        for word in part.split(" "):
            longer = f"{lines[-1]} {word}" if lines[-1] else word
            if fits(longer):
                lines[-1] = longer
                continue
            if lines[-1]:
                lines.append("")
            for letter in word:
                if lines[-1] and not fits(lines[-1] + letter):
                    lines.append("")
                lines[-1] += letter
    return lines
