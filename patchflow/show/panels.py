"""One plane of a patch as a picture: grey values, and the outline of each class of a label map."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from patchflow.types import Affine, Array, Int3

AXES = "IJK"
COLOURS = ("#e69f00", "#56b4e9", "#2bd47d", "#f0e442", "#ff5c5c", "#cc79a7", "#9d8cff", "#00d5d5", "#ff9ad5", "#b5b35c")
"""One for each class, in turn; bright on grey, and the first apart for readers who are colour-blind (Okabe and Ito, 2008)."""
INK, FAINT, PAPER = "#f2f2f2", "#a8adb3", "#101214"


@dataclass(frozen=True)
class Plane:
    """The plane through the centre of a patch across one voxel axis.

    Attributes:
        axis: 0 (I), 1 (J) or 2 (K): the axis that the plane is across.
        place: the plane's number in the patch.
    """

    axis: int
    place: int

    @property
    def across(self) -> int:
        """The axis that runs to the right."""
        return 1 if self.axis == 0 else 0

    @property
    def up(self) -> int:
        """The axis that runs upwards."""
        return 1 if self.axis == 2 else 2

    def of(self, volume: Array) -> Array:
        """The plane of a volume (i, j, k): rows from the bottom up, columns from left to right."""
        plane: Array = np.take(volume, self.place, self.axis).T
        return plane

    def extent(self, size: Int3, spacing: tuple[float, float, float]) -> tuple[float, float]:
        """Width and height in millimetres."""
        return size[self.across] * spacing[self.across], size[self.up] * spacing[self.up]


def planes_of(size: Int3) -> list[Plane]:
    """The planes across K, J and I; only those that are more than a line, if there are any."""
    planes = [Plane(axis, size[axis] // 2) for axis in (2, 1, 0)]
    wide = [plane for plane in planes if size[plane.across] > 1 and size[plane.up] > 1]
    return wide or planes


def directions(affine: Affine) -> tuple[str, str, str]:
    """Where each voxel axis runs in the patient, as a letter: R, L, A, P, S or I for the axis of the world that it is closest to."""
    columns = np.asarray(affine, np.float64)[:3, :3]
    columns = columns / np.sqrt((columns * columns).sum(axis=0))
    letters = []
    for axis in range(3):
        world = int(np.argmax(np.abs(columns[:, axis])))
        letters.append(("RAS" if columns[world, axis] > 0 else "LPI")[world])
    return letters[0], letters[1], letters[2]


def colour_of(label: int, classes: list[int]) -> str:
    """The colour of a class among all that a sheet shows."""
    return COLOURS[classes.index(label) % len(COLOURS)]


def draw_plane(axes: Any, image: Array, labels: Array | None, window: tuple[float, float], aspect: float, classes: list[int]) -> None:
    """Draw a plane into matplotlib axes.

    Args:
        axes: of matplotlib, to be filled.
        image: (rows, columns), rows from the bottom up.
        labels: the same of a label map, or None.
        window: the values shown black and white.
        aspect: height of a voxel over its width.
        classes: all labels that the sheet outlines.
    """
    axes.imshow(image, cmap="gray", origin="lower", vmin=window[0], vmax=window[1], aspect=aspect, interpolation="antialiased")
    axes.set_axis_off()
    if labels is None:
        return
    for label in classes:
        lines = outline(np.equal(labels, label))
        if len(lines):
            axes.add_collection(_collection(lines, colour_of(label, classes)), autolim=False)


def outline(mask: Array) -> Array:
    """The edges between voxels inside and outside of a mask, those on the border of the plane left out.

    Args:
        mask: bool (rows, columns).

    Returns:
        (edges, 2, 2): the ends (x, y) of each edge, where voxel (row r, column c) covers c - 0.5 to c + 0.5 and r - 0.5 to r + 0.5.
    """
    rows, columns = np.nonzero(mask[:, 1:] != mask[:, :-1])
    upright = np.stack([np.stack([columns + 0.5, rows - 0.5], -1), np.stack([columns + 0.5, rows + 0.5], -1)], 1)
    rows, columns = np.nonzero(mask[1:] != mask[:-1])
    level = np.stack([np.stack([columns - 0.5, rows + 0.5], -1), np.stack([columns + 0.5, rows + 0.5], -1)], 1)
    return np.concatenate([upright, level])


def _collection(lines: Array, colour: str) -> Any:
    from matplotlib.collections import LineCollection

    return LineCollection(list(lines), colors=colour, linewidths=1.0, capstyle="projecting")
