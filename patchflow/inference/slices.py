"""Which slices of a source each slice of a target needs, when it can be worked out, and the slices held until then."""

from typing import NamedTuple

import numpy as np

from patchflow.geometry.location import PatchLocation
from patchflow.geometry.maps import SpatialMap
from patchflow.geometry.space import WholeMove
from patchflow.kernels.planes import EDGE
from patchflow.kernels.resample import touched_box
from patchflow.types import Affine, Array, Int3


class Order(NamedTuple):
    """The target's slices in the order in which they are given out, as arrays of one length.

    Attributes:
        place: which slice.
        start, stop: the source's slices that it touches; both never fall.
        outside: whether all of it lies outside the source.
    """

    place: Array
    start: Array
    stop: Array
    outside: Array


def moved_order(move: WholeMove, size: int, n: int) -> Order:
    """When each of `size` target slices can be moved, out of a source of `n` slices."""
    places = np.arange(size)[:: move.signs[0]]
    slices = move.signs[0] * places + move.shifts[0]
    return Order(places, slices.clip(0, n), (slices + 1).clip(1, n), (slices < 0) | (slices >= n))


def touched_order(matrix: Affine, size: Int3, shape: Int3) -> Order:
    """When each target slice can be worked out, where voxels are interpolated.

    Args:
        matrix: 4x4, target voxel to source voxel.
        size: voxels of the target, its slices along the first axis.
        shape: voxels of the source.
    """
    n, source = shape[0], SpatialMap.affine(matrix)
    places = np.arange(size[0])[:: -1 if matrix[0, 0] < 0 else 1]
    ranges = []
    for place in places.tolist():
        location = PatchLocation((place, 0, 0), (1, *size[1:]))
        low, high = source.bounds(location)
        box = touched_box(source, location, shape, "linear", "border")
        if box is None or high[0] < -EDGE or low[0] > n - 1 + EDGE:
            ranges.append((0, 1, True) if high[0] < -EDGE else (n, n, True))
        else:
            beside = any(b < -EDGE or a > m - 1 + EDGE for a, b, m in zip(low, high, shape, strict=True))
            ranges.append((min(box.start[0], max(n - 2, 0)), box.stop[0], beside))  # two slices make a cell also at the last one
    starts, stops, outside = (np.array(column) for column in zip(*ranges, strict=True))
    return Order(places, starts, stops, outside)


class HeldSlices:
    """The latest slices of the source, one after the other in one block of memory."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._block = np.empty(shape, dtype)
        self._start = self._stop = 0

    def take(self, slab: Array, at: int, start: int, stop: int) -> Array:
        """Slices `start` to `stop`, (C, t, J, K), where slices before `start` will not be asked for again; the slab's first is `at`."""
        capacity = self._block.shape[1]
        if start >= self._stop:
            self._start = self._stop = start
        if stop - self._start > capacity:
            for n in range(start, self._stop):  # one by one: NumPy would copy slices that overlap through as much memory again
                self._block[:, n - start] = self._block[:, n - self._start]
            self._start = start
        if stop > self._stop:
            upto = min(at + slab.shape[1], self._start + capacity)
            self._block[:, self._stop - self._start : upto - self._start] = slab[:, self._stop - at : upto - at]
            self._stop = upto
        return self._block[:, start - self._start : stop - self._start]
