"""Patches read through a spatial map: each output voxel is interpolated once, straight from stored voxels of any dtype.

The map goes from output voxel to source voxel, in voxel coordinates of the volume (the voxel (0, 0, 0) is the volume's first, wherever
the patch lies). A voxel has the same source point bit for bit whatever the patch it is computed for (`points.py`).
"""

from typing import Any

import numpy as np

from patchflow.errors import ArgumentError
from patchflow.geometry.location import Outside, PatchLocation
from patchflow.geometry.maps import CoarseStage, SpatialMap
from patchflow.kernels.box import Box, Interpolation, touched_box
from patchflow.kernels.histogram import has_histogram
from patchflow.kernels.linear import linear_rows
from patchflow.kernels.nearest import nearest_rows
from patchflow.kernels.plain_resample import plain_resample, source_points
from patchflow.kernels.points import program
from patchflow.kernels.pointwise import IntensityMap, apply_map, flat_view, table_of
from patchflow.kernels.rows import BORDER, CONSTANT, REFLECT
from patchflow.kernels.spline import coefficients, cubic_rows
from patchflow.kernels.votes import vote_rows
from patchflow.types import Array, Int3

__all__ = ["Box", "Interpolation", "plain_resample", "resample", "source_points", "touched_box"]

_OUTSIDE: dict[Outside, int] = {"constant": CONSTANT, "border": BORDER, "reflect": REFLECT}
_NARROW = ("i1", "u1", "i2", "u2", "f4")  # exact in float32, in which they are blended; wider ones in float64


