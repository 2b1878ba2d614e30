"""Cubic B-spline interpolation: coefficients by recursive filters, then 64 taps around each source point.

Source: Unser, "Splines: a perfect fit for signal and image processing", IEEE Signal Processing Magazine 16, 1999. The filter mirrors about
the first and the last voxel of the region. At a side that is not the volume's border that is wrong, and forgotten at a rate of
|POLE| = 0.268 a voxel: `MARGIN` voxels away 1e-8 of the range is left.
"""

import math

import numpy as np
import numpy.typing as npt

from patchflow.kernels.displacement import spline_weights
from patchflow.kernels.jit import kernel
from patchflow.kernels.linear import add_weighted
from patchflow.kernels.places import whole_number
from patchflow.kernels.points import CHUNK, row_points
from patchflow.kernels.pointwise import IntensityMap, apply_map
from patchflow.kernels.registers import sum_of_sixteen
from patchflow.kernels.rows import BORDER, CONSTANT, REFLECT, fold_points, mark, nth_row
from patchflow.types import Array, Int3

POLE = math.sqrt(3) - 2
MARGIN = 14
_f = np.float32
_POLE = _f(POLE)
_END = _f(POLE / (POLE * POLE - 1))
_HORIZON = 20  # voxels after which the pole's powers are below 1e-11
_LANES = 16
_BEFORE, _AFTER = 1, 2  # voxels that the taps reach beyond the ends of the region


