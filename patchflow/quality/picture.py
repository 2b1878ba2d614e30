"""A subject's mid-planes as a small PNG: grey values with the outline of each class, side by side."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt

from patchflow.geometry.affine import spacing
from patchflow.types import Affine, Array, Int3

LONGEST = 120
"""Pixels of the longest side in millimetres; all planes of a subject are of one scale."""

GAP = 4
GREYS = 64
"""Fewer grey values than a screen shows, as a page holds a thousand pictures and noise does not pack."""

COLOURS = ("e69f00", "56b4e9", "2bd47d", "f0e442", "ff5c5c", "cc79a7", "9d8cff", "00d5d5", "ff9ad5", "b5b35c")
"""One for each class, in turn; bright on grey, and the first apart for readers who are colour-blind (Okabe and Ito, 2008)."""

_nibabel: Any = nib  # its functions have no types
_WORLD = ("sagittal", "coronal", "axial")
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Plane:
    """A plane across one axis of the patient.

    Attributes:
        world: 0, 1 or 2: across left-right, back-front or down-up.
        axis: the voxel axis that it is across.
        place: its number along that axis.
        right: the voxel axis that runs to the right of the picture (to the patient's right, or to the front), and whether turned round.
        up: the same of what runs upwards.
    """

    world: int
    axis: int
    place: int
    right: tuple[int, bool]
    up: tuple[int, bool]

    @property
    def name(self) -> str:
        """With the voxel axis and number."""
        return f"{_WORLD[self.world]} {'IJK'[self.axis]} = {self.place}"

    def upright(self, plane: Array) -> Array:
        """Values of the plane, the voxel axes in order, as rows from the top and columns from the left."""
        rest = [axis for axis in range(3) if axis != self.axis]
        if rest.index(self.up[0]) == 1:
            plane = plane.T
        turned: Array = plane[:: 1 if self.up[1] else -1, :: -1 if self.right[1] else 1]
        return turned


class Cut(NamedTuple):
    """Planes of one image, where they lie, and what a pixel is."""

    planes: list[Plane]
    values: list[Array]
    sizes: list[tuple[float, float]]
    """Height and width of each in millimetres."""


def colour_of(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which of `COLOURS` labels have: the first is that of 1, and the same label has the same in every picture."""
    return (labels - 1) % len(COLOURS)


def planes_of(shape: Int3, affine: Affine, middle: Int3 | None) -> list[Plane]:
    """Axial, coronal and sagittal planes through `middle`, or the middle of the volume; those that are a line are left out."""
    found = []
    directions = _nibabel.orientations.io_orientation(affine)
    voxel_axis = {int(world): axis for axis, (world, _) in enumerate(directions)}
    turned = [bool(sign < 0) for _, sign in directions]
    for world, right, up in ((2, 0, 1), (1, 0, 2), (0, 1, 2)):
        axis, across, along = voxel_axis[world], voxel_axis[right], voxel_axis[up]
        if min(shape[across], shape[along]) > 1:
            place = shape[axis] // 2 if middle is None else middle[axis]
            found.append(Plane(world, axis, place, (across, turned[across]), (along, turned[along])))
    return found


def cut(planes: list[Plane], values: Sequence[Array], shape: Int3, step: Array) -> Cut:
    """Planes of a volume (I, J, K) whose voxels are `step` millimetres long, upright; `values` hold each plane's voxel axes in order."""
    sizes = [tuple(float(shape[axis] * step[axis]) for axis in (plane.up[0], plane.right[0])) for plane in planes]
    upright = [plane.upright(own) for plane, own in zip(planes, values, strict=True)]
    return Cut(planes, upright, [(height, width) for height, width in sizes])


class Cutter:
    """Takes planes out of a volume that goes by slice by slice."""

    def __init__(self, planes: list[Plane], shape: Int3, affine: Affine, dtype: np.dtype[Any]) -> None:
        self._planes, self._shape, self._step = planes, shape, spacing(affine)
        self._values = [np.zeros([n for axis, n in enumerate(shape) if axis != plane.axis], dtype) for plane in planes]

    def add(self, first: int, slices: Array) -> None:
        """Slices (k, J, I) from slice `first` along K on."""
        last = first + len(slices)
        for plane, values in zip(self._planes, self._values, strict=True):
            if plane.axis == 0:
                values[:, first:last] = slices[:, :, plane.place].T
            elif plane.axis == 1:
                values[:, first:last] = slices[:, plane.place, :].T
            elif first <= plane.place < last:
                values[...] = slices[plane.place - first].T

    def cut(self) -> Cut:
        """The planes, when all slices have gone by."""
        return cut(self._planes, self._values, self._shape, self._step)


def draw(image: Cut | None, window: tuple[float, float], labels: Cut | None) -> bytes:
    """A PNG of planes side by side.

    Args:
        image: planes of a scalar image as read; None for labels on black.
        window: the values that are black and white.
        labels: the same planes of a label map, on the image's grid; None for no outline.
    """
    shown = image if image is not None else labels
    if shown is None or not shown.planes:
        return b""
    scale = LONGEST / max(max(size) for size in shown.sizes)
    strips = []
    for number, (height, width) in enumerate(shown.sizes):
        pixels = max(round(height * scale), 1), max(round(width * scale), 1)
        tile = np.zeros(pixels, np.uint8) if image is None else _grey(_averaged(image.values[number], pixels), window)
        if labels is not None:
            _outline(tile, _nearest(labels.values[number], pixels))
        strips.append(tile)
    tallest = max(len(tile) for tile in strips)
    padded = [np.pad(tile, ((tallest - len(tile), 0), (0, GAP)), constant_values=0) for tile in strips]
    return png(np.concatenate(padded, axis=1)[:, :-GAP])


def _places(voxels: int, pixels: int, within: float) -> npt.NDArray[np.int64]:
    """The voxel at a place within each pixel, 0 to 1 from its beginning to its end."""
    return np.minimum(((np.arange(pixels) + within) * voxels / pixels).astype(np.int64), voxels - 1)


def _nearest(plane: Array, pixels: tuple[int, int]) -> Array:
    rows, columns = (_places(voxels, size, 0.5) for voxels, size in zip(plane.shape, pixels, strict=True))
    return plane[np.ix_(rows, columns)]


def _averaged(plane: Array, pixels: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Means of three by three places in each pixel."""
    total = plane
    for axis in (0, 1):
        thirds = [total.take(_places(plane.shape[axis], pixels[axis], within), axis) for within in (1 / 6, 1 / 2, 5 / 6)]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite becomes black or white
            total = np.add(thirds[0], thirds[1], dtype=np.float32)
            total += thirds[2]
    total /= 9
    return total


def _grey(plane: npt.NDArray[np.float32], window: tuple[float, float]) -> Pixels:
    width = max(window[1] - window[0], float(np.finfo(np.float32).tiny))
    finite = np.nan_to_num(plane, nan=window[0], posinf=window[1], neginf=window[0])
    with np.errstate(over="ignore"):
        share = np.clip((finite.astype(np.float64) - window[0]) / width, 0, 1)
    return np.asarray(np.rint(share * (GREYS - 1)), np.uint8)


def _outline(tile: Pixels, labels: Array) -> None:
    """Colour the pixels of a label that have a neighbour of another."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        ahead, behind = np.moveaxis(labels, axis, 0)[1:], np.moveaxis(labels, axis, 0)[:-1]
        turns = np.moveaxis(edge, axis, 0)
        turns[1:] |= ahead != behind
        turns[:-1] |= ahead != behind
    drawn = edge & (labels != 0)
    tile[drawn] = GREYS + colour_of(labels[drawn].astype(np.int64))


def png(pixels: Pixels) -> bytes:
    """A PNG file of grey values below `GREYS` and, from there on, `COLOURS` (PNG specification, third edition, colour type 3)."""
    greys = np.repeat(np.linspace(0, 255, GREYS).round().astype(np.uint8), 3).tobytes()
    height, width = pixels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with the number of its filter: none
    rows[:, 1:] = pixels
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", greys + bytes.fromhex("".join(COLOURS))),
        (b"IDAT", zlib.compress(rows.tobytes(), 4)),
        (b"IEND", b""),
    )
    chunks = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
