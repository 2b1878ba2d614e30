"""The loops behind `resample`: a patch in tiles, a tile in rows, a row in chunks.

Along a row the voxels whose source lies inside the volume form one interval, as every step of the sum that gives a coordinate is monotone.
It is found once per row; the loops over it have no bounds checks and run in stages (points, gather, blend), of which all but the gather
vectorise. Voxels at the volume's border are done one by one.
"""

import math

import numba
import numpy as np

_CHUNK = 128  # voxels of a row that are worked on at a time: scratch arrays of known strides, small enough for the first cache
_TILE = 16  # rows of a tile along I and along J: the source of a tile stays in cache when a rotation turns rows across the memory's order


@numba.njit(nogil=True, cache=True)
def _base(matrix, i, j):  # type: ignore[no-untyped-def]
    """The sum up to the term in k, for each axis of the source."""
    return (
        (matrix[0, 0] * i + matrix[0, 1] * j) + matrix[0, 3],
        (matrix[1, 0] * i + matrix[1, 1] * j) + matrix[1, 3],
        (matrix[2, 0] * i + matrix[2, 1] * j) + matrix[2, 3],
    )


@numba.njit(nogil=True, cache=True)
def _interval(base, step, shift, low, high, first, last):  # type: ignore[no-untyped-def]
    """The k of [first, last) with low <= (base + step k) + shift < high: guessed by division, then settled by the very sum that is used."""
    if last <= first:
        return first, first
    if low <= (base + step * first) + shift < high and low <= (base + step * (last - 1)) + shift < high:
        return first, last  # most rows of a patch lie inside altogether
    if step == 0.0:
        return first, first
    one, two = (low - shift - base) / step, (high - shift - base) / step
    start = np.int64(math.ceil(min(max(min(one, two), np.float64(first)), np.float64(last))))
    while start > first and low <= (base + step * (start - 1)) + shift < high:
        start -= 1
    while start < last and not low <= (base + step * start) + shift < high:
        start += 1
    stop = np.int64(math.floor(min(max(max(one, two), np.float64(start)), np.float64(last))))
    while stop < last and low <= (base + step * stop) + shift < high:
        stop += 1
    while stop > start and not low <= (base + step * (stop - 1)) + shift < high:
        stop -= 1
    return start, stop


@numba.njit(nogil=True, cache=True)
def _intervals(base, slope, shift, low, highs, first, last):  # type: ignore[no-untyped-def]
    for axis in range(3):
        first, last = _interval(base[axis], slope[axis], shift, low, highs[axis], first, last)
    return first, last


@numba.njit(nogil=True, cache=True)
def _fetch(flat, offset, steps, box, shape, x, y, z, gain, bias, low, high, fill):  # type: ignore[no-untyped-def]
    """One corner's value as read; the fill outside the volume."""
    if x < 0 or y < 0 or z < 0 or x >= shape[0] or y >= shape[1] or z >= shape[2]:
        return fill
    value = gain * np.float64(flat[offset + (x - box[0]) * steps[1] + (y - box[1]) * steps[2] + (z - box[2])]) + bias
    return min(max(value, low), high)


@numba.njit(nogil=True, cache=True)
def _blend_at_border(flat, offset, steps, box, shape, x, y, z, gain, bias, low, high, fill):  # type: ignore[no-untyped-def]
    fx, fy, fz = np.int64(math.floor(x)), np.int64(math.floor(y)), np.int64(math.floor(z))
    tx, ty, tz = x - fx, y - fy, z - fz
    plane0 = plane1 = 0.0
    for dx in range(2):
        row0 = row1 = 0.0
        for dy in range(2):
            a = _fetch(flat, offset, steps, box, shape, fx + dx, fy + dy, fz, gain, bias, low, high, fill)
            b = _fetch(flat, offset, steps, box, shape, fx + dx, fy + dy, fz + 1, gain, bias, low, high, fill)
            row0, row1 = row1, a + tz * (b - a)
        plane0, plane1 = plane1, row0 + ty * (row1 - row0)
    return plane0 + tx * (plane1 - plane0)


@numba.njit(nogil=True, cache=True)
def _points(base, slope, k, count, steps, box, points, offsets):  # type: ignore[no-untyped-def]
    """For `count` voxels from k on: the fractions along the three axes, and where the lowest of the eight corners lies in memory."""
    for q in range(count):
        at = np.float64(np.int32(k + q))
        x, y, z = base[0] + slope[0] * at, base[1] + slope[1] * at, base[2] + slope[2] * at
        fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
        points[q] = x - fx
        points[_CHUNK + q] = y - fy
        points[2 * _CHUNK + q] = z - fz
        i, j = np.int64(np.int32(fx)) - box[0], np.int64(np.int32(fy)) - box[1]
        offsets[q] = i * steps[1] + j * steps[2] + (np.int64(np.int32(fz)) - box[2])


