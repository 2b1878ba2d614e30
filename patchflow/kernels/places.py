"""Where the voxels around source points lie in memory, a chunk of a row at a time.

Each function comes in two: for any points, and for the points of an affine row, which need not be stored when both of the row's ends lie
inside: every step of the sum that gives a coordinate is monotone, rounding included, so that what lies between the ends does so too.
Places are computed in float64, in which they are exact, and turned into integers by adding 2^52: that vectorises on any processor.
"""

import numpy as np

from patchflow.kernels.jit import inlined, kernel
from patchflow.kernels.points import CHUNK, affine_base

_f = np.float32
_SHIFT = np.float64(2.0**52)
_SHIFT_BITS = _SHIFT.view(np.int64)


@inlined
def whole_number(place):  # type: ignore[no-untyped-def]
    """A whole float64, 0 <= place < 2^52, as int64."""
    return np.float64(place + _SHIFT).view(np.int64) - _SHIFT_BITS


@inlined
def _offset(x, y, z, steps):  # type: ignore[no-untyped-def]
    return whole_number((x * steps[0] + y * steps[1]) + z)


@kernel
def row_is_inside(stages, i, j, k, shift, low, high, count):  # type: ignore[no-untyped-def]
    """Whether a chunk is that of an affine row which lies, with `shift` added, between `low` and `high` along each axis."""
    if stages[0].size > 1 or stages[0][0] != 0:
        return False
    base, slope = affine_base(stages[1], i, j)
    for at in (np.float64(k), np.float64(k + count - 1)):
        for axis in range(3):
            if not low[axis] <= (base[axis] + slope[axis] * at) + shift <= high[axis]:
                return False
    return True


@kernel
def cells(points, count, steps, low, high, flags, fractions, offsets):  # type: ignore[no-untyped-def]
    """The cell of eight voxels around each point.

    Args:
        points: float64 (3 CHUNK,).
        count: points.
        steps: voxels from one to the next along I and J, float64.
        low, high: the first and the last voxel along each axis. Points that do not lie between are moved there.
        flags: bool (CHUNK,), filled: which did.
        fractions: float32 (3 CHUNK,), filled: how far the point lies into its cell; 1 at the last voxel.
        offsets: int64 (CHUNK,), filled: the place of the cell's first voxel, counted from the volume's.

    Returns:
        How many points lie inside.
    """
    ends = high[0] - 1, high[1] - 1, high[2] - 1
    inside = 0
    for q in range(count):
        x, y, z = points[q], points[CHUNK + q], points[2 * CHUNK + q]
        flag = (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]) & (z >= low[2]) & (z <= high[2])
        flags[q] = flag
        inside += flag
        fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
        fx, fy, fz = min(max(fx, low[0]), ends[0]), min(max(fy, low[1]), ends[1]), min(max(fz, low[2]), ends[2])
        fractions[q] = _f(x - fx)
        fractions[CHUNK + q] = _f(y - fy)
        fractions[2 * CHUNK + q] = _f(z - fz)
        offsets[q] = _offset(fx, fy, fz, steps)
    return inside


@kernel
def affine_cells(stages, i, j, k, count, steps, high, fractions, offsets):  # type: ignore[no-untyped-def]
    """`cells` of an affine row that lies inside."""
    base, slope = affine_base(stages[1], i, j)
    ends = high[0] - 1, high[1] - 1, high[2] - 1
    for q in range(count):
        at = np.float64(np.int32(k + q))
        x, y, z = base[0] + slope[0] * at, base[1] + slope[1] * at, base[2] + slope[2] * at
        fx, fy, fz = min(np.floor(x), ends[0]), min(np.floor(y), ends[1]), min(np.floor(z), ends[2])
        fractions[q] = _f(x - fx)
        fractions[CHUNK + q] = _f(y - fy)
        fractions[2 * CHUNK + q] = _f(z - fz)
        offsets[q] = _offset(fx, fy, fz, steps)


@kernel
def voxels(points, shift, count, steps, low, high, last, flags, offsets):  # type: ignore[no-untyped-def]
    """The voxel floor(point + shift) of each point, moved to between `low` and `last`; else as `cells`."""
    inside = 0
    for q in range(count):
        x, y, z = points[q] + shift, points[CHUNK + q] + shift, points[2 * CHUNK + q] + shift
        flag = (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]) & (z >= low[2]) & (z <= high[2])
        flags[q] = flag
        inside += flag
        x, y, z = np.floor(x), np.floor(y), np.floor(z)
        offsets[q] = _offset(min(max(x, low[0]), last[0]), min(max(y, low[1]), last[1]), min(max(z, low[2]), last[2]), steps)
    return inside


@kernel
def affine_voxels(stages, i, j, k, shift, count, steps, last, offsets):  # type: ignore[no-untyped-def]
    """`voxels` of an affine row that lies inside."""
    base, slope = affine_base(stages[1], i, j)
    for q in range(count):
        at = np.float64(np.int32(k + q))
        x, y, z = base[0] + slope[0] * at, base[1] + slope[1] * at, base[2] + slope[2] * at
        x, y, z = np.floor(x + shift), np.floor(y + shift), np.floor(z + shift)
        offsets[q] = _offset(min(x, last[0]), min(y, last[1]), min(z, last[2]), steps)