def coefficients(region: Array, intensities: IntensityMap) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """The spline's coefficients of a region's values as read.

    They are float32, and of the values less a level of their own channel, so that a large offset takes none of their digits.

    Args:
        region: (C, i, j, k) stored voxels.
        intensities: stored voxel to value as read.

    Returns:
        float32 (C, i + 3, j + 3, k + 3): one coefficient before the first and two after the last along each axis, mirrored; and the
        channels' levels, float64 (C,).
    """
    size = region.shape[1:]
    m = intensities
    stored = region[:, size[0] // 2, size[1] // 2, size[2] // 2].astype(np.float64)
    levels = np.clip(stored * m.gain + m.bias, m.low, m.high)
    padded = np.empty((len(region), *(n + _BEFORE + _AFTER for n in size)), np.float32)
    gain = math.prod(6.0 for n in size if n > 1)  # of the filters along the axes
    for channel, level, values in zip(region, levels.tolist(), padded, strict=True):
        core = values[1 : 1 + size[0], 1 : 1 + size[1], 1 : 1 + size[2]]
        shifted = IntensityMap(m.gain * gain, (m.bias - level) * gain, (m.low - level) * gain, (m.high - level) * gain)
        apply_map(channel[None], shifted, core[None])
        (_, j, k), flat = values.shape, values.reshape(-1)
        rows, column, line = np.arange(1, 1 + size[0]) * j * k, np.arange(1, 1 + size[1]) * k, np.empty(j * k, np.float32)
        _filter_along_rows(flat, (rows[:, None] + column).reshape(-1) + 1, size[2], _mirrored(size[2]), *_start(size[2]))
        _filter_across(flat, rows, size[1], k, k, _mirrored(size[1]), *_start(size[1]), line)
        _filter_across(flat, np.arange(j) * k, size[0], j * k, k, _mirrored(size[0]), *_start(size[0]), line)
    return padded, levels


def _start(n: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The filter's first value as a sum over the first voxels, mirrored: their weights and places."""
    if n == 1:
        return np.ones(1, np.float32), np.zeros(1, np.int64)
    count = _HORIZON if n > _HORIZON else 2 * n - 2
    weights = POLE ** np.arange(count) / (1.0 if n > _HORIZON else 1 - POLE**count)
    places = np.arange(count)
    return weights.astype(np.float32), np.minimum(places, 2 * n - 2 - places)


def _mirrored(n: int) -> Int3:
    """The voxels that stand in for the one before the first and the two after the last."""
    return (1, n - 2, abs(n - 3)) if n > 1 else (0, 0, 0)


@kernel
def _filter_along_rows(flat, starts, n, mirrored, weights, places):  # type: ignore[no-untyped-def]
    """In place along rows of `n` that begin at `starts`: sixteen side by side, turned so that they fill registers."""
    block = np.empty((n + 1) * _LANES, np.float32)
    for first in range(0, starts.size, _LANES):
        lanes = min(_LANES, starts.size - first)
        for lane in range(lanes):
            row = flat[starts[first + lane] : starts[first + lane] + n]
            for k in range(n):
                block[np.uint64(k * _LANES + lane)] = row[k]
        _filter(block, 0, n, _LANES, _LANES, weights, places, block[n * _LANES :])
        for lane in range(lanes):
            row = flat[starts[first + lane] - 1 : starts[first + lane] + n + 2]
            for k in range(n):
                row[k + 1] = block[np.uint64(k * _LANES + lane)]
            row[0], row[n + 1], row[n + 2] = row[1 + mirrored[0]], row[1 + mirrored[1]], row[1 + mirrored[2]]


@kernel
def _filter_across(flat, starts, n, step, width, mirrored, weights, places, line):  # type: ignore[no-untyped-def]
    """In place across `n` rows `step` apart, of which the one before the first begins at each of `starts`."""
    for start in starts:
        first = start + step
        if n > 1:
            _filter(flat, first, n, step, width, weights, places, line)
        for place in range(3):
            target = start if place == 0 else first + (n + place - 1) * step
            flat[target : target + width] = flat[first + mirrored[place] * step : first + mirrored[place] * step + width]


@kernel
def _filter(flat, first, n, step, width, weights, places, line):  # type: ignore[no-untyped-def]
    """In place across `n` rows of `width`, `step` apart: forwards, then backwards. `line` carries one row to the next."""
    if n == 1:
        return
    line[:width] = _f(0)
    for m in range(weights.size):
        at, weight = np.uint64(first + places[m] * step), weights[m]
        for q in range(width):
            line[q] += weight * flat[at + np.uint64(q)]
    flat[first : first + width] = line[:width]
    for m in range(1, n):
        at = np.uint64(first + m * step)
        for q in range(width):
            value = flat[at + np.uint64(q)] + _POLE * line[q]
            line[q] = value
            flat[at + np.uint64(q)] = value
    at, before = np.uint64(first + (n - 1) * step), np.uint64(first + (n - 2) * step)
    for q in range(width):
        line[q] = _END * (flat[at + np.uint64(q)] + _POLE * flat[before + np.uint64(q)])
    flat[first + (n - 1) * step : first + (n - 1) * step + width] = line[:width]
    for m in range(n - 2, -1, -1):
        at = np.uint64(first + m * step)
        for q in range(width):
            value = _POLE * (line[q] - flat[at + np.uint64(q)])
            line[q] = value
            flat[at + np.uint64(q)] = value


@kernel
def _weigh(points, steps, count, low, high, taps, offsets):  # type: ignore[no-untyped-def]
    """The four weights of each point along each axis, and the place of its first tap; points outside the region are moved there."""
    for axis in range(3):
        along, weights, step = points[axis * CHUNK : axis * CHUNK + count], taps[4 * axis * CHUNK :], np.float64(steps[axis + 1])
        for q in range(count):
            x = min(max(along[q], low[axis]), high[axis])
            whole = np.floor(x)
            w0, w1, w2, w3 = spline_weights(x - whole)
            weights[q] = _f(w0)
            weights[CHUNK + q] = _f(w1)
            weights[2 * CHUNK + q] = _f(w2)
            weights[3 * CHUNK + q] = _f(w3)
            along[q] = (whole - low[axis]) * step
    for q in range(count):
        offsets[q] = whole_number((points[q] + points[CHUNK + q]) + points[2 * CHUNK + q])


@kernel
def _read(flat, offset, steps, taps, offsets, count, sums):  # type: ignore[no-untyped-def]
    """Sums over I and J of each point's taps: four along K are left."""
    plane, row = np.uint64(steps[1]), np.uint64(steps[2])
    for q in range(count):
        along = taps[q], taps[CHUNK + q], taps[2 * CHUNK + q], taps[3 * CHUNK + q]
        across = taps[4 * CHUNK + q], taps[5 * CHUNK + q], taps[6 * CHUNK + q], taps[7 * CHUNK + q]
        s0, s1, s2, s3 = sum_of_sixteen(flat, np.uint64(offset + offsets[q]), plane, row, along, across)
        sums[q] = s0
        sums[CHUNK + q] = s1
        sums[2 * CHUNK + q] = s2
        sums[3 * CHUNK + q] = s3


@kernel
def _sum(sums, weights, level, count, line):  # type: ignore[no-untyped-def]
    for q in range(count):
        one = sums[q] * weights[q] + sums[CHUNK + q] * weights[CHUNK + q]
        two = sums[2 * CHUNK + q] * weights[2 * CHUNK + q] + sums[3 * CHUNK + q] * weights[3 * CHUNK + q]
        line[q] = _f(level + np.float64(one + two))


@kernel
def cubic_rows(flat, levels, steps, box, shape, stages, choices, start, size, fill, outside, out):  # type: ignore[no-untyped-def]
    """Fill `out` from coefficients; points more than half a voxel outside the volume get the fill where `outside` is CONSTANT."""
    low = np.float64(box[0][0]), np.float64(box[0][1]), np.float64(box[0][2])
    high = np.float64(box[1][0] - 1), np.float64(box[1][1] - 1), np.float64(box[1][2] - 1)
    near = np.float64(0), np.float64(0), np.float64(0)
    ends = np.float64(shape[0] - 1), np.float64(shape[1] - 1), np.float64(shape[2] - 1)
    far = np.nextafter(np.float64(shape[0]), 0), np.nextafter(np.float64(shape[1]), 0), np.nextafter(np.float64(shape[2]), 0)
    points, spare = np.empty(3 * CHUNK), np.empty(16 * CHUNK)
    flags, line, sums = np.empty(CHUNK, np.bool_), np.empty(CHUNK, np.float32), np.empty(4 * CHUNK, np.float32)
    taps, offsets = np.empty(12 * CHUNK, np.float32), np.empty(CHUNK, np.int64)
    for n in range(size[0] * size[1]):
        i, j = nth_row(n, size)
        for k in range(0, size[2], CHUNK):
            count = min(CHUNK, size[2] - k)
            for choice in range(choices):
                row_points(stages, start[0] + i, start[1] + j, start[2] + k, choice, start[2], points, spare, count)
                inside = count
                if mark(points, 0.0, count, near, ends, flags) < count:
                    inside = mark(points, 0.5, count, near, far, flags) if outside == CONSTANT else count
                    fold_points(points, count, shape, BORDER if outside == BORDER else REFLECT)
                _weigh(points, steps, count, low, high, taps, offsets)
                for c in range(levels.size):
                    end = ((c * size[0] + i) * size[1] + j) * size[2] + k
                    row = out[end : end + count]
                    _read(flat, c * steps[0], steps, taps, offsets, count, sums)
                    _sum(sums, taps[8 * CHUNK :], levels[c], count, line)
                    if inside < count:
                        for q in range(count):
                            line[q] = line[q] if flags[q] else fill
                    if choices > 1:
                        add_weighted(line, spare[15 * CHUNK :], choice == 0, row)
                    else:
                        row[:] = line[:count]