@numba.njit(nogil=True, cache=True)
def _gather(flat, offset, offsets, count, step_i, step_j, step_k, corners):  # type: ignore[no-untyped-def]
    """The eight corners of each point. Positions are unsigned: signed ones would be tested for counting from the end, at every voxel."""
    i, j, k = np.uint64(step_i), np.uint64(step_j), np.uint64(step_k)
    ij, ik, jk, ijk = i + j, i + k, j + k, i + j + k
    for q in range(count):
        at = np.uint64(offsets[q] + offset)
        corners[q] = flat[at]
        corners[_CHUNK + q] = flat[at + k]
        corners[2 * _CHUNK + q] = flat[at + j]
        corners[3 * _CHUNK + q] = flat[at + jk]
        corners[4 * _CHUNK + q] = flat[at + i]
        corners[5 * _CHUNK + q] = flat[at + ik]
        corners[6 * _CHUNK + q] = flat[at + ij]
        corners[7 * _CHUNK + q] = flat[at + ijk]


@numba.njit(nogil=True, cache=True, inline="always")
def _read(stored, gain, bias, low, high):  # type: ignore[no-untyped-def]
    return min(max(gain * np.float64(stored) + bias, low), high)


@numba.njit(nogil=True, cache=True)
def _blend_clamped(corners, points, count, gain, bias, low, high, row):  # type: ignore[no-untyped-def]
    for q in range(count):
        tx, ty, tz = points[q], points[_CHUNK + q], points[2 * _CHUNK + q]
        a, b = _read(corners[q], gain, bias, low, high), _read(corners[_CHUNK + q], gain, bias, low, high)
        c, d = _read(corners[2 * _CHUNK + q], gain, bias, low, high), _read(corners[3 * _CHUNK + q], gain, bias, low, high)
        e, f = _read(corners[4 * _CHUNK + q], gain, bias, low, high), _read(corners[5 * _CHUNK + q], gain, bias, low, high)
        g, h = _read(corners[6 * _CHUNK + q], gain, bias, low, high), _read(corners[7 * _CHUNK + q], gain, bias, low, high)
        a, c, e, g = a + tz * (b - a), c + tz * (d - c), e + tz * (f - e), g + tz * (h - g)
        a, e = a + ty * (c - a), e + ty * (g - e)
        row[q] = np.float32(a + tx * (e - a))


@numba.njit(nogil=True, cache=True)
def _blend(corners, points, count, gain, bias, row):  # type: ignore[no-untyped-def]
    """Blend, then map: without a clamp that is the same, and seven gains fewer."""
    for q in range(count):
        tx, ty, tz = points[q], points[_CHUNK + q], points[2 * _CHUNK + q]
        a, b = np.float64(corners[q]), np.float64(corners[_CHUNK + q])
        c, d = np.float64(corners[2 * _CHUNK + q]), np.float64(corners[3 * _CHUNK + q])
        e, f = np.float64(corners[4 * _CHUNK + q]), np.float64(corners[5 * _CHUNK + q])
        g, h = np.float64(corners[6 * _CHUNK + q]), np.float64(corners[7 * _CHUNK + q])
        a, c, e, g = a + tz * (b - a), c + tz * (d - c), e + tz * (f - e), g + tz * (h - g)
        a, e = a + ty * (c - a), e + ty * (g - e)
        row[q] = np.float32(gain * (a + tx * (e - a)) + bias)