def resample(
    region: Array,
    box: Box,
    shape: Int3,
    source: SpatialMap,
    location: PatchLocation,
    intensities: IntensityMap | None,
    fill: float,
    outside: Outside,
    interpolation: Interpolation,
    out: Array,
) -> Array:
    """Fill `out` with what lies at the source points of `location`.

    Scalar images are interpolated: "linear" between the eight voxels around a point, "nearest" (floor(x + 0.5): ties go to the higher
    index), or "cubic": the cubic B-spline through the voxels, mirrored at the volume's border. Where the map of intensities has a clamp,
    voxels are clamped before they are blended, as if the volume had been preprocessed first.

    Labels take the "nearest" voxel, or with "linear" the arg-max of linearly interpolated one-hot labels; ties go to the label of the
    nearest voxel where it is among the tied, else to the lowest.

    Outside the volume, "constant" counts each voxel as `fill` (cubic: points within half a voxel of the volume take the spline, others the
    fill), "border" takes the nearest point inside, and "reflect" mirrors at the first and the last voxel: d c b | a b c d | c b a.

    Args:
        region: (C, i, j, k) stored voxels of `box`, any real dtype (labels: integers); fastest where the last axis is contiguous.
        box: holds what `touched_box` gives, or more.
        shape: voxels of the whole volume.
        source: output voxel to source voxel.
        location: the patch to compute.
        intensities: stored voxel to value as read; None for labels.
        fill: what lies outside the volume, in units of the values as read.
        outside: "constant", "border" or "reflect".
        interpolation: "linear", "nearest" or "cubic"; for labels "nearest" or "linear".
        out: (C, i, j, k) of the location's size, any strides: float32, or for labels any dtype that holds them.

    Returns:
        `out`, filled.

    Raises:
        ArgumentError: for a region that lacks voxels that are needed, an `out` of another shape or dtype, labels that are not integers or
            are to be cubic, or a map that is not finite.
    """
    _check_use(region, intensities, outside, interpolation, out)
    _check(region, box, shape, location, out)
    touched = touched_box(source, location, shape, interpolation, outside)
    if touched and any(a < b for a, b in zip(touched.start + box.stop, box.start + touched.stop, strict=True)):
        raise ArgumentError(f"the map touches voxels {touched.start} to {touched.stop}, of which {box.start} to {box.stop} were given")
    table = None
    if intensities is not None and intensities.curve is not None:  # a blend of what is stored would mean nothing
        if interpolation != "cubic" and has_histogram(region.dtype):
            table = table_of(intensities, region.dtype)
        else:
            region = apply_map(region, intensities)
        intensities = IntensityMap()
    stages = program(source, location)
    choices = 2 ** sum(isinstance(stage, CoarseStage) for stage in source.stages)
    where = location.start, location.size
    if interpolation == "cubic" and intensities is not None:
        target = out if out.flags.c_contiguous else np.empty(out.shape, np.float32)
        padded, levels = coefficients(region, intensities)
        steps = tuple(step // padded.itemsize for step in padded.strides)
        values = np.float32(fill), _OUTSIDE[outside], target.reshape(-1)
        cubic_rows(padded.reshape(-1), levels, steps, box, shape, stages, choices, *where, *values)
    else:
        flat, steps = _flat_source(region)
        flat = flat if table is None else flat.view(f"u{flat.itemsize}")
        dtype = flat.dtype if intensities is None else np.float32
        target = out if out.flags.c_contiguous and out.dtype == dtype else np.empty(out.shape, dtype)
        head, tail = (flat, steps, box, shape, stages), (_OUTSIDE[outside], target.reshape(-1))
        m = intensities
        values_as_read = None if m is None else (m.gain, m.bias, m.low, m.high, float(fill), table)
        if interpolation == "nearest" and m is None:
            bits = f"u{flat.itemsize}"  # labels are moved as they are, so that all dtypes of a size share one kernel
            background = np.asarray(fill, flat.dtype).view(bits)[()]
            nearest_rows(flat.view(bits), *head[1:], *where, background, None, tail[0], tail[1].view(bits))
        elif interpolation == "nearest":
            nearest_rows(*head, *where, np.float32(fill), values_as_read, *tail)
        elif m is None:
            vote_rows(*head, *where, target.dtype.type(fill), *tail)
        else:
            held: Any = flat.dtype.type if table is None else np.float32
            work = np.float32 if flat.dtype.str[1:] in _NARROW else np.float64
            linear_rows(*head, choices, *where, values_as_read, *tail, work, held)
    if target is not out:
        out[...] = target
    return out


def _check(region: Array, box: Box, shape: Int3, location: PatchLocation, out: Array) -> None:
    size = tuple(stop - start for start, stop in zip(box.start, box.stop, strict=True))
    if region.ndim != 4 or region.shape[1:] != size:
        raise ArgumentError(
            f"the region of the box {box.start} to {box.stop} must be (C, {size[0]}, {size[1]}, {size[2]}), not {region.shape}"
        )
    if not all(0 <= start < stop <= n for start, stop, n in zip(box.start, box.stop, shape, strict=True)):
        raise ArgumentError(f"the box {box.start} to {box.stop} holds no voxel of a volume of {shape}, or reaches beyond it")
    if max(map(abs, location.start + location.stop)) >= 2**31:
        raise ArgumentError(f"a patch must lie within 2^31 voxels of the volume's first, not at {location.start}")
    if out.shape != (region.shape[0], *location.size):
        raise ArgumentError(f"out must be of shape {(region.shape[0], *location.size)}, not {out.shape}")


def _check_use(region: Array, intensities: IntensityMap | None, outside: Outside, interpolation: Interpolation, out: Array) -> None:
    if outside not in _OUTSIDE:
        raise ArgumentError(f'outside must be "constant", "border" or "reflect", not {outside!r}')
    if interpolation not in ("linear", "nearest", "cubic"):
        raise ArgumentError(f'interpolation must be "linear", "nearest" or "cubic", not {interpolation!r}')
    if intensities is not None and out.dtype != np.float32:
        raise ArgumentError(f"values as read are float32, not {out.dtype}")
    if intensities is None and interpolation == "cubic":
        raise ArgumentError('labels are interpolated "nearest" or "linear", not "cubic"')
    if intensities is None and interpolation == "linear" and region.dtype.kind not in "biu":
        raise ArgumentError(f"labels must be integers, not {region.dtype}")


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
