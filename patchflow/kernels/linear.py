"""Linear interpolation between the eight voxels around each source point."""

import math

import numpy as np

from patchflow.kernels.jit import inlined, kernel
from patchflow.kernels.places import affine_cells, cells, row_is_inside
from patchflow.kernels.points import CHUNK, row_points
from patchflow.kernels.registers import fetch_ahead
from patchflow.kernels.rows import CONSTANT, corner, fold_points, limits, nth_row

_f = np.float32
_AHEAD = 6  # voxels between fetches
_C, _E, _G = 2 * CHUNK, 4 * CHUNK, 6 * CHUNK  # where the pairs of corners stand in their scratch array


@kernel
def look_up(table, stored):  # type: ignore[no-untyped-def]
    """What a table says of a stored voxel, an unsigned number; the voxel itself where there is no table."""
    return stored if table is None else table[stored]


@kernel
def gather(flat, table, offset, offsets, count, steps, corners):  # type: ignore[no-untyped-def]
    """The eight corners of each point, as pairs. Positions are unsigned: signed ones would be tested for counting from the end."""
    i, j, k = np.uint64(steps[1]), np.uint64(steps[2]), np.uint64(1)
    ij = i + j
    for q in range(0, count, _AHEAD):  # the next row of a tile mostly lies one further along J: a tenth to a quarter less time
        at = np.uint64(offsets[q] + offset) + j + j
        fetch_ahead(flat, at)
        fetch_ahead(flat, at + i)
    for q in range(count):
        at = np.uint64(offsets[q] + offset)
        a, b = look_up(table, flat[at]), look_up(table, flat[at + k])
        c, d = look_up(table, flat[at + j]), look_up(table, flat[at + j + k])
        e, f = look_up(table, flat[at + i]), look_up(table, flat[at + i + k])
        g, h = look_up(table, flat[at + ij]), look_up(table, flat[at + ij + k])
        corners[2 * q], corners[2 * q + 1] = a, b
        corners[_C + 2 * q], corners[_C + 2 * q + 1] = c, d
        corners[_E + 2 * q], corners[_E + 2 * q + 1] = e, f
        corners[_G + 2 * q], corners[_G + 2 * q + 1] = g, h


@inlined
def _mix(a, b, c, d, e, f, g, h, tx, ty, tz):  # type: ignore[no-untyped-def]
    """How far the blend of eight lies above the first: a sum of differences, so that little is lost where values are large and alike."""
    p, q, r, s = tz * (b - a), (c - a) + tz * (d - c), (e - a) + tz * (f - e), (g - a) + tz * (h - g)
    p, r = p + ty * (q - p), r + ty * (s - r)
    return p + tx * (r - p)


@inlined
def read(stored, gain, bias, low, high):  # type: ignore[no-untyped-def]
    return min(max(gain * np.float64(stored) + bias, low), high)


@kernel
def _blend(corners, fractions, count, gain, bias, row, work):  # type: ignore[no-untyped-def]
    """Blend, then map: without a clamp that is the same, and seven gains fewer."""
    for q in range(count):
        tx, ty, tz = work(fractions[q]), work(fractions[CHUNK + q]), work(fractions[2 * CHUNK + q])
        a, b, c, d = work(corners[2 * q]), work(corners[2 * q + 1]), work(corners[_C + 2 * q]), work(corners[_C + 2 * q + 1])
        e, f, g, h = work(corners[_E + 2 * q]), work(corners[_E + 2 * q + 1]), work(corners[_G + 2 * q]), work(corners[_G + 2 * q + 1])
        row[q] = _f(gain * (np.float64(a) + np.float64(_mix(a, b, c, d, e, f, g, h, tx, ty, tz))) + bias)


@kernel
def _blend_clamped(corners, fractions, count, gain, bias, low, high, row):  # type: ignore[no-untyped-def]
    for q in range(count):
        tx, ty, tz = np.float64(fractions[q]), np.float64(fractions[CHUNK + q]), np.float64(fractions[2 * CHUNK + q])
        a, b = read(corners[2 * q], gain, bias, low, high), read(corners[2 * q + 1], gain, bias, low, high)
        c, d = read(corners[_C + 2 * q], gain, bias, low, high), read(corners[_C + 2 * q + 1], gain, bias, low, high)
        e, f = read(corners[_E + 2 * q], gain, bias, low, high), read(corners[_E + 2 * q + 1], gain, bias, low, high)
        g, h = read(corners[_G + 2 * q], gain, bias, low, high), read(corners[_G + 2 * q + 1], gain, bias, low, high)
        row[q] = _f(a + _mix(a, b, c, d, e, f, g, h, tx, ty, tz))


