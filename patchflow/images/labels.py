"""Labels as integers of a dtype that PyTorch has, exactly or not at all."""

from typing import Any

import numpy as np

from patchflow.errors import ImageError
from patchflow.kernels.histogram import has_histogram, histogram, levels
from patchflow.types import Array

LABEL_DTYPES = tuple(np.dtype(d) for d in (np.uint8, np.int8, np.int16, np.int32, np.int64))
"""What label maps are read as."""

_SMALLEST_FIRST: tuple[np.dtype[Any], ...] = tuple(np.dtype(d) for d in (np.uint8, np.int16, np.int32, np.int64))
_BLOCK = 1 << 20


def as_labels(array: Array, slope: float, inter: float, what: str) -> Array:
    """The labels slope * array + inter, if all are integers.

    uint8, int8, int16, int32 and int64 stay as they are; uint16 becomes int32, uint32 and uint64 int64, bool uint8; floats and
    scaled integers become the first of uint8, int16, int32 and int64 that holds them.

    Args:
        array: (C, I, J, K), C-contiguous, any real dtype.
        slope: scaling of the source; 1 for none.
        inter: scaling of the source; 0 for none.
        what: the image, for the error.

    Raises:
        ImageError: for a label that is no integer, or none that int64 holds; the message names a voxel.
    """
    if (slope, inter) != (1.0, 0.0):
        return _scaled(array, slope, inter, what)
    if array.dtype in LABEL_DTYPES:
        return array
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    if array.dtype.kind == "f":
        return _from_floats(array, what)
    if array.dtype == np.uint64 and array.max() > np.iinfo(np.int64).max:
        raise ImageError(f"{what}: the label {array.max()} is too large for a 64-bit integer: number the labels anew")
    return array.astype(np.int32 if array.dtype == np.uint16 else np.int64)


def _scaled(array: Array, slope: float, inter: float, what: str) -> Array:
    if not has_histogram(array.dtype):
        return _from_floats(array.astype(np.float64) * slope + inter, what)
    # Only the values that occur are scaled, and the voxels look their label up.
    present = np.flatnonzero(histogram(array))
    stored = levels(array.dtype)[present]
    values = stored * slope + inter
    wrong = values != np.rint(values)
    if wrong.any():
        raise _not_integer(array, array == stored[wrong][0], float(values[wrong][0]), what)
    table = np.zeros(len(levels(array.dtype)), _smallest(values, what))
    table[present] = values
    return table[array.astype(np.int32) - np.iinfo(array.dtype).min]


def _from_floats(array: Array, what: str) -> Array:
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        wrong = ~np.isfinite(block) | (block != np.rint(block))
        if wrong.any():
            at = start + int(np.argmax(wrong))
            raise _not_integer(array, np.unravel_index(at, array.shape), float(flat[at]), what)
    return array.astype(_smallest(np.array([flat.min(), flat.max()]), what))


def _smallest(values: Array, what: str) -> np.dtype[Any]:
    low, high = int(values.min()), int(values.max())
    for dtype in _SMALLEST_FIRST:
        info: Any = np.iinfo(dtype)
        if info.min <= low and high <= info.max:
            return dtype
    raise ImageError(f"{what}: labels from {low} to {high} do not fit a 64-bit integer: number the labels anew")


def _not_integer(array: Array, where: Any, value: float, what: str) -> ImageError:
    at = np.unravel_index(int(np.argmax(where)), array.shape) if isinstance(where, np.ndarray) else where
    voxel = tuple(int(n) for n in at)
    return ImageError(
        f"{what}: labels must be integers, but channel {voxel[0]} of voxel {voxel[1:]} holds {value!r}: "
        "read it as a ScalarImage, or resample labels with nearest neighbours"
    )
