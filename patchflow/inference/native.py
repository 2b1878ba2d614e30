"""Back to the source's own grid: slabs of a prediction go in, slabs on another grid come out, in bounded memory.

A map between two grids is affine, so a slice of the target touches a range of the source's slices that its corners tell. Slices of the
target are worked out one after the other along the axis that runs most along the source's I, each as soon as its range is there, and
slices of the source are let go once no later slice touches them. Nothing but the slice itself decides how it is computed, so the result
is the same bit for bit however the source is cut into slabs.
"""

import math
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from patchflow.errors import ArgumentError, InferenceError
from patchflow.geometry.location import PatchLocation
from patchflow.geometry.maps import SpatialMap
from patchflow.geometry.space import VoxelGrid, matched_axes, straightened, voxel_map, whole_move
from patchflow.inference.slices import HeldSlices, moved_order, touched_order
from patchflow.kernels.planes import blend_planes, fill_outside, taps
from patchflow.kernels.pointwise import IntensityMap
from patchflow.kernels.resample import Box, resample
from patchflow.types import Array, Int3

_PIECE_BYTES = 2**25


class SlabResampler:
    """Brings the slabs of a volume to another grid.

    Floating voxels of any precision are interpolated linearly between the eight around a point and come out as float32. Integers and
    booleans are labels and take the nearest voxel (ties go to the higher index). Where the map only permutes, mirrors and shifts whole
    voxels, slabs of any dtype are moved as they are. Target voxels are points: nothing is smoothed where the target is coarser.

    Inside the half voxel between the source's outermost voxel centres and its border, the nearest point between the centres is taken;
    beyond it (and 1e-4 voxel, so that rounding in affines loses nothing) lies the fill.

    Args:
        source: where the voxels of the slabs lie.
        target: where the voxels are wanted.
        fill: the value of target voxels outside the source's grid: a number, or one for each channel.

    Attributes:
        axis: the target's axis along which slabs are given out: the one over which the source's i changes most.
        exact: whether the map moves whole voxels, to a thousandth of a voxel over the whole extent.

    Raises:
        ArgumentError: for a grid without voxels, an affine that cannot be inverted, or a fill that is no number.
    """

    def __init__(self, source: VoxelGrid, target: VoxelGrid, fill: Sequence[float] | float = 0) -> None:
        self.source, self.target = source, target
        self._fill = _read_fill(fill)
        matrix = voxel_map(source, target)
        self._move = whole_move(matrix, target.shape)
        self.exact = self._move is not None
        self._axes = matched_axes(matrix, target.shape)
        self.axis = self._axes[0]
        a, b, c = self._axes
        self._size: Int3 = target.shape[a], target.shape[b], target.shape[c]  # of the target, with its axes in the order of the source's
        self._matrix, self._parallel = straightened(matrix[:, [a, b, c, 3]], self._size)
        self._taps = [taps(self._matrix[n, n], self._matrix[n, 3], self._size[n], source.shape[n]) for n in range(3)]
        n = self._size[0]
        self._order = moved_order(self._move, n, source.shape[0]) if self._move else touched_order(self._matrix, self._size, source.shape)
        needed = int((self._order.stop - self._order.start).max())
        self._capacity = min(needed + max(needed - 1, 0) // 2, source.shape[0])  # room to spare, so that slices are seldom moved up
        self._done = self._pushed = 0
        self._busy = False
        self._held: HeldSlices | None = None
        self._kind: tuple[int, np.dtype] | None = None
        self._fills = np.empty(0)

    def held(self) -> int:
        """The most slices (J, K) of the source held at once: 2 where axes are parallel, 0 where voxels are only moved."""
        return 0 if self.exact else self._capacity

    def memory(self, channels: int, dtype: npt.DTypeLike = np.float32) -> int:
        """The most bytes taken beside a slab that was pushed: the slices held, and the piece that is given out.

        Args:
            channels: of the slabs.
            dtype: of the slabs.
        """
        given = self._given(np.dtype(dtype))
        slices = channels * given.itemsize * self._size[1] * self._size[2]
        piece = min(self._thickness(channels, given), self._size[0]) * slices
        again = piece if self._is_turned else 0
        scratch = 0 if self._parallel and given.kind == "f" else slices
        held = self.held() * channels * given.itemsize * self.source.shape[1] * self.source.shape[2]
        return piece if self.exact else piece + again + scratch + held

    def push(self, first: int, slab: Array) -> Iterator[tuple[int, Array]]:
        """Take the next slices of the source and give out what they complete of the target.

        Args:
            first: the slab's first slice along I: 0, and then the one after the last that was pushed.
            slab: (C, t, J, K), t at least 1; left as it is until the last piece has been taken.

        Yields:
            The first slice along `axis`, and slices of the target: (C, I', J', K') with a few slices along `axis` and all of the others, in
            new memory, C-contiguous. Pieces follow each other without gaps, upwards or downwards along `axis`, and are of about 32 MiB or
            one slice. Slices outside the source come with the first or the last slab.

        Raises:
            ArgumentError: for a slab of another shape, dtype or place than expected, a fill that its dtype cannot hold or of another
                number of channels.
            InferenceError: if not all pieces of the slab before were taken.
        """
        slab = np.asarray(slab)
        self._check(first, slab)
        if self._kind is None:
            self._begin(slab)
        self._busy = True
        return self._pieces(slab)

    def _pieces(self, slab: Array) -> Iterator[tuple[int, Array]]:
        stop = self._pushed + slab.shape[1]
        ready = int(np.searchsorted(self._order.stop, stop, "right"))
        while self._done < ready:
            count = min(self._thickness(len(slab), self._fills.dtype), ready - self._done)
            places = self._order.place[self._done : self._done + count]
            piece = self._moved(slab, int(places.min()), count) if self._move else self._blended(slab, int(places.min()), count)
            self._done += count
            yield int(places.min()), piece
            del piece  # so that one piece is alive at a time
        if self._held and self._done < self._size[0] and (start := int(self._order.start[self._done])) < stop:
            self._held.take(slab, self._pushed, start, stop)
        if stop == self.source.shape[0]:
            self._held = None
        self._pushed, self._busy = stop, False

    def _blended(self, slab: Array, first: int, count: int) -> Array:
        """Target slices `first` to `first + count`, worked out with the target's axes in the order of the source's."""
        work = np.empty((len(slab), count, *self._size[1:]), self._fills.dtype)
        for done in range(self._done, self._done + count):
            place = int(self._order.place[done])
            if self._order.outside[done]:
                work[:, place - first] = self._fills[:, None, None]
            else:
                self._slice(slab, place, int(self._order.start[done]), int(self._order.stop[done]), work, place - first)
        return np.ascontiguousarray(work.transpose(0, *(1 + self._axes.index(axis) for axis in range(3))))

    def _slice(self, slab: Array, place: int, start: int, stop: int, work: Array, at: int) -> None:
        """Fill work[:, at] with target slice `place`, which touches the source's slices `start` to `stop`."""
        assert self._held is not None
        region = self._held.take(slab, self._pushed, start, stop)
        is_label = region.dtype.kind != "f"
        if self._parallel and not is_label:
            along, rows, columns = self._taps
            lower, upper = (region[:, tap[place] - start] for tap in (along.lower, along.upper))
            blend_planes(lower, upper, along.weight[place], rows, columns, self._fills, work, at)
            return
        location = PatchLocation((place, 0, 0), (1, *self._size[1:]))
        box = Box((start, 0, 0), (stop, *self.source.shape[1:]))
        out = np.empty((len(slab), *location.size), work.dtype)
        source, intensities = SpatialMap.affine(self._matrix), None if is_label else IntensityMap()
        resample(region, box, self.source.shape, source, location, intensities, 0, "border", "nearest" if is_label else "linear", out)
        fill_outside(out, self._matrix, location.start, self.source.shape, self._fills)
        work[:, at] = out[:, 0]

    def _moved(self, slab: Array, first: int, count: int) -> Array:
        """Target slices `first` to `first + count`, moved straight from the slab where they lie in it."""
        assert self._move is not None
        size, starts = list(self.target.shape), [0, 0, 0]
        size[self.axis], starts[self.axis] = count, first
        piece = np.empty((len(slab), *size), self._fills.dtype)
        begins, lengths = (self._pushed, 0, 0), slab.shape[1:]
        into, out_of, whole = [slice(None)] * 3, [slice(None)] * 3, True
        for row, (axis, sign, shift) in enumerate(zip(*self._move, strict=True)):
            shift += sign * starts[axis] - begins[row]  # from the piece's voxel to the slab's
            ends = sorted((sign * (0 - shift), sign * (lengths[row] - 1 - shift)))
            low, high = max(ends[0], 0), min(ends[1] + 1, size[axis])
            whole &= (low, high) == (0, size[axis])
            into[axis] = slice(low, max(low, high))
            ends = sorted((sign * low + shift, sign * (high - 1) + shift))
            out_of[row] = slice(ends[0], ends[1] + 1) if low < high else slice(0, 0)
        if not whole:
            piece[...] = self._fills[:, None, None, None]
        if all(part.start < part.stop for part in into):
            part = slab[:, *out_of][:, *(slice(None, None, sign) for sign in self._move.signs)]
            piece[:, *into] = part.transpose(0, *(1 + self._axes.index(axis) for axis in range(3)))
        return piece

    @property
    def _is_turned(self) -> bool:
        return self._axes != (0, 1, 2)

    def _given(self, dtype: np.dtype) -> np.dtype:
        """The dtype of what is given out for slabs of `dtype`."""
        if self.exact:
            return dtype
        return np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")

    def _thickness(self, channels: int, dtype: np.dtype) -> int:
        """Slices of a piece of `dtype`."""
        copies = 2 if self._is_turned and not self.exact else 1
        return max(1, _PIECE_BYTES // (copies * channels * dtype.itemsize * self._size[1] * self._size[2]))

    def _check(self, first: int, slab: Array) -> None:
        if self._busy:
            raise InferenceError("not all pieces of the slab before were taken: go through what push gives out before the next push")
        if slab.ndim != 4 or slab.shape[2:] != self.source.shape[1:] or 0 in slab.shape:
            _, j, k = self.source.shape
            raise ArgumentError(f"a slab of the source must be (C, t, {j}, {k}) with C and t at least 1, not {slab.shape}")
        if first != self._pushed or first + slab.shape[1] > self.source.shape[0]:
            raise ArgumentError(
                f"slices {first} to {first + slab.shape[1]} were pushed: expected are those from {self._pushed} on, "
                f"up to {self.source.shape[0]}"
            )
        if self._kind not in (None, (len(slab), slab.dtype)):
            raise ArgumentError(f"slabs must be alike: {len(slab)} channels of {slab.dtype} after {self._kind[0]} of {self._kind[1]}")

    def _begin(self, slab: Array) -> None:
        """Read from the first slab what is to be held and filled."""
        dtype = self._given(slab.dtype)
        if not self.exact:
            if dtype.kind not in "biuf":
                raise ArgumentError(f"voxels of {dtype} can be moved, but not interpolated, which this map asks for")
            self._held = HeldSlices((len(slab), self._capacity, *self.source.shape[1:]), dtype)
        self._fills = _fills(self._fill, len(slab), dtype)
        self._kind = len(slab), slab.dtype


def _read_fill(fill: Any) -> tuple[float, ...] | float:
    values = tuple(fill) if isinstance(fill, (Sequence, np.ndarray)) else (fill,)
    if not values or not all(isinstance(value, Real) for value in values):
        raise ArgumentError(f"fill must be a number or one for each channel, not {fill!r}")
    return values if isinstance(fill, (Sequence, np.ndarray)) else values[0]


def _fills(fill: tuple[float, ...] | float, channels: int, dtype: np.dtype) -> Array:
    """The fill of each channel, (C,)."""
    values = fill if isinstance(fill, tuple) else (fill,) * channels
    if len(values) != channels:
        raise ArgumentError(f"fill has {len(values)} values, and the slabs {channels} channels")
    for value in values:
        if dtype.kind == "b":
            fits = value in (0, 1)
        elif dtype.kind in "iu":
            fits = math.isfinite(value) and value == int(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
        else:
            fits = dtype.kind not in "f" or not math.isfinite(value) or abs(value) <= float(np.finfo(dtype).max)
        if not fits:
            raise ArgumentError(f"fill is {value!r}, which {dtype} does not hold: choose another for slabs of that dtype")
    return np.array(values, dtype)
