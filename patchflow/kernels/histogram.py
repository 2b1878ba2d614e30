"""How often each value occurs in an image of 8- or 16-bit integers: every statistic of it follows exactly."""

import numpy as np
import numpy.typing as npt

from patchflow.kernels.jit import kernel
from patchflow.types import Array

_DTYPES = tuple(np.dtype(d) for d in (np.uint8, np.int8, np.uint16, np.int16))


def has_histogram(dtype: np.dtype[np.generic]) -> bool:
    """Whether values of `dtype` are few enough to count each: 8- and 16-bit integers."""
    return dtype in _DTYPES


def levels(dtype: np.dtype[np.generic]) -> npt.NDArray[np.float64]:
    """The values that `histogram` counts, ascending, float64 (256,) or (65536,)."""
    info = np.iinfo(dtype)  # type: ignore[type-var]
    return np.arange(info.min, info.max + 1, dtype=np.float64)


def histogram(array: Array, mask: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
    """How often each value of an array's dtype occurs.

    Args:
        array: C-contiguous, any shape, uint8, int8, uint16 or int16.
        mask: C-contiguous bool of the same shape: count only where it is true; None counts all.

    Returns:
        int64 (256,) or (65536,): counts of the values of `levels(array.dtype)`, the smallest value first.
    """
    info = np.iinfo(array.dtype)
    counts = np.zeros(info.max - info.min + 1, np.int64)
    flat = array.reshape(-1)
    if mask is None:
        _count(flat, -info.min, counts)
    else:
        _count_masked(flat, mask.reshape(-1), -info.min, counts)
    return counts


def plain_histogram(array: Array, mask: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
    """The plain twin of `histogram`."""
    info = np.iinfo(array.dtype)
    values = array.reshape(-1) if mask is None else array[mask]
    return np.bincount(values.astype(np.int64) - info.min, minlength=info.max - info.min + 1)


@kernel
def _count(flat: Array, offset: int, counts: npt.NDArray[np.int64]) -> None:
    # Neighbours are often equal, and adding to the same counter twice in a row waits for the first: take turns between tables.
    a = np.zeros((4, counts.size), np.int64)
    n = flat.size // 4 * 4
    for v in range(0, n, 4):
        a[0, flat[v] + offset] += 1
        a[1, flat[v + 1] + offset] += 1
        a[2, flat[v + 2] + offset] += 1
        a[3, flat[v + 3] + offset] += 1
    for v in range(n, flat.size):
        a[0, flat[v] + offset] += 1
    for table in range(4):
        for v in range(counts.size):
            counts[v] += a[table, v]


@kernel
def _count_masked(flat: Array, mask: npt.NDArray[np.bool_], offset: int, counts: npt.NDArray[np.int64]) -> None:
    for v in range(flat.size):
        counts[flat[v] + offset] += mask[v]
