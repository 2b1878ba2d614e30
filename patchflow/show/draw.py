"""The sheet: a block for each patch, laid out in pixels, so that nothing overlaps whatever the sizes of patches and texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchflow.errors import ArgumentError, PatchflowError
from patchflow.files import whole_file
from patchflow.loading.queue import Queue
from patchflow.show.page import DOT, DPI, LINE, Page
from patchflow.show.panels import AXES, FAINT, INK, PAPER, Plane, colour_of, directions, draw_plane, planes_of
from patchflow.show.patches import PERCENTILES, Shown, chosen_names, drawn_patches, grey_window
from patchflow.show.words import told
from patchflow.types import Array

_MARGIN, _GROUP_GAP, _PANEL_GAP, _BLOCK_GAP = 28, 44, 10, 26
_PAGE = 1480
"""About how wide a sheet is: patches stand side by side where that leaves room."""
_GUTTER, _STRIP = 18, 18
"""Left of a panel, for the name of the axis that runs upwards; above and below it, for names and numbers."""
_WIDEST, _TALLEST = {3: 210, 2: 210, 1: 300}, {3: 230, 2: 230, 1: 320}
"""Of a panel, by the number of planes. The scale is one for all panels of a patch, so that their millimetres are the same."""
_LEGEND = 12
"""Classes that the legend names."""


def sheet(
    source: Queue | Sequence[Shown],
    path: str | Path | None = None,
    *,
    number: int = 6,
    epoch: int = 0,
    image: str | None = None,
    label: str | None = None,
    window: tuple[float, float] | None = None,
    title: str = "",
) -> Any:
    """Draw patches of a queue: three planes through the centre of each, without augmentation and with it, and beneath them what was drawn.

    Planes are drawn in millimetres, with the voxel axes named and the side of the patient to which they run. Grey values have one window
    for all patches of a subject. Classes of a label map other than 0 are outlined in colour.

    Args:
        source: a queue, of whose `epoch` patches are shown that are spread evenly over it, or what `drawn_patches` made of one.
        path: where to write a PNG; None for nowhere.
        number: how many patches, of a queue.
        epoch: of a queue.
        image: the `ScalarImage` to be shown; None for the first. Of several channels the first is shown, and the sheet says so.
        label: the `LabelMap` to be outlined; None for the first, if there is one.
        window: the values shown black and white; None for the 0.5th and 99.5th percentiles of each volume.
        title: a line at the top.

    Returns:
        A `matplotlib.figure.Figure`, made without pyplot: there is no global state, and it may be drawn in any thread.

    Raises:
        ArgumentError: for no patches, or a window the wrong way round.
        UnknownNameError: for an image or label map that is not there.
        PatchflowError: where matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PatchflowError('drawing a sheet needs matplotlib: pip install "patchflow[demo]"') from error
    if window is not None and not (len(window) == 2 and np.isfinite(window).all() and window[0] < window[1]):
        raise ArgumentError(f"window must be two values, the lower one first, not {window!r}")
    target = None if path is None else Path(path)
    if target is not None and (target.is_dir() or not target.parent.is_dir()):
        raise ArgumentError(f"a sheet cannot be written to {target}: give the name of a file in a folder that is there")
    shown = drawn_patches(source, number, epoch) if isinstance(source, Queue) else list(source)
    if not shown:
        raise ArgumentError("there are no patches to show")
    what = _chosen(shown, image, label, window)
    figure = Figure(figsize=(1, 1), dpi=DPI, facecolor=PAPER)
    page = Page(figure, FigureCanvasAgg(figure).get_renderer())  # type: ignore[no-untyped-call]
    _lay_out(page, shown, what, title)
    if target is not None:
        with whole_file(target) as beside:
            figure.savefig(beside, format="png", dpi=DPI, facecolor=PAPER)
    return figure


@dataclass(frozen=True)
class _What:
    """What of each patch is shown: image and label map by name, the window of each subject, all classes, and remarks."""

    image: str
    label: str | None
    windows: dict[str, tuple[float, float]]
    classes: list[int]
    remarks: list[str]