@numba.njit(nogil=True, cache=True)
def _linear_row(flat, steps, box, shape, base, slope, k, values, out, ends, count, corners, points, offsets):  # type: ignore[no-untyped-def]
    """One row of every channel: the fill where no corner is inside, border voxels one by one, the inside in chunks."""
    gain, bias, low, high, fill = values
    reach = np.float64(shape[0]), np.float64(shape[1]), np.float64(shape[2])
    near, far = _intervals(base, slope, 0.0, -1.0, reach, k, k + count)
    # A row that runs exactly along the last plane of an axis has weight 0 on the plane beyond it, and is inside all the same
    flat_i = slope[0] == 0.0 and base[0] == math.floor(base[0])
    flat_j = slope[1] == 0.0 and base[1] == math.floor(base[1])
    flat_k = slope[2] == 0.0 and base[2] == math.floor(base[2])
    limits = reach[0] - (0.0 if flat_i else 1.0), reach[1] - (0.0 if flat_j else 1.0), reach[2] - (0.0 if flat_k else 1.0)
    first, last = _intervals(base, slope, 0.0, 0.0, limits, near, far)
    step_i, step_j, step_k = 0 if flat_i else steps[1], 0 if flat_j else steps[2], 0 if flat_k else 1
    for c in range(ends[0]):
        row = out[c * ends[1] + ends[2] : c * ends[1] + ends[2] + count]
        row[: near - k] = np.float32(fill)
        row[far - k :] = np.float32(fill)
        for at in range(near, far):
            if not first <= at < last:
                x, y, z = base[0] + slope[0] * at, base[1] + slope[1] * at, base[2] + slope[2] * at
                row[at - k] = _blend_at_border(flat, c * steps[0], steps, box, shape, x, y, z, gain, bias, low, high, fill)
    for at in range(first, last, _CHUNK):
        n = min(_CHUNK, last - at)
        _points(base, slope, at, n, steps, box, points, offsets)
        for c in range(ends[0]):
            _gather(flat, c * steps[0], offsets, n, step_i, step_j, step_k, corners)
            end = c * ends[1] + ends[2] + at - k
            row = out[end : end + n]
            if low > -np.inf or high < np.inf:
                _blend_clamped(corners, points, n, gain, bias, low, high, row)
            else:
                _blend(corners, points, n, gain, bias, row)


@numba.njit(nogil=True, cache=True)
def linear_rows(flat, steps, box, shape, matrix, start, size, values, out):  # type: ignore[no-untyped-def]
    voxels = size[0] * size[1] * size[2]
    corners, points, offsets = np.empty(8 * _CHUNK, flat.dtype), np.empty(3 * _CHUNK, np.float64), np.empty(_CHUNK, np.int64)
    slope = matrix[0, 2], matrix[1, 2], matrix[2, 2]
    for i0 in range(0, size[0], _TILE):
        for j0 in range(0, size[1], _TILE):
            for i in range(i0, min(i0 + _TILE, size[0])):
                for j in range(j0, min(j0 + _TILE, size[1])):
                    base = _base(matrix, start[0] + i, start[1] + j)
                    ends = out.size // voxels, voxels, (i * size[1] + j) * size[2]
                    _linear_row(flat, steps, box, shape, base, slope, start[2], values, out, ends, size[2], corners, points, offsets)


@numba.njit(nogil=True, cache=True)
def _nearest_row(flat, steps, box, shape, base, slope, k, fill, out, ends, count, offsets):  # type: ignore[no-untyped-def]
    reach = np.float64(shape[0]), np.float64(shape[1]), np.float64(shape[2])
    first, last = _intervals(base, slope, 0.5, 0.0, reach, k, k + count)
    for c in range(ends[0]):
        row = out[c * ends[1] + ends[2] : c * ends[1] + ends[2] + count]
        row[: first - k] = fill
        row[last - k :] = fill
    for at in range(first, last, _CHUNK):
        n = min(_CHUNK, last - at)
        for q in range(n):
            voxel = np.float64(np.int32(at + q))
            x, y, z = base[0] + slope[0] * voxel, base[1] + slope[1] * voxel, base[2] + slope[2] * voxel
            i, j = np.int64(np.int32(np.floor(x + 0.5))) - box[0], np.int64(np.int32(np.floor(y + 0.5))) - box[1]
            offsets[q] = i * steps[1] + j * steps[2] + (np.int64(np.int32(np.floor(z + 0.5))) - box[2])
        for c in range(ends[0]):
            end = c * ends[1] + ends[2] + at - k
            row = out[end : end + n]
            for q in range(n):
                row[q] = flat[np.uint64(c * steps[0] + offsets[q])]  # unsigned: see `_gather`


@numba.njit(nogil=True, cache=True)
def nearest_rows(flat, steps, box, shape, matrix, start, size, fill, out):  # type: ignore[no-untyped-def]
    voxels = size[0] * size[1] * size[2]
    offsets = np.empty(_CHUNK, np.int64)
    slope = matrix[0, 2], matrix[1, 2], matrix[2, 2]
    for i0 in range(0, size[0], _TILE):
        for j0 in range(0, size[1], _TILE):
            for i in range(i0, min(i0 + _TILE, size[0])):
                for j in range(j0, min(j0 + _TILE, size[1])):
                    base = _base(matrix, start[0] + i, start[1] + j)
                    ends = out.size // voxels, voxels, (i * size[1] + j) * size[2]
                    _nearest_row(flat, steps, box, shape, base, slope, start[2], fill, out, ends, size[2], offsets)
