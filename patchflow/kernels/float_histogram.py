"""How often float32 values occur, in bins that need no range beforehand: those that share their first 16 bits.

A bin is as wide as 1/128 of the power of two below it, so that a percentile read from the bins is good to 0.8 % of its own size.
"""

import numpy as np
import numpy.typing as npt

from patchflow.kernels.jit import kernel
from patchflow.types import Array

BINS = 1 << 16
_HALF = BINS // 2
_FINITE = 0x7F80
"""The first 16 bits of infinity: positive bins below it are finite."""


def add_floats(values: Array, counts: npt.NDArray[np.int64]) -> None:
    """Count values. Releases the GIL; agrees with `plain_add_floats`.

    Args:
        values: float32, contiguous, any shape.
        counts: int64 (2, BINS), by the first 16 bits of a value, to be added to. Their sum over the first axis is the histogram: neighbours
            are often alike, and adding to the same counter twice in a row waits for the first, so that two tables take turns.
    """
    _add(values.reshape(-1).view(np.uint32), counts)


def plain_add_floats(values: Array, counts: npt.NDArray[np.int64]) -> None:
    """The plain twin of `add_floats`."""
    counts[0] += np.bincount(values.reshape(-1).view(np.uint32) >> 16, minlength=BINS)


def ascending(counts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The bins of finite values that hold any, in ascending order: their lower and upper ends (float64) and counts.

    Args:
        counts: int64 (BINS,), by the first 16 bits of a value.

    A value v of a bin has lower <= v <= upper, and upper is no value of the bin but where it is that of the next.
    """
    edges = (np.arange(_FINITE + 1, dtype=np.uint32) << 16).view(np.float32).astype(np.float64)
    edges[-1] = np.finfo(np.float32).max
    lower = np.concatenate([-edges[:0:-1], edges[:-1]])
    upper = np.concatenate([-edges[-2::-1], edges[1:]])
    ordered = np.concatenate([counts[_HALF : _HALF + _FINITE][::-1], counts[:_FINITE]])
    held = np.flatnonzero(ordered)
    return lower[held], upper[held], ordered[held]


@kernel
def _add(bits, counts):  # type: ignore[no-untyped-def]
    n = bits.size // 2 * 2
    for v in range(0, n, 2):
        counts[0, bits[v] >> 16] += 1
        counts[1, bits[v + 1] >> 16] += 1
    if n < bits.size:
        counts[0, bits[n] >> 16] += 1