@kernel
def _value(flat, offset, steps, box, shape, x, y, z, values):  # type: ignore[no-untyped-def]
    gain, bias, low, high, fill, table = values
    there, stored = corner(flat, offset, steps, box, shape, x, y, z, flat[0])
    return read(look_up(table, stored), gain, bias, low, high) if there else fill


@kernel
def _at_border(flat, offset, steps, box, shape, x, y, z, values):  # type: ignore[no-untyped-def]
    """One point of which not all neighbours lie in the volume: each that does not counts as the fill."""
    if not (-1.0 < x < shape[0] and -1.0 < y < shape[1] and -1.0 < z < shape[2]):
        return values[4]
    i, j, k = np.int64(math.floor(x)), np.int64(math.floor(y)), np.int64(math.floor(z))
    a, b = _value(flat, offset, steps, box, shape, i, j, k, values), _value(flat, offset, steps, box, shape, i, j, k + 1, values)
    c, d = _value(flat, offset, steps, box, shape, i, j + 1, k, values), _value(flat, offset, steps, box, shape, i, j + 1, k + 1, values)
    i += 1
    e, f = _value(flat, offset, steps, box, shape, i, j, k, values), _value(flat, offset, steps, box, shape, i, j, k + 1, values)
    g, h = _value(flat, offset, steps, box, shape, i, j + 1, k, values), _value(flat, offset, steps, box, shape, i, j + 1, k + 1, values)
    return a + _mix(a, b, c, d, e, f, g, h, x - (i - 1), y - j, z - k)


@kernel
def add_weighted(line, weights, first, row):  # type: ignore[no-untyped-def]
    """Blend one reading of a chunk into its row."""
    for q in range(row.size):
        before = np.float64(0) if first else np.float64(row[q])
        row[q] = _f(before + weights[q] * np.float64(line[q]))


@kernel
def linear_rows(flat, steps, box, shape, stages, choices, start, size, values, outside, out, work, held):  # type: ignore[no-untyped-def]
    """Fill `out`; where the map has coarse stages, with the weighted sum of a reading for each choice of their samples.

    Corners are `held` in one dtype (that of the table, or of `flat` without one) and blended in another, `work`.
    """
    gain, bias, least, most, _, table = values
    clamped = least > -np.inf or most < np.inf
    low, high, has_cells = limits(box)
    jumps = np.float64(steps[1]), np.float64(steps[2])
    shift = -(box[0][0] * steps[1] + box[0][1] * steps[2] + box[0][2])
    channels = out.size // (size[0] * size[1] * size[2])
    points, spare = np.empty(3 * CHUNK), np.empty(16 * CHUNK)
    corners, fractions, offsets = np.empty(8 * CHUNK, held), np.empty(3 * CHUNK, np.float32), np.empty(CHUNK, np.int64)
    flags, line = np.empty(CHUNK, np.bool_), np.empty(CHUNK, np.float32)
    for n in range(size[0] * size[1]):
        i, j = nth_row(n, size)
        for k in range(0, size[2], CHUNK):
            count = min(CHUNK, size[2] - k)
            at = start[0] + i, start[1] + j, start[2] + k
            for choice in range(choices):
                inside = count
                if has_cells and row_is_inside(stages, *at, 0.0, low, high, count):
                    affine_cells(stages, *at, count, jumps, high, fractions, offsets)
                else:
                    row_points(stages, *at, choice, start[2], points, spare, count)
                    inside = cells(points, count, jumps, low, high, flags, fractions, offsets) if has_cells else 0
                    if inside < count and outside != CONSTANT:
                        fold_points(points, count, shape, outside)
                        inside = cells(points, count, jumps, low, high, flags, fractions, offsets) if has_cells else 0
                for c in range(channels):
                    end = ((c * size[0] + i) * size[1] + j) * size[2] + k
                    row = out[end : end + count] if choices == 1 else line[:count]
                    if inside:
                        gather(flat, table, c * steps[0] + shift, offsets, count, steps, corners)
                        if clamped:
                            _blend_clamped(corners, fractions, count, gain, bias, least, most, row)
                        else:
                            _blend(corners, fractions, count, gain, bias, row, work)
                    if inside < count:
                        for q in range(count):
                            if not (inside and flags[q]):
                                x, y, z = points[q], points[CHUNK + q], points[2 * CHUNK + q]
                                row[q] = _f(_at_border(flat, c * steps[0], steps, box, shape, x, y, z, values))
                    if choices > 1:
                        add_weighted(row, spare[15 * CHUNK :], choice == 0, out[end : end + count])
