"""Whole voxels on the move: windows cut out of volumes, and axes permuted and turned round. Dtypes and maps stay as they are."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from patchflow.errors import ArgumentError
from patchflow.geometry.location import Outside, PatchLocation, voxels_inside, whole
from patchflow.images.volume import Volume
from patchflow.kernels.pointwise import IntensityMap, copy_voxels, plain_apply_map
from patchflow.types import Affine, Array


def window_of(volume: Volume, location: PatchLocation, outside: Outside, fill: float, what: str) -> Volume:
    """The voxels of a window, which may hang over the border, with the affine that is true for them.

    Args:
        volume: a scalar image or a label map.
        location: the window.
        outside: what lies outside the volume.
        fill: for "constant", the value as read. A scalar image of which no stored voxel reads as it is stored as float32 values.
        what: the image, for errors.

    Raises:
        ArgumentError: for a fill that the labels' dtype does not hold.
    """
    if location == whole(volume.spatial_shape):
        return volume
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ location.start
    overlap = location.overlap(volume.spatial_shape)
    if overlap is not None and location.is_inside(volume.spatial_shape):
        return replace(volume, array=np.ascontiguousarray(volume.array[:, *overlap.volume]), affine=affine)
    if outside == "constant":
        stored = stored_fill(volume, fill, what)
        if stored is None:
            stored, volume = np.float32(fill), replace(volume, array=volume.values(), map=IntensityMap())
        array = np.full((volume.channels, *location.size), stored, volume.array.dtype)
        if overlap is not None:
            array[:, *overlap.patch] = volume.array[:, *overlap.volume]
    else:
        array = volume.array
        for axis, (start, size, n) in enumerate(zip(location.start, location.size, volume.spatial_shape, strict=True), 1):
            array = array if (start, size) == (0, n) else array.take(voxels_inside(start, size, n, outside), axis=axis)
    return replace(volume, array=np.ascontiguousarray(array), affine=affine)


def turned(volume: Volume, axes: tuple[int, int, int], mirrored: tuple[bool, bool, bool], matrix: Affine) -> Volume:
    """The volume with its axes in another order and direction.

    Args:
        volume: what to turn.
        axes: which axis of the volume becomes I, J and K.
        mirrored: whether I, J and K run the other way then.
        matrix: 4x4, voxel afterwards to voxel before.
    """
    view = volume.array.transpose(0, *(axis + 1 for axis in axes))[:, *(slice(None, None, -1 if flip else None) for flip in mirrored)]
    return replace(volume, array=_contiguous(view), affine=volume.affine @ matrix)


def _contiguous(view: Array) -> Array:
    """A C-contiguous copy. NumPy's own takes a cache miss a voxel where the axis that is fastest in memory does not stay the last."""
    out = np.empty(view.shape, view.dtype)
    steps = [abs(step) for step in view.strides]
    fastest = min((axis for axis in (3, 2, 1) if view.shape[axis] > 1), key=lambda axis: steps[axis], default=3)
    if fastest == 3:
        backwards = view.strides[3] < 0
        copy_voxels(view[..., ::-1] if backwards else view, out[..., ::-1] if backwards else out)
        return out
    other = 3 - fastest
    for n in range(view.shape[other]):  # planes that fit the cache
        plane: tuple[Any, ...] = (slice(None), n) if other == 1 else (slice(None), slice(None), n)
        out[plane] = view[plane]
    return out


def stored_fill(volume: Volume, fill: float, what: str) -> Any:
    """The stored voxel that reads as `fill`, of the array's dtype; None where there is none.

    Raises:
        ArgumentError: for a fill that the labels' dtype does not hold.
    """
    dtype: Any = volume.array.dtype
    if volume.kind == "label":
        if fill != int(fill) or not np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max:
            raise ArgumentError(f"{what}: labels are {dtype}, which does not hold the fill {fill!r}: give one that it holds")
        return dtype.type(int(fill))
    stored = (fill - volume.map.bias) / volume.map.gain
    if not math.isfinite(stored):
        return None
    if dtype.kind in "iu":
        stored = round(stored)
        if not np.iinfo(dtype).min <= stored <= np.iinfo(dtype).max:
            return None
    with np.errstate(over="ignore"):
        voxel = np.array(stored).astype(dtype)
    return voxel[()] if plain_apply_map(voxel, volume.map) == np.float32(fill) else None
