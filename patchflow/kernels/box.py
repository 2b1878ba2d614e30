"""Which source voxels a patch reads through a map."""

import math
from typing import Literal, NamedTuple

import numpy as np

from patchflow.errors import ArgumentError
from patchflow.geometry.location import Outside, PatchLocation
from patchflow.geometry.maps import SpatialMap
from patchflow.kernels.spline import MARGIN
from patchflow.types import Int3

Interpolation = Literal["linear", "nearest", "cubic"]


class Box(NamedTuple):
    """Voxels of a volume: `start` is in, `stop` is one past the last."""

    start: Int3
    stop: Int3


def touched_box(
    source: SpatialMap, location: PatchLocation, shape: Int3, interpolation: Interpolation = "linear", outside: Outside = "constant"
) -> Box | None:
    """The source voxels that `location` reads through `source`, cut to the volume; None where it touches nothing.

    For an affine map the box is the smallest; for "cubic" it is wider by the margin in which the spline's filter forgets where it began.

    Args:
        source: output voxel to source voxel.
        location: the patch to be computed; may hang over the border.
        shape: voxels of the volume.
        interpolation: "nearest" reads one voxel per point, "linear" the eight around it, "cubic" 64 and a margin.
        outside: None is returned for "constant" only; otherwise points outside read voxels inside.

    Raises:
        ArgumentError: for a map that sends a voxel of the patch to no finite point.
    """
    low, high = source.bounds(location)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ArgumentError(f"the map sends voxels of the patch at {location.start} of size {location.size} to no finite point")
    ends = [_touched(a, b, n, interpolation, outside) for a, b, n in zip(low.tolist(), high.tolist(), shape, strict=True)]
    if any(start >= stop for start, stop in ends):
        return None
    return Box((ends[0][0], ends[1][0], ends[2][0]), (ends[0][1], ends[1][1], ends[2][1]))


def _touched(low: float, high: float, n: int, interpolation: Interpolation, outside: Outside) -> tuple[int, int]:
    """Along one axis, for points from `low` to `high`."""
    if interpolation == "cubic":
        low, high = (max(low, -0.5), min(high, n - 0.5)) if outside == "constant" else (low, high)
        if low > high:
            return 0, 0
        first, last = _inside(low, high, n, "border" if outside == "border" else "reflect")
        return max(first - 1 - MARGIN, 0), min(last + 2 + MARGIN, n)
    shift = 0.5 if interpolation == "nearest" else 0.0
    if outside != "constant":
        first, last = _inside(low, high, n, outside)
        return max(first, 0), min(last + 2, n)
    return max(math.floor(low + shift), 0), min(math.floor(high + shift) + (1 if shift else 2), n)


def _inside(low: float, high: float, n: int, outside: Outside) -> tuple[int, int]:
    """The whole parts of the least and the greatest of points from `low` to `high` after those outside were brought back."""
    last = n - 1
    if outside == "border" or last == 0:
        return math.floor(min(max(low, 0), last)), math.floor(min(max(high, 0), last))
    first, final = math.floor(low), math.floor(high) + 1
    if first >= 0 and high <= last:
        return first, math.floor(high)
    period = 2 * last
    backs = [min(place % period, period - place % period) for place in (first, final)]
    if final // period > (first - 1) // period:
        backs.append(0)  # a multiple of the period lies between: the first voxel
    if (final + last) // period > (first - 1 + last) // period:
        backs.append(last)
    return max(min(backs) - 1, 0), min(max(backs), last)
