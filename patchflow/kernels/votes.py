"""Labels between voxels: the label with most weight among the eight voxels around a source point.

That is the arg-max of linearly interpolated one-hot labels, without a one-hot volume: the weights of equal labels are added. Ties go to the
label of the nearest voxel where it is among the tied, else to the lowest.
"""

import math

import numpy as np

from patchflow.kernels.jit import kernel
from patchflow.kernels.linear import gather
from patchflow.kernels.places import affine_voxels, row_is_inside, voxels
from patchflow.kernels.points import CHUNK, row_points
from patchflow.kernels.rows import CONSTANT, corner, fold_points, limits, nth_row

_C, _E, _G = 2 * CHUNK, 4 * CHUNK, 6 * CHUNK  # where the pairs of corners stand in their scratch array
_SURE = 0.5 + 1e-9  # more than all others together, rounding included


@kernel
def _vote(a, b, c, d, e, f, g, h, tx, ty, tz):  # type: ignore[no-untyped-def]
    """The label of most weight of eight, which stand in the order of the cell's corners, K fastest."""
    u = (1 - tx) * (1 - ty), (1 - tx) * ty, tx * (1 - ty), tx * ty
    w = u[0] * (1 - tz), u[0] * tz, u[1] * (1 - tz), u[1] * tz, u[2] * (1 - tz), u[2] * tz, u[3] * (1 - tz), u[3] * tz
    labels = a, b, c, d, e, f, g, h
    nearest = labels[4 * (tx >= 0.5) + 2 * (ty >= 0.5) + (tz >= 0.5)]
    best, most = nearest, -1.0
    for n in range(-1, 8):
        label = nearest if n < 0 else labels[n]  # the nearest first, as it mostly wins
        total = 0.0
        for m in range(8):
            total += w[m] if labels[m] == label else 0.0
        if total > most or (total == most and best != nearest and (label == nearest or label < best)):
            best, most = label, total
        if most > _SURE:
            break
    return best


@kernel
def _vote_at_border(flat, offset, steps, box, shape, x, y, z, fill):  # type: ignore[no-untyped-def]
    """One point of which not all neighbours lie in the volume: each that does not counts as the fill."""
    if not (-1.0 < x < shape[0] and -1.0 < y < shape[1] and -1.0 < z < shape[2]):
        return fill
    i, j, k = np.int64(math.floor(x)), np.int64(math.floor(y)), np.int64(math.floor(z))
    _, a = corner(flat, offset, steps, box, shape, i, j, k, fill)
    _, b = corner(flat, offset, steps, box, shape, i, j, k + 1, fill)
    _, c = corner(flat, offset, steps, box, shape, i, j + 1, k, fill)
    _, d = corner(flat, offset, steps, box, shape, i, j + 1, k + 1, fill)
    _, e = corner(flat, offset, steps, box, shape, i + 1, j, k, fill)
    _, f = corner(flat, offset, steps, box, shape, i + 1, j, k + 1, fill)
    _, g = corner(flat, offset, steps, box, shape, i + 1, j + 1, k, fill)
    _, h = corner(flat, offset, steps, box, shape, i + 1, j + 1, k + 1, fill)
    return _vote(a, b, c, d, e, f, g, h, x - i, y - j, z - k)


@kernel
def _take(corners, inside, count, mixed, row):  # type: ignore[no-untyped-def]
    """The lowest corner's label of each point; in `mixed`, where there are others around. How many of those there are."""
    total = 0
    for q in range(count):
        a, b, c, d = corners[2 * q], corners[2 * q + 1], corners[_C + 2 * q], corners[_C + 2 * q + 1]
        e, f, g, h = corners[_E + 2 * q], corners[_E + 2 * q + 1], corners[_G + 2 * q], corners[_G + 2 * q + 1]
        flag = inside[q] & (((a ^ b) | (c ^ d) | (a ^ c) | (e ^ f) | (a ^ e) | (g ^ h) | (a ^ g)) != 0)
        mixed[q] = flag
        total += flag
        row[q] = a
    return total


@kernel
def _vote_mixed(corners, points, last, count, mixed, row):  # type: ignore[no-untyped-def]
    for q in range(count):
        if mixed[q]:
            x, y, z = points[q], points[CHUNK + q], points[2 * CHUNK + q]
            a, b, c, d = corners[2 * q], corners[2 * q + 1], corners[_C + 2 * q], corners[_C + 2 * q + 1]
            e, f, g, h = corners[_E + 2 * q], corners[_E + 2 * q + 1], corners[_G + 2 * q], corners[_G + 2 * q + 1]
            fractions = x - min(math.floor(x), last[0]), y - min(math.floor(y), last[1]), z - min(math.floor(z), last[2])
            row[q] = _vote(a, b, c, d, e, f, g, h, *fractions)


@kernel
def vote_rows(flat, steps, box, shape, stages, start, size, fill, outside, out):  # type: ignore[no-untyped-def]
    """Fill `out`, of the dtype of `flat`; of coarse stages each point takes the nearer sample."""
    low, high, has_cells = limits(box)
    last = high[0] - 1, high[1] - 1, high[2] - 1
    jumps = np.float64(steps[1]), np.float64(steps[2])
    shift = -(box[0][0] * steps[1] + box[0][1] * steps[2] + box[0][2])
    channels = out.size // (size[0] * size[1] * size[2])
    points, spare, corners = np.empty(3 * CHUNK), np.empty(16 * CHUNK), np.empty(8 * CHUNK, flat.dtype)
    offsets, inside, mixed = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.bool_), np.empty(CHUNK, np.bool_)
    for n in range(size[0] * size[1]):
        i, j = nth_row(n, size)
        for k in range(0, size[2], CHUNK):
            count = min(CHUNK, size[2] - k)
            at = start[0] + i, start[1] + j, start[2] + k
            has_points = not (has_cells and row_is_inside(stages, *at, 0.0, low, high, count))
            total = count
            if has_points:
                row_points(stages, *at, -1, start[2], points, spare, count)
                total = voxels(points, 0.0, count, jumps, low, high, last, inside, offsets) if has_cells else 0
                if total < count and outside != CONSTANT:
                    fold_points(points, count, shape, outside)
                    total = voxels(points, 0.0, count, jumps, low, high, last, inside, offsets) if has_cells else 0
            else:
                affine_voxels(stages, *at, 0.0, count, jumps, last, offsets)
                inside[:count] = True
            for c in range(channels):
                end = ((c * size[0] + i) * size[1] + j) * size[2] + k
                row = out[end : end + count]
                if total:
                    gather(flat, None, c * steps[0] + shift, offsets, count, steps, corners)
                    if _take(corners, inside, count, mixed, row):
                        if not has_points:
                            row_points(stages, *at, -1, start[2], points, spare, count)
                            has_points = True
                        _vote_mixed(corners, points, last, count, mixed, row)
                if total < count:
                    for q in range(count):
                        if not (total and inside[q]):
                            x, y, z = points[q], points[CHUNK + q], points[2 * CHUNK + q]
                            row[q] = _vote_at_border(flat, c * steps[0], steps, box, shape, x, y, z, fill)
