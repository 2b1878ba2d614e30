"""One volume on another grid: nearest slices of a thick axis, smoothing where an axis shrinks, interpolation, and what lies outside."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from patchflow.geometry.location import whole
from patchflow.geometry.maps import SpatialMap
from patchflow.images.volume import Volume
from patchflow.kernels.blur import filter_middle, gaussian
from patchflow.kernels.planes import fill_outside
from patchflow.kernels.pointwise import IntensityMap, apply_map
from patchflow.kernels.resample import Box, resample
from patchflow.preprocess.moves import stored_fill
from patchflow.types import Affine, Array, Int3


class Interpolated(NamedTuple):
    """How a subject's volumes are brought to another grid.

    Attributes:
        matrix: 4x4, new voxel to old voxel.
        shape: the new shape.
        image: how scalar images are interpolated.
        label: how label maps are.
        stds: of the Gaussian that smooths scalar images first, in old voxels along I, J, K; 0 for none.
        thick: the axis along which the nearest slice is taken; None for none.
    """

    matrix: Affine
    shape: Int3
    image: Literal["linear", "cubic", "nearest"]
    label: Literal["nearest", "linear"]
    stds: tuple[float, float, float]
    thick: int | None


def interpolated(volume: Volume, how: Interpolated, fill: float, what: str) -> Volume:
    """The volume on the new grid, its affine still the old one.

    Args:
        volume: every voxel finite.
        how: see `Interpolated`.
        fill: what lies outside, as read.
        what: the image, for errors.
    """
    region, matrix = _nearest_slices(volume.array, how)
    mode = how.label if volume.kind == "label" else how.image
    if volume.kind == "label" or mode == "nearest":
        dtype: Any = volume.array.dtype
        out = np.empty((volume.channels, *how.shape), dtype)
        _fill_in(region, matrix, how, None, "linear" if volume.kind == "label" and mode == "linear" else "nearest", out)
        stored = stored_fill(volume, fill, what)
        if stored is None:  # no stored voxel reads as the fill
            values = apply_map(out, volume.map)
            fill_outside(values, how.matrix, (0, 0, 0), volume.spatial_shape, np.full(volume.channels, fill, np.float32))
            return replace(volume, array=values, map=IntensityMap())
        fill_outside(out, how.matrix, (0, 0, 0), volume.spatial_shape, np.full(volume.channels, stored, dtype))
        return replace(volume, array=out)
    intensities = volume.map
    if any(how.stds):
        region, intensities = _smoothed(region, intensities, how.stds), IntensityMap()
    values = np.empty((volume.channels, *how.shape), np.float32)
    _fill_in(region, matrix, how, intensities, mode, values)
    fill_outside(values, how.matrix, (0, 0, 0), volume.spatial_shape, np.full(volume.channels, fill, np.float32))
    return replace(volume, array=values, map=IntensityMap())


def _fill_in(region: Array, matrix: Affine, how: Interpolated, intensities: IntensityMap | None, mode: Any, out: Array) -> None:
    _, i, j, k = region.shape
    box = Box((0, 0, 0), (i, j, k))
    resample(region, box, box.stop, SpatialMap.affine(matrix), whole(how.shape), intensities, 0, "border", mode, out)


def _nearest_slices(array: Array, how: Interpolated) -> tuple[Array, Affine]:
    """The voxels, and new voxel to voxel among them: along a thick axis there is a slice for each new one, the nearest."""
    if how.thick is None:
        return array, how.matrix
    axis, matrix = how.thick, how.matrix.copy()
    points = matrix[axis, axis] * np.arange(how.shape[axis]) + matrix[axis, 3]
    places = np.floor(points + 0.5).astype(np.int64).clip(0, array.shape[axis + 1] - 1)
    matrix[axis] = np.eye(4)[axis]
    return array.take(places, axis=axis + 1), matrix


def smoothing_bytes(volumes: Iterable[Volume], how: Interpolated) -> int:
    """What smoothing the largest scalar image takes."""
    if not any(how.stds):
        return 0
    margins = [4 * math.ceil(std) + 4 for std in how.stds]
    sizes = [
        4 * math.prod((len(v.array), *(n + 2 * m for n, m in zip(v.spatial_shape, margins, strict=True))))
        for v in volumes
        if v.kind == "scalar"
    ]
    return max(sizes, default=0)


def _smoothed(stored: Array, intensities: IntensityMap, stds: tuple[float, float, float]) -> Array:
    """The values as read, smoothed: float32, a view of the middle of what was worked on."""
    weights = [gaussian(std) for std in stds]
    margins = [len(half) - 1 for half in weights]
    work = np.empty((len(stored), *(n + 2 * margin for n, margin in zip(stored.shape[1:], margins, strict=True))), np.float32)
    middle = (slice(None), *(slice(margin, margin + n) for n, margin in zip(stored.shape[1:], margins, strict=True)))
    apply_map(stored, intensities, work[middle])
    for axis, margin in enumerate(margins, 1):  # the border's values go on, of the axes before as well
        lines = np.moveaxis(work, axis, 0)
        if margin:
            lines[:margin], lines[-margin:] = lines[margin], lines[-margin - 1]
    filter_middle(work, weights)
    smoothed: Array = work[middle]
    return smoothed
