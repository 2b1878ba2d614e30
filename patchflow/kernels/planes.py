"""Slices of a volume on another grid: linear interpolation along one axis after the other, and what lies outside.

Where the axes of two grids are parallel, a slice of the one lies between two slices of the other. Each of their rows is blended and
stretched once, and serves all rows between it and the next; only the stretching gathers, all else vectorises.
"""

from typing import NamedTuple

import numpy as np

from patchflow.kernels.jit import kernel
from patchflow.kernels.pointwise import flat_view
from patchflow.types import Affine, Array, Int3

EDGE = 0.5 + 1e-4
"""How far beyond its outermost voxel centres a grid reaches, in voxels: half a voxel, and what rounding in affines may add."""


class Taps(NamedTuple):
    """Between which two voxels each point along an axis lies.

    Attributes:
        lower: int64, the voxel before each point.
        upper: int64, the next one; the same where the axis has one voxel.
        weight: float32, that of `upper`, from 0 to 1.
        start, stop: the points that lie inside; all others are to be filled.
    """

    lower: Array
    upper: Array
    weight: Array
    start: int
    stop: int


def taps(scale: float, offset: float, size: int, n: int) -> Taps:
    """Of the points offset + scale x (0, 1, ..., size - 1) on an axis of `n` voxels; beyond the outermost voxels those are continued."""
    points = np.arange(size, dtype=np.float64) * scale + offset
    inside = np.flatnonzero((points >= -EDGE) & (points <= n - 1 + EDGE))
    points = points.clip(0, n - 1)
    lower = np.minimum(np.floor(points), max(n - 2, 0)).astype(np.int64)
    start, stop = (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)
    return Taps(lower, np.minimum(lower + 1, n - 1), (points - lower).astype(np.float32), start, stop)


def blend_planes(lower: Array, upper: Array, weight: float, rows: Taps, columns: Taps, fill: Array, out: Array, at: int) -> None:
    """Fill slice `at` of `out` with the slice that lies between two others, stretched in its plane.

    Args:
        lower, upper: float32 (C, J, K), of the same strides, the last axis contiguous.
        weight: that of `upper`, from 0 to 1.
        rows: for each row of the result, the rows of the slices between which it lies.
        columns: the same along K.
        fill: float32 (C,), what lies outside.
        out: C-contiguous float32 (C, i, j, k), j and k as many as there are rows and columns.
        at: which i.
    """
    (one, _, step), (two, _, _) = flat_view(lower), flat_view(upper)
    one.flags.writeable = two.flags.writeable = False  # one compiled kernel serves all slices
    _blend(one, two, step[:2], lower.shape[2], np.float32(weight), rows, columns, fill, out.reshape(-1), out.shape, at)


def plain_blend_planes(lower: Array, upper: Array, weight: float, rows: Taps, columns: Taps, fill: Array, out: Array, at: int) -> None:
    """The plain twin of `blend_planes`; agrees bit for bit."""
    plane = lower + np.float32(weight) * (upper - lower)
    plane = plane[..., columns.lower] + columns.weight * (plane[..., columns.upper] - plane[..., columns.lower])
    plane = plane[:, rows.lower] + rows.weight[:, None] * (plane[:, rows.upper] - plane[:, rows.lower])
    out[:, at] = fill[:, None, None]
    inside = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
    out[:, at, *inside] = plane[:, *inside]


def fill_outside(out: Array, matrix: Affine, first: Int3, shape: Int3, fill: Array) -> None:
    """Set those voxels of a patch to `fill` whose source points lie outside a volume.

    Args:
        out: C-contiguous (C, i, j, k) of any dtype of 1, 2, 4 or 8 bytes.
        matrix: 4x4 float64, output voxel to source voxel.
        first: the patch's first voxel.
        shape: voxels of the volume, which reaches half a voxel beyond its outermost voxel centres.
        fill: (C,) of the dtype of `out`.
    """
    bits = f"u{out.itemsize}"  # moved as they are, so that all dtypes of a size share one kernel
    _fill(out.reshape(-1).view(bits), out.shape, np.ascontiguousarray(matrix[:3]), first, shape, fill.view(bits))


def plain_fill_outside(out: Array, matrix: Affine, first: Int3, shape: Int3, fill: Array) -> None:
    """The plain twin of `fill_outside`; agrees voxel for voxel."""
    i, j, k = (np.arange(n, dtype=np.float64) + a for n, a in zip(out.shape[1:], first, strict=True))
    inside = np.ones(out.shape[1:], np.bool_)
    for row, n in zip(matrix[:3], shape, strict=True):
        points = ((row[0] * i[:, None, None] + row[1] * j[:, None]) + row[3]) + row[2] * k
        inside &= (points >= -EDGE) & (points <= n - 1 + EDGE)
    np.copyto(out, fill[:, None, None, None], where=~inside)


@kernel
def _blend(lower, upper, step, width, weight, rows, columns, fill, out, size, at):  # type: ignore[no-untyped-def]
    height, length = size[2], size[3]
    line, stretched = np.empty(width, np.float32), np.empty(2 * length, np.float32)
    for c in range(size[0]):
        held = [-1, -1]  # which row stands in each half of `stretched`: even ones in the first
        for q in range(height):
            end = ((c * size[1] + at) * height + q) * length
            result = out[end : end + length]
            if not rows.start <= q < rows.stop:
                result[:] = fill[c]
                continue
            for j in (rows.lower[q], rows.upper[q]):
                if held[j & 1] != j:
                    held[j & 1] = j
                    begin, half = c * step[0] + j * step[1], (j & 1) * length
                    _row(lower[begin : begin + width], upper[begin : begin + width], weight, columns, line, stretched[half : half + length])
            one, two = (rows.lower[q] & 1) * length, (rows.upper[q] & 1) * length
            _mix(stretched[one : one + length], stretched[two : two + length], rows.weight[q], result)
            result[: columns.start] = fill[c]
            result[columns.stop :] = fill[c]


@kernel
def _mix(one, two, weight, out):  # type: ignore[no-untyped-def]
    for q in range(out.size):
        out[q] = one[q] + weight * (two[q] - one[q])


@kernel
def _row(lower, upper, weight, columns, line, out):  # type: ignore[no-untyped-def]
    """The row between two others, stretched."""
    _mix(lower, upper, weight, line)
    before, after, weights = columns.lower, columns.upper, columns.weight
    for q in range(out.size):
        one, two = line[np.uint64(before[q])], line[np.uint64(after[q])]
        out[q] = one + weights[q] * (two - one)


@kernel
def _fill(out, size, matrix, first, shape, fill):  # type: ignore[no-untyped-def]
    channels, ni, nj, nk = size
    for i in range(ni):
        for j in range(nj):
            x, y = np.float64(first[0] + i), np.float64(first[1] + j)
            if _inside(matrix, x, y, np.float64(first[2]), shape) and _inside(matrix, x, y, np.float64(first[2] + nk - 1), shape):
                continue  # and so is what lies between: every step of the sum is monotone, rounding included
            for k in range(nk):
                if not _inside(matrix, x, y, np.float64(first[2] + k), shape):
                    for c in range(channels):
                        out[((c * ni + i) * nj + j) * nk + k] = fill[c]


@kernel
def _inside(matrix, i, j, k, shape):  # type: ignore[no-untyped-def]
    for axis in range(3):
        point = ((matrix[axis, 0] * i + matrix[axis, 1] * j) + matrix[axis, 3]) + matrix[axis, 2] * k
        if not -EDGE <= point <= shape[axis] - 1 + EDGE:
            return False
    return True
