"""Grids of voxels in space, a shape and an affine each, and how one lies in another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from patchflow.errors import ArgumentError
from patchflow.types import Affine, Int3, int3

SAME = 1e-3
"""Voxels that lie less than this apart, in voxels, count as one."""

PARALLEL = 1e-4
"""Axes of two grids that lead less than this apart, in voxels over the whole extent, count as parallel: headers hold float32."""

_FAR = 2.0**31  # voxels; no volume reaches there, and integers do not overflow
_FLAT = 1e-6
"""The least volume of the box that unit vectors along I, J and K span; below it, they lie in one plane but for rounding."""


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """Where the voxels of a volume lie.

    Attributes:
        shape: voxels (I, J, K).
        affine: 4x4 float64, voxel index to RAS+ millimetres.
    """

    shape: Int3
    affine: Affine

    def agrees(self, other: "VoxelGrid") -> bool:
        """Whether both hold the same voxels: no corner lies further than a thousandth of a voxel from its like."""
        if self.shape != other.shape:
            return False
        apart = np.linalg.solve(self.affine, other.affine) - np.eye(4)
        return bool(np.abs(apart @ _corners(self.shape)).max() < SAME)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"shape": list(self.shape), "affine": np.asarray(self.affine, np.float64).tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "VoxelGrid":
        """The grid written by `to_dict`."""
        i, j, k = (int(n) for n in values["shape"])
        return cls((i, j, k), np.array(values["affine"], np.float64))

    def check(self, name: str) -> None:
        """Raise `ArgumentError`, which calls the grid `name`, unless it has voxels and its affine can be inverted."""
        int3(self.shape, f"the shape of {name}")
        affine = np.asarray(self.affine)
        if affine.shape != (4, 4) or affine.dtype.kind not in "iuf":
            raise ArgumentError(f"the affine of {name} must be 4x4 real numbers, not {affine.dtype} of shape {affine.shape}")
        if not np.isfinite(affine).all():
            raise ArgumentError(f"the affine of {name} must be finite, not {affine.tolist()}")
        if affine[3].tolist() != [0, 0, 0, 1]:
            raise ArgumentError(f"the affine of {name} must have the last row 0 0 0 1, not {affine[3].tolist()}")
        lengths = np.sqrt((affine[:3, :3].astype(np.float64) ** 2).sum(axis=0))
        if not lengths.all():
            raise ArgumentError(f"the affine of {name} gives voxels of {lengths.tolist()} mm: each must be above 0")
        if abs(np.linalg.det(affine[:3, :3] / lengths)) < _FLAT:
            raise ArgumentError(
                f"the affine of {name} cannot be inverted: its voxel axes lie in one plane, in {affine[:3, :3].tolist()}: mend the header"
            )


def reaches(matrix: Affine, shape: Int3, source: Int3) -> bool:
    """Whether any voxel centre of a target lies in a source, or half a voxel around its outermost voxel centres.

    Args:
        matrix: target voxel to source voxel.
        shape: voxels of the target.
        source: voxels of the source.
    """
    i, j = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    first, last = (
        np.zeros(i.shape),
        np.full(i.shape, shape[2] - 1.0),
    )  # of the voxels of each row along K, those that lie between all borders
    for row, n in zip(matrix[:3], source, strict=True):
        begin = row[0] * i + row[1] * j + row[3]
        if abs(row[2]) * shape[2] < SAME:
            last[(begin < -0.5 - SAME) | (begin > n - 0.5 + SAME)] = -1
            continue
        ends = (-0.5 - SAME - begin) / row[2], (n - 0.5 + SAME - begin) / row[2]
        first, last = np.maximum(first, np.minimum(*ends)), np.minimum(last, np.maximum(*ends))
    return bool((np.ceil(first) <= np.floor(last)).any())


def scaled_grid(grid: VoxelGrid, scale: Sequence[Fraction]) -> VoxelGrid:
    """The grid with `scale` times as many voxels along each axis that begins at the same border; a last voxel may reach beyond the other.

    Voxel `o` covers what voxels `o / scale` to `(o + 1) / scale` cover, so its centre lies half a new voxel from the border.
    """
    i, j, k = (ceil(n * factor) for n, factor in zip(grid.shape, scale, strict=True))
    steps = [float(1 / factor) for factor in scale]
    matrix = np.diag([*steps, 1.0])
    matrix[:3, 3] = [(step - 1) / 2 for step in steps]
    return VoxelGrid((i, j, k), grid.affine @ matrix)


def voxel_map(source: VoxelGrid, target: VoxelGrid) -> Affine:
    """4x4 float64: voxel of `target` to the voxel coordinates of `source` at the same place in space.

    Raises:
        ArgumentError: for a grid without voxels or with an affine that cannot be inverted.
    """
    source.check("the source grid")
    target.check("the target grid")
    matrix: Affine = np.linalg.solve(np.asarray(source.affine, np.float64), np.asarray(target.affine, np.float64))
    matrix[3] = 0, 0, 0, 1
    return matrix


def matched_axes(matrix: Affine, shape: Int3) -> Int3:
    """Which axis of the target runs along each axis I, J, K of the source.

    The first is the one over which the source's i changes most; the other two are shared out so that j and k change most in all. Axes of
    one voxel, over which nothing changes, are told apart by the change per voxel.

    Args:
        matrix: target voxel to source voxel.
        shape: voxels of the target.
    """
    change = np.abs(matrix[:3, :3])
    over = np.round(change * (np.array(shape) - 1), 6)  # the rounding of an affine decides nothing
    first = max(range(3), key=lambda axis: (over[0, axis], change[0, axis]))
    one, two = (axis for axis in range(3) if axis != first)
    orders = (one, two), (two, one)
    j, k = max(orders, key=lambda order: tuple(part[1, order[0]] + part[2, order[1]] for part in (over, change)))
    return first, j, k


class WholeMove(NamedTuple):
    """A map that permutes, mirrors and shifts whole voxels: source voxel p = sign x target voxel + shift, for each source axis.

    Attributes:
        axes: the target's axis that runs along each axis of the source.
        signs: 1 or -1 for each axis of the source.
        shifts: voxels for each axis of the source.
    """

    axes: Int3
    signs: Int3
    shifts: Int3


def whole_move(matrix: Affine, shape: Int3) -> WholeMove | None:
    """How to move voxels instead of interpolating them; None unless each target voxel lies within a thousandth of a voxel of the lattice.

    Args:
        matrix: target voxel to source voxel.
        shape: voxels of the target; along axes of one voxel only its place counts, not its size.
    """
    axes = matched_axes(matrix, shape)
    signs = [-1 if matrix[row, axis] < 0 and shape[axis] > 1 else 1 for row, axis in enumerate(axes)]
    rounded = np.eye(4)
    rounded[:3] = 0
    rounded[range(3), axes] = signs
    rounded[:3, 3] = np.round(matrix[:3, 3])
    if np.abs((matrix - rounded) @ _corners(shape)).max() >= SAME or np.abs(rounded).max() >= _FAR:
        return None
    i, j, k = (int(shift) for shift in rounded[:3, 3])
    return WholeMove(axes, (signs[0], signs[1], signs[2]), (i, j, k))


def straightened(matrix: Affine, size: Int3) -> tuple[Affine, bool]:
    """A map without what rounding adds to it where the axes of both grids are parallel, and whether they are.

    Args:
        matrix: target voxel to source voxel, with the target's axes in the order of the source's.
        size: voxels of the target, in that order.
    """
    last = np.array(size) - 1.0
    astray = matrix[:3, :3] * (1 - np.eye(3))
    if (np.abs(astray) @ last).max() > PARALLEL:
        return matrix, False
    straight = matrix.copy()
    straight[:3, :3] -= astray
    straight[:3, 3] += astray @ last / 2
    return straight, True


def _corners(shape: Int3) -> Affine:
    """The eight corner voxels, (4, 8)."""
    return np.array(np.meshgrid(*([0.0, n - 1.0] for n in shape), [1.0])).reshape(4, -1)
