"""Patches read through an affine map: linear for intensities, nearest for labels, straight from stored voxels of any dtype.

The map goes from output voxel to source voxel, in voxel coordinates of the volume (the voxel (0, 0, 0) is the volume's first, wherever
the patch lies). Coordinates are float64 and summed in one fixed order, ((m0 i + m1 j) + m3) + m2 k, so that a voxel has the same source
point bit for bit whatever the patch it is computed for. Every step of that sum is monotone in i, j and k, rounding included, so that the
corners of a patch bound what it touches.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation
from patchflow.kernels.pointwise import IntensityMap, apply_map, flat_view
from patchflow.kernels.resample_rows import linear_rows, nearest_rows
from patchflow.types import Affine, Array, Int3


class Box(NamedTuple):
    """Voxels of a volume: `start` is in, `stop` is one past the last."""

    start: Int3
    stop: Int3


def touched_box(matrix: Affine, location: PatchLocation, shape: Int3, *, nearest: bool) -> Box | None:
    """The source voxels that `location` reads through `matrix`: the smallest box, cut to the volume; None where it touches nothing.

    Args:
        matrix: 4x4 float64, output voxel to source voxel.
        location: the patch to be computed; may hang over the border.
        shape: voxels of the volume.
        nearest: one voxel per point; otherwise the eight around it.
    """
    start, stop = [], []
    last = [end - 1 for end in location.stop]
    for (m0, m1, m2, m3), n in zip(matrix[:3].tolist(), shape, strict=True):
        i, j, k = (_ends(m, a, b) for m, a, b in zip((m0, m1, m2), location.start, last, strict=True))
        low, high = (((m0 * i[end] + m1 * j[end]) + m3) + m2 * k[end] for end in (0, 1))
        first, final = (math.floor(low + 0.5), math.floor(high + 0.5)) if nearest else (math.floor(low), math.floor(high) + 1)
        start.append(max(first, 0))
        stop.append(min(final + 1, n))
    if any(low >= high for low, high in zip(start, stop, strict=True)):
        return None
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _ends(factor: float, first: int, last: int) -> tuple[int, int]:
    return (first, last) if factor >= 0 else (last, first)


def resample_linear(
    region: Array, box: Box, shape: Int3, matrix: Affine, location: PatchLocation, intensities: IntensityMap, fill: float, out: Array
) -> Array:
    """Fill `out` with the values as read at the source points of `location`, linear between the eight voxels around each point.

    Each of the eight that lies outside the volume counts as `fill`. Where the map of intensities has a clamp, the voxels are clamped before
    they are blended, as if the volume had been preprocessed first.

    Args:
        region: (C, i, j, k) stored voxels of `box`, any real dtype; fastest where the last axis is contiguous.
        box: holds what `touched_box` gives, or more.
        shape: voxels of the whole volume.
        matrix: 4x4 float64, output voxel to source voxel.
        location: the patch to compute.
        intensities: stored voxel to value as read.
        fill: the value outside the volume, in units of the values as read.
        out: float32 (C, i, j, k) of the location's size.

    Returns:
        `out`, filled.

    Raises:
        ArgumentError: for a region that lacks voxels that are needed, or an `out` of another shape or dtype.
    """
    _check(region, box, shape, matrix, location, out, nearest=False)
    if out.dtype != np.float32:
        raise ArgumentError(f"linear interpolation writes float32, not {out.dtype}")
    m = intensities
    flat, steps = _flat_source(region)
    target = out if out.flags.c_contiguous else np.empty(out.shape, np.float32)
    linear_rows(
        flat,
        steps,
        box.start,
        shape,
        matrix,
        location.start,
        location.size,
        (m.gain, m.bias, m.low, m.high, float(fill)),
        target.reshape(-1),
    )
    if target is not out:
        out[...] = target
    return out


def resample_nearest(
    region: Array,
    box: Box,
    shape: Int3,
    matrix: Affine,
    location: PatchLocation,
    fill: float,
    out: Array,
    intensities: IntensityMap | None = None,
) -> Array:
    """Fill `out` with the voxels nearest to the source points of `location`; `fill` outside the volume.

    The nearest voxel to x is floor(x + 0.5) along each axis: ties go to the higher index. Arguments and errors are those of
    `resample_linear`, but without a map of intensities (labels) voxels are only converted to the dtype of `out`, whichever it is.
    """
    if intensities is not None:
        if out.dtype != np.float32:
            raise ArgumentError(f"values as read are float32, not {out.dtype}")
        region = apply_map(region, intensities)
    _check(region, box, shape, matrix, location, out, nearest=True)
    flat, steps = _flat_source(region)
    target = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
    nearest_rows(flat, steps, box.start, shape, matrix, location.start, location.size, target.dtype.type(fill), target.reshape(-1))
    if target is not out:
        out[...] = target
    return out


def plain_resample(
    region: torch.Tensor, box: Box, shape: Int3, matrix: Affine, location: PatchLocation, fill: float, *, nearest: bool
) -> torch.Tensor:
    """What `resample_linear` (of values as read) and `resample_nearest` compute, on any device.

    Args:
        region: (C, i, j, k) voxels of `box`: values as read, or labels.
        box, shape, matrix, location, fill: as in `resample_linear`.
        nearest: take the nearest voxel, not the blend of eight.

    Returns:
        (C, i, j, k) of the location's size: float32, or the region's dtype with `nearest`.
    """
    device, (a0, a1, a2) = region.device, location.start
    axes = [torch.arange(a, b, dtype=torch.float64, device=device) for a, b in zip((a0, a1, a2), location.stop, strict=True)]
    i, j, k = axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]
    points = [((m0 * i + m1 * j) + m3) + m2 * k for m0, m1, m2, m3 in matrix[:3].tolist()]
    if nearest:
        return _corner(region, box, shape, [torch.floor(point + 0.5).long() for point in points], fill)
    floors = [torch.floor(point) for point in points]
    tx, ty, tz = (point - floor for point, floor in zip(points, floors, strict=True))
    x, y, z = (floor.long() for floor in floors)
    source = region.double()
    planes = []
    for dx in (0, 1):
        rows = []
        for dy in (0, 1):
            low, high = (_corner(source, box, shape, [x + dx, y + dy, z + dz], fill) for dz in (0, 1))
            rows.append(low + tz * (high - low))
        planes.append(rows[0] + ty * (rows[1] - rows[0]))
    blended: torch.Tensor = planes[0] + tx * (planes[1] - planes[0])
    return blended.float()


def _corner(region: torch.Tensor, box: Box, shape: Int3, voxels: list[torch.Tensor], fill: float) -> torch.Tensor:
    inside = torch.ones((), dtype=torch.bool, device=region.device)
    offset = torch.zeros((), dtype=torch.int64, device=region.device)
    for voxel, start, stop, n in zip(voxels, box.start, box.stop, shape, strict=True):
        inside = inside & (voxel >= 0) & (voxel < n)
        offset = offset * (stop - start) + voxel.clamp(start, stop - 1) - start
    values = region.reshape(region.shape[0], -1)[:, offset]
    filled: torch.Tensor = torch.where(inside, values, torch.full((), fill, dtype=region.dtype, device=region.device))
    return filled


def _check(region: Array, box: Box, shape: Int3, matrix: Affine, location: PatchLocation, out: Array, *, nearest: bool) -> None:
    """The kernels have no bounds checks: what they may touch is checked here, once per patch."""
    touched = touched_box(matrix, location, shape, nearest=nearest)
    size = tuple(stop - start for start, stop in zip(box.start, box.stop, strict=True))
    if region.ndim != 4 or region.shape[1:] != size:
        raise ArgumentError(
            f"the region of the box {box.start} to {box.stop} must be (C, {size[0]}, {size[1]}, {size[2]}), not {region.shape}"
        )
    if touched and any(a < b for a, b in zip(touched.start + box.stop, box.start + touched.stop, strict=True)):
        raise ArgumentError(f"the map touches voxels {touched.start} to {touched.stop}, of which {box.start} to {box.stop} were given")
    if out.shape != (region.shape[0], *location.size):
        raise ArgumentError(f"out must be of shape {(region.shape[0], *location.size)}, not {out.shape}")


def _flat_source(region: Array) -> tuple[Array, tuple[int, ...]]:
    """The region as one flat array that starts at its first voxel, and its strides in voxels; copied only where it has to be."""
    if region.dtype == np.bool_:
        region = region.view(np.uint8)
    if region.dtype == np.float16:
        region = region.astype(np.float32)  # exact; half floats are no fast type on a CPU
    ordered = region.size > 0 and region.strides[3] == region.itemsize and min(region.strides) > 0
    if not (region.dtype.isnative and region.flags.aligned and ordered and all(step % region.itemsize == 0 for step in region.strides)):
        region = np.ascontiguousarray(region, region.dtype.newbyteorder("="))
    flat, _, steps = flat_view(region)
    flat.flags.writeable = False  # one compiled kernel serves mapped files and arrays in memory
    return flat, steps
