"""Volumes as a coarser grid would show them: the nearest voxel of each coarse cell, then linear interpolation back, in place.

Along each axis the coarse grid is anchored in the volume: cell c, negative ones included, covers [c / zoom, (c + 1) / zoom), counted in
voxels from the edge of voxel 0. So what a voxel becomes depends on its place in the volume, not on the patch.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from patchflow.kernels.jit import kernel
from patchflow.types import Array, Int3

Floats3 = tuple[float, float, float]


class AxisTable(NamedTuple):
    """How the voxels of one axis of a patch are blended of coarse cells."""

    sources: npt.NDArray[np.int32]
    """For each coarse cell, the voxel of the patch that stands for it."""
    cells: npt.NDArray[np.int32]
    """For each voxel, the cell before it; the other one is the next."""
    shares: npt.NDArray[np.float32]
    """For each voxel, the share of the next cell, 0 to 1."""


def reach_of(zoom: float) -> int:
    """How far the voxels of which a voxel is blended may lie from it."""
    return 0 if zoom == 1 else math.floor(1 / zoom + 0.5)


def axis_table(zoom: float, start: int, count: int) -> AxisTable:
    """The table of voxels `start` to `start + count` of the volume.

    Cells that are represented by voxels outside the patch are taken from its nearest one: that happens in the margin of `reach_of` only.
    """
    voxels = np.arange(start, start + count, dtype=np.float64)
    places = (voxels + 0.5) * zoom - 0.5  # in cells, from the middle of cell 0
    before = np.floor(places)
    first = before[0]
    cells = np.arange(first, before[-1] + 2)
    sources = np.floor((cells + 0.5) / zoom) - start
    return AxisTable(
        np.clip(sources, 0, count - 1).astype(np.int32), (before - first).astype(np.int32), (places - before).astype(np.float32)
    )


def coarsen(patch: Array, start: Int3, zoom: Floats3) -> None:
    """Show a patch as a grid of `zoom` times as many voxels along each axis would, in place.

    Args:
        patch: float32 (C, i, j, k), C-contiguous. Its outermost `reach_of(zoom)` voxels hold anything afterwards.
        start: the volume's coordinates of the patch's first voxel.
        zoom: above 0 to 1 along I, J, K; 1 leaves an axis as it is.
    """
    i, j, k = (axis_table(z, a, n) for z, a, n in zip(zoom, start, patch.shape[1:], strict=True))
    for volume in patch:
        _coarsen(volume, *i, *j, *k)


def plain_coarsen(patch: torch.Tensor, start: Int3, zoom: Floats3) -> torch.Tensor:
    """What `coarsen` computes, to 1e-6 of the values' size: a new tensor, on any device."""
    for axis, (a, z) in enumerate(zip(start, zoom, strict=True), 1):
        if z == 1:
            continue
        table = axis_table(z, a, patch.shape[axis])
        sources, cells, shares = (torch.from_numpy(part).to(patch.device, non_blocking=True) for part in table)
        before, after = (patch.index_select(axis, sources[cells + step]) for step in (0, 1))
        patch = torch.lerp(before, after, shares.to(patch.dtype).reshape([-1 if n == axis else 1 for n in range(4)]))
    return patch


@kernel(fastmath={"contract"})
def _blend(one, two, share, out):  # type: ignore[no-untyped-def]
    for q in range(out.size):
        out[q] = one[q] + share * (two[q] - one[q])


@kernel(fastmath={"contract"})
def _blend_row(row, before, after, shares, out):  # type: ignore[no-untyped-def]
    for k in range(out.size):
        one = row[before[k]]
        out[k] = one + shares[k] * (row[after[k]] - one)


@kernel
def _coarsen_plane(plane, rows_j, cells_j, shares_j, before_k, after_k, shares_k, rows, out):  # type: ignore[no-untyped-def]
    """A plane interpolated along K and J; `rows` holds the two rows of cells about the one at hand."""
    held = np.int64(-1)  # the cell whose row is in rows[held % 2]; the one before it is in the other
    for j in range(cells_j.size):
        cell = np.int64(cells_j[j])
        while held < cell + 1:
            held += 1
            _blend_row(plane[rows_j[held]], before_k, after_k, shares_k, rows[held % 2])
        _blend(rows[cell % 2], rows[(cell + 1) % 2], shares_j[j], out[j])


@kernel
def _coarsen(volume, rows_i, cells_i, shares_i, rows_j, cells_j, shares_j, rows_k, cells_k, shares_k):  # type: ignore[no-untyped-def]
    ni, nj, nk = volume.shape
    planes, rows = np.empty((2, nj, nk), np.float32), np.empty((2, nk), np.float32)
    before_k, after_k = rows_k[cells_k], rows_k[cells_k + 1]
    held = np.int64(-1)
    for i in range(ni):
        cell = np.int64(cells_i[i])
        while held < cell + 1:  # the plane of a new cell lies at i or beyond, where nothing was overwritten yet
            held += 1
            _coarsen_plane(volume[rows_i[held]], rows_j, cells_j, shares_j, before_k, after_k, shares_k, rows, planes[held % 2])
        _blend(planes[cell % 2].reshape(-1), planes[(cell + 1) % 2].reshape(-1), shares_i[i], volume[i].reshape(-1))
