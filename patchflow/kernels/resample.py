"""Patches read through an affine map: linear for intensities, nearest for labels, straight from stored voxels of any dtype.

The map goes from output voxel to source voxel, in voxel coordinates of the volume (the voxel (0, 0, 0) is the volume's first, wherever
the patch lies). Coordinates are float64 and summed in one fixed order, ((m0 i + m1 j) + m3) + m2 k, so that a voxel has the same source
point bit for bit whatever the patch it is computed for. Every step of that sum is monotone in i, j and k, rounding included: the corners of
a patch bound what it touches, and along a row the voxels whose source lies inside the volume form one interval. It is found once per row;
the loops over it have no bounds checks and run in stages (points, gather, blend), of which all but the gather vectorise.
"""

import math
from typing import NamedTuple

import numba
import numpy as np
import torch

from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation
from patchflow.kernels.pointwise import IntensityMap, apply_map, flat_view
from patchflow.types import Affine, Array, Int3

_CHUNK = 128  # voxels of a row that are worked on at a time: scratch arrays of known strides, small enough for the first cache
_TILE = 16  # rows of a tile along I and along J: the source of a tile stays in cache when a rotation turns rows across the memory's order


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
    _linear(
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
    _nearest(flat, steps, box.start, shape, matrix, location.start, location.size, target.dtype.type(fill), target.reshape(-1))
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
    if step == 0.0:
        return (first, last) if low <= base + shift < high else (first, first)
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
    for q in range(count):
        at = offsets[q] + offset
        corners[q] = flat[at]
        corners[_CHUNK + q] = flat[at + step_k]
        corners[2 * _CHUNK + q] = flat[at + step_j]
        corners[3 * _CHUNK + q] = flat[at + step_j + step_k]
        at += step_i
        corners[4 * _CHUNK + q] = flat[at]
        corners[5 * _CHUNK + q] = flat[at + step_k]
        corners[6 * _CHUNK + q] = flat[at + step_j]
        corners[7 * _CHUNK + q] = flat[at + step_j + step_k]


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
def _linear(flat, steps, box, shape, matrix, start, size, values, out):  # type: ignore[no-untyped-def]
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
                row[q] = flat[c * steps[0] + offsets[q]]


@numba.njit(nogil=True, cache=True)
def _nearest(flat, steps, box, shape, matrix, start, size, fill, out):  # type: ignore[no-untyped-def]
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