def _chosen(shown: Sequence[Shown], image: str | None, label: str | None, window: tuple[float, float] | None) -> _What:
    """What is shown of all patches."""
    images = {name: shown[0].entry.images[name] for name in shown[0].plain}
    image, label = chosen_names(images, image, label)
    remarks = [f"image {image!r}"]
    if images[image].channels > 1:
        remarks[0] += f", the first of {images[image].channels} channels"
    if label is not None and images[label].channels > 1:
        remarks.append(f"label map {label!r}, the first of {images[label].channels} channels")
    entries = {patch.entry.name: patch.entry for patch in shown}
    windows = {name: window or grey_window(entry, image) for name, entry in entries.items()}
    low, high = PERCENTILES
    remarks.append("grey window as given" if window else f"grey window from the {low:g}th to the {high:g}th percentile of each volume")
    classes: set[int] = set()
    if label is not None:
        for patch in shown:
            for voxels in (patch.plain, patch.augmented or {}):
                classes |= set(np.unique(voxels[label][0].cpu().numpy()).tolist()) if label in voxels else set()
    return _What(image, label, windows, sorted(classes - {0}), remarks)


# Laying it out


class _Grid:
    """Where things stand: patches in columns, each patch a group of panels without augmentation and one with it.

    Attributes:
        planes: of each patch.
        widest: pixels of a panel at the most.
        group, block: widths of a group of panels and of a patch.
        columns: patches side by side.
    """

    def __init__(self, shown: Sequence[Shown]) -> None:
        self.both = any(patch.augmented is not None for patch in shown)
        self.planes = planes_of(shown[0].location.size)
        self.widest, self.tallest = _WIDEST[len(self.planes)], _TALLEST[len(self.planes)]
        self.group = len(self.planes) * (_GUTTER + self.widest) + (len(self.planes) - 1) * _PANEL_GAP
        self.block = 2 * self.group + _GROUP_GAP if self.both else self.group
        self.columns = max(1, min(len(shown), (_PAGE + _GROUP_GAP) // (self.block + _GROUP_GAP)))
        self.width = self.columns * (self.block + _GROUP_GAP) - _GROUP_GAP

    def left(self, column: int) -> float:
        """Where a column begins."""
        return _MARGIN + column * (self.block + _GROUP_GAP)


def _lay_out(page: Page, shown: Sequence[Shown], what: _What, title: str) -> None:
    grid = _Grid(shown)
    y = _header(page, what, title, grid.width)
    if grid.both:
        for column in range(grid.columns):
            x = grid.left(column) + _GUTTER
            page.text(x, y, "without augmentation", 10, INK, bold=True)
            page.text(x + grid.group + _GROUP_GAP, y, "with augmentation", 10, INK, bold=True)
        y += 26
    for first in range(0, len(shown), grid.columns):
        row = shown[first : first + grid.columns]
        y = max(_block(page, patch, what, grid, grid.left(column), y) for column, patch in enumerate(row)) + _BLOCK_GAP
    page.finish(grid.width + 2 * _MARGIN, y - _BLOCK_GAP + _MARGIN)


def _header(page: Page, what: _What, title: str, width: float) -> float:
    """Title, remarks and legend; returns the y below."""
    y: float = _MARGIN
    if title:
        y = page.paragraph(_MARGIN, y, [title], width, 13, INK, bold=True) + 6
    y = page.paragraph(_MARGIN, y, what.remarks, width, 9, FAINT)
    if what.classes:
        words = [(f"outlines: label map {what.label!r}", FAINT)]
        words += [(f"— {label}", colour_of(label, what.classes)) for label in what.classes[:_LEGEND]]
        if len(what.classes) > _LEGEND:
            words.append((f"and {len(what.classes) - _LEGEND} more classes", FAINT))
        x = 0.0
        for word, colour in words:
            long = page.measure(word, 9, bold=colour != FAINT)
            if x and x + long > width:
                x, y = 0.0, y + LINE
            page.text(_MARGIN + x, y + LINE / 2, word, 9, colour, bold=colour != FAINT)
            x += long + 16
        y += LINE
    return y + 24


def _block(page: Page, patch: Shown, what: _What, grid: _Grid, left: float, y: float) -> float:
    """A patch: a line about it, its panels, and what was drawn; returns the y below."""
    y = _about(page, patch, what, grid.block, left, y) + 4
    sizes = [plane.extent(patch.location.size, patch.entry.spacing) for plane in grid.planes]
    scale = min(grid.widest / max(width for width, _ in sizes), grid.tallest / max(height for _, height in sizes))
    tallest = max(height for _, height in sizes) * scale
    for side, images in enumerate((patch.plain, patch.augmented)):
        if images is None:
            continue
        x = left + side * (grid.group + _GROUP_GAP)
        for plane, (across, up) in zip(grid.planes, sizes, strict=True):
            _panel(page, patch, what, plane, images, (x + _GUTTER, y + _STRIP, max(across * scale, 1), max(up * scale, 1)), tallest)
            x += _GUTTER + grid.widest + _PANEL_GAP
    y += 2 * _STRIP + tallest + 4
    if patch.parameters is None:
        return y
    drawn = told(patch.parameters, what.image, patch.entry.images.keys())
    nothing = ["nothing was drawn: the patch is left as it is"]
    return page.paragraph(left + _GUTTER, y, drawn or nothing, grid.block - _GUTTER, 9, INK)


def _about(page: Page, patch: Shown, what: _What, width: float, left: float, y: float) -> float:
    """Subject, patch, place, spacing and window; beneath one another where they do not fit into a line."""
    low, high = what.windows[patch.entry.name]
    heading = f"{patch.entry.name}, {patch.label}" if patch.label else patch.entry.name
    ends = zip(AXES, patch.location.start, patch.location.stop, strict=True)
    place = ", ".join(f"{axis} {a}" if b - a == 1 else f"{axis} {a} to {b - 1}" for axis, a, b in ends)
    spacing = " × ".join(f"{length:.3g}" for length in patch.entry.spacing)
    facts = [place, f"voxels of {spacing} mm", f"window {_number(low)} to {_number(high)}"]
    below = page.paragraph(left, y, [heading], width, 10, INK, bold=True)
    beside = page.measure(heading, 10, bold=True) + 18
    if beside + page.measure(DOT.join(facts), 9) <= width:
        return page.paragraph(left + beside, y + (below - y - LINE) / 2, facts, width - beside, 9, FAINT)
    return page.paragraph(left, below, facts, width, 9, FAINT)


def _panel(
    page: Page, patch: Shown, what: _What, plane: Plane, images: Any, box: tuple[float, float, float, float], tallest: float
) -> None:
    x, y, width, height = box
    y += tallest - height  # panels of a patch stand on one line
    letters = directions(patch.entry.affine)
    image = plane.of(_array(images[what.image]))
    labels = plane.of(_array(images[what.label])) if what.label in images else None
    voxel = patch.entry.spacing[plane.up] / patch.entry.spacing[plane.across]
    window = what.windows[patch.entry.name]
    page.panel(x, y, width, height, lambda axes: draw_plane(axes, image, labels, window, voxel, what.classes))
    page.text(x, y - 9, f"{AXES[plane.axis]} {patch.location.start[plane.axis] + plane.place}", 8, FAINT)
    page.text(x, y + height + 10, f"{AXES[plane.across]} → {letters[plane.across]}", 8, FAINT)
    page.text(x - 9, y + height, f"{AXES[plane.up]} → {letters[plane.up]}", 8, FAINT, rotation=90, ha="center", va="bottom")


def _array(patch: Any) -> Array:
    """The first channel (i, j, k)."""
    array: Array = patch[0].cpu().numpy()
    return array


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
