"""What an image's values look like: moments, and sums of rows."""

import math
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from patchflow.types import Array


class Moments(NamedTuple):
    """Of the finite numbers among some values; those of several parts combine by `combine`."""

    bad: int
    """NaN and infinite values."""
    first_bad: int
    """Position of the first of them; -1 if there is none."""
    finite: int
    """Finite values."""
    minimum: float
    maximum: float
    mean: float
    squares: float
    """Sum of squared deviations from the mean."""


def combine(first: Moments, second: Moments, offset: int) -> Moments:
    """Moments of two parts together, the second beginning at position `offset`.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """
    count = first.finite + second.finite
    difference = second.mean - first.mean if first.finite and second.finite else 0.0
    mean = (first.mean if first.finite else second.mean) + (difference * second.finite / count if first.finite and count else 0.0)
    squares = first.squares + second.squares + (difference**2 * first.finite * second.finite / count if count else 0.0)
    bad_at = first.first_bad if first.bad else second.first_bad + offset if second.bad else -1
    low, high = min(first.minimum, second.minimum), max(first.maximum, second.maximum)
    return Moments(first.bad + second.bad, bad_at, count, low, high, mean, squares)


def moments(values: Array) -> Moments:
    """Moments of a contiguous array of floats, in float64 and in two passes. Releases the GIL; agrees with `plain_moments`."""
    return Moments(*_moments(values.reshape(-1)))


def plain_moments(values: Array) -> Moments:
    """What `moments` computes, in a few lines of numpy."""
    flat = values.reshape(-1)
    bad = np.flatnonzero(~np.isfinite(flat))
    good = flat[np.isfinite(flat)].astype(np.float64)
    first = int(bad[0]) if bad.size else -1
    if not good.size:
        return Moments(bad.size, first, 0, math.inf, -math.inf, 0.0, 0.0)
    mean = float(good.mean())
    return Moments(bad.size, first, good.size, float(good.min()), float(good.max()), mean, float(((good - mean) ** 2).sum()))


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


@numba.njit(nogil=True, cache=True)
def _moments(flat):  # type: ignore[no-untyped-def]
    bad, first_bad = 0, -1
    low, high, total = np.inf, -np.inf, 0.0
    for position in range(flat.size):
        value = np.float64(flat[position])
        if not np.isfinite(value):
            bad += 1
            if bad == 1:
                first_bad = position
            continue
        total += value
        low = min(low, value)
        high = max(high, value)
    count = flat.size - bad
    mean = total / count if count else 0.0
    squares = 0.0
    for position in range(flat.size):
        value = np.float64(flat[position])
        if bad == 0 or np.isfinite(value):
            squares += (value - mean) ** 2
    return bad, first_bad, count, low, high, mean, squares


@numba.njit(nogil=True, cache=True)
def _row_sums(rows, sums):  # type: ignore[no-untyped-def]
    for row in range(rows.shape[0]):
        total = 0.0
        for k in range(rows.shape[1]):
            total += np.float64(rows[row, k])
        sums[row] = total
