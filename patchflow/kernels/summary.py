"""What an image's values look like: moments, and sums of rows."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchflow.kernels.jit import kernel
from patchflow.types import Array


class Moments(NamedTuple):
    """Of some finite values; those of several parts combine by `combine`."""

    voxels: int
    minimum: float
    maximum: float
    mean: float
    squares: float
    """Sum of squared deviations from the mean."""


def combine(first: Moments, second: Moments) -> Moments:
    """Moments of two parts together.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """
    count = first.voxels + second.voxels
    difference = second.mean - first.mean
    mean = first.mean + difference * second.voxels / count
    squares = first.squares + second.squares + difference**2 * first.voxels * second.voxels / count
    return Moments(count, min(first.minimum, second.minimum), max(first.maximum, second.maximum), mean, squares)


def moments(values: Array) -> Moments:
    """Moments of a contiguous array of finite floats, at least one, in float64 and in two passes.

    Releases the GIL; agrees with `plain_moments` up to the order of additions.
    """
    return Moments(*_moments(values.reshape(-1)))


def plain_moments(values: Array) -> Moments:
    """What `moments` computes, in a few lines of numpy."""
    flat = values.reshape(-1).astype(np.float64)
    return Moments(flat.size, float(flat.min()), float(flat.max()), float(flat.mean()), float(((flat - flat.mean()) ** 2).sum()))


def row_sums(values: Array) -> npt.NDArray[np.float64]:
    """Float64 sums along the last axis of a contiguous array, added in storage order. Releases the GIL; agrees with `plain_row_sums`."""
    rows = values.reshape(-1, values.shape[-1])
    sums = np.empty(len(rows))
    _row_sums(rows, sums)
    return sums


def plain_row_sums(values: Array) -> npt.NDArray[np.float64]:
    """What `row_sums` computes: the last of each row's running sums (`np.sum` would add in pairs)."""
    sums: npt.NDArray[np.float64] = np.cumsum(values.reshape(-1, values.shape[-1]), axis=1, dtype=np.float64)[:, -1]
    return sums


@kernel
def _moments(flat):  # type: ignore[no-untyped-def]
    low, high, total = np.inf, -np.inf, 0.0
    for position in range(flat.size):
        value = np.float64(flat[position])
        total += value
        low = min(low, value)
        high = max(high, value)
    mean = total / flat.size
    squares = 0.0
    for position in range(flat.size):
        squares += (np.float64(flat[position]) - mean) ** 2
    return flat.size, low, high, mean, squares


@kernel
def _row_sums(rows, sums):  # type: ignore[no-untyped-def]
    for row in range(rows.shape[0]):
        total = 0.0
        for k in range(rows.shape[1]):
            total += np.float64(rows[row, k])
        sums[row] = total
