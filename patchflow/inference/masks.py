"""Which windows of a grid touch a mask or a region of interest."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from patchflow.errors import ArgumentError
from patchflow.geometry.grid import Tiling
from patchflow.geometry.location import PatchLocation
from patchflow.images.volume import as_array
from patchflow.inference.sources import PatchSource, find_image
from patchflow.types import Array

Mask = Array | torch.Tensor | str | PatchLocation
"""An array (I, J, K) or (1, I, J, K) in which what is not 0 counts, the name of an image of the source, or a box."""

Wanted = npt.NDArray[np.bool_]


def touched_windows(mask: Mask | None, source: PatchSource, tiling: Tiling) -> Wanted:
    """Which windows hold a voxel of the mask: bool (windows along I, J, K); all of them if it is None.

    Raises:
        ArgumentError: for a mask of another shape or kind, or one that no window touches.
        UnknownNameError: if it names an image that the source lacks.
    """
    if mask is None:
        return np.ones(tiling.counts, dtype=np.bool_)
    if isinstance(mask, PatchLocation):
        wanted = _touched_by_box(mask, tiling)
    elif isinstance(mask, str):
        wanted = _touched_by_image(mask, source, tiling)
    else:
        wanted = _touched_by_array(_volume(mask, source), tiling)
    if not wanted.any():
        raise ArgumentError(f'subject "{source.name}": no window touches the mask {_named(mask)}: there is nothing to predict')
    return wanted


def _volume(mask: Array | torch.Tensor, source: PatchSource) -> Array:
    array = as_array(mask)
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.shape != source.shape:
        raise ArgumentError(f'subject "{source.name}": the mask is of shape {array.shape}, its images of {source.shape}: they must agree')
    return array


def _touched_by_box(box: PatchLocation, tiling: Tiling) -> Wanted:
    inside = box.common(PatchLocation((0, 0, 0), tiling.shape))
    if inside is None:
        return np.zeros(tiling.counts, dtype=np.bool_)
    i, j, k = (
        np.array([start < stop and low < start + size for start in starts])
        for starts, size, low, stop in zip(tiling.starts, tiling.size, inside.start, inside.stop, strict=True)
    )
    touched: Wanted = i[:, None, None] & j[:, None] & k
    return touched


def _touched_by_array(volume: Array, tiling: Tiling) -> Wanted:
    return np.stack([_touched_in_plane((volume[rows] != 0).any(axis=0), tiling) for rows in _slices(tiling, 0)])


def _touched_by_image(name: str, source: PatchSource, tiling: Tiling) -> Wanted:
    """The same for an image of the source, of which as many slices are held as a window is thick."""
    find_image(source, name)
    planes = []
    for rows in _slices(tiling, 0):
        part = source.read(name, PatchLocation((rows.start, 0, 0), (rows.stop - rows.start, *source.shape[1:])))
        planes.append(_touched_in_plane((part != 0).any(axis=(0, 1)), tiling))
    return np.stack(planes)


def _touched_in_plane(plane: Any, tiling: Tiling) -> Wanted:
    """Windows along J and K that hold a voxel of a plane (J, K)."""
    lines: list[Any] = [plane[rows].any(axis=0) for rows in _slices(tiling, 1)]
    return np.array([[line[rows].any() for rows in _slices(tiling, 2)] for line in lines])


def _slices(tiling: Tiling, axis: int) -> list[slice]:
    """The voxels inside the volume of each window along an axis."""
    return [slice(max(start, 0), min(start + tiling.size[axis], tiling.shape[axis])) for start in tiling.starts[axis]]


def _named(mask: Mask) -> str:
    if isinstance(mask, PatchLocation):
        return f"from {mask.start} to {mask.stop}"
    return f'"{mask}"' if isinstance(mask, str) else "(which may be empty)"
