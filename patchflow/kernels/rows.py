"""What the loops of all interpolations share: the order of rows, runs of voxels inside, and points beyond the border.

A patch is worked on in tiles of rows, and a row in chunks. A chunk goes through stages (points, places in memory, gather, blend), of which
all but the gather vectorise.
"""

import numpy as np

from patchflow.kernels.jit import kernel
from patchflow.kernels.points import CHUNK

CONSTANT, BORDER, REFLECT = range(3)
TILE = 16
"""Rows of a tile along I and along J: its source stays in cache when a rotation turns rows across the memory's order."""


@kernel
def nth_row(n, size):  # type: ignore[no-untyped-def]
    """Place (i, j) of the nth row of a patch of `size`, tile after tile."""
    depth = TILE * size[1]  # rows of a full band of tiles
    i = n // depth * TILE
    height = min(TILE, size[0] - i)
    within = n % depth
    j = within // (TILE * height) * TILE
    width = min(TILE, size[1] - j)
    rest = within % (TILE * height)
    return i + rest // width, j + rest % width


@kernel
def mark(points, shift, count, low, high, flags):  # type: ignore[no-untyped-def]
    """Which points, with `shift` added, lie in the box from `low` to `high` along each axis; how many."""
    total = 0
    for q in range(count):
        x, y, z = points[q] + shift, points[CHUNK + q] + shift, points[2 * CHUNK + q] + shift
        flag = (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]) & (z >= low[2]) & (z <= high[2])
        flags[q] = flag
        total += flag
    return total


@kernel
def folded(x, n, outside):  # type: ignore[no-untyped-def]
    """A coordinate beyond the border of an axis of n voxels, brought back to 0 <= x <= n - 1."""
    last = np.float64(n - 1)
    if 0.0 <= x <= last or outside == CONSTANT:
        return x
    if outside == REFLECT and last > 0:
        x = abs(x)
        x -= 2 * last * np.floor(x / (2 * last))
        x = min(x, 2 * last - x)
    return min(max(x, 0.0), last)


@kernel
def fold_points(points, count, shape, outside):  # type: ignore[no-untyped-def]
    """Bring the points of a chunk back into the volume."""
    for axis in range(3):
        for q in range(axis * CHUNK, axis * CHUNK + count):
            points[q] = folded(points[q], shape[axis], outside)


@kernel
def corner(flat, offset, steps, box, shape, x, y, z, fill):  # type: ignore[no-untyped-def]
    """Whether a voxel lies in the volume, and what is stored there; voxels of the volume that the region lacks are never asked for."""
    if x < 0 or y < 0 or z < 0 or x >= shape[0] or y >= shape[1] or z >= shape[2]:
        return False, fill
    i = min(max(x, box[0][0]), box[1][0] - 1) - box[0][0]  # for memory's sake: no map, however wild, reads beyond the region
    j = min(max(y, box[0][1]), box[1][1] - 1) - box[0][1]
    k = min(max(z, box[0][2]), box[1][2] - 1) - box[0][2]
    return True, flat[np.uint64(offset + i * steps[1] + j * steps[2] + k)]


@kernel
def limits(box):  # type: ignore[no-untyped-def]
    """The least and the greatest point along each axis, and whether there is a cell of eight voxels at all: two voxels along each axis."""
    low = np.float64(box[0][0]), np.float64(box[0][1]), np.float64(box[0][2])
    high = np.float64(box[1][0] - 1), np.float64(box[1][1] - 1), np.float64(box[1][2] - 1)
    return low, high, low[0] < high[0] and low[1] < high[1] and low[2] < high[2]
