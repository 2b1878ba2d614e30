"""How float32 values are spread: ends and moments, and how often they occur in bins that need no range beforehand, by their first 16 bits.

A bin is as wide as 1/128 of the power of two below it, so that a percentile read from the bins is good to 0.8 % of its own size.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from patchflow.kernels.jit import kernel
from patchflow.kernels.statistics import LANES, ends, sums
from patchflow.types import Array

BINS = 1 << 16
_HALF = BINS // 2
_FINITE = 0x7F80
"""The first 16 bits of infinity: positive bins below it are finite."""

_BLOCK = 4096  # values: they stay in the nearest cache from one look at them to the next
_PIECE = 1 << 18
_SHIFT, _ONE, _GROUP = np.uint32(16), np.uint32(1), np.uint32(8)
_LOW, _WORD = np.uint64(0xFFFFFFFF), np.uint64(32)


def _counters() -> npt.NDArray[np.uint32]:
    return np.zeros((2, BINS), np.uint32)


@dataclass
class FloatTally:
    """Takes in float32 values piece by piece. Releases the GIL; agrees with `plain_tally`.

    Attributes:
        voxels: finite values so far.
        total: their sum, in float64.
        squares: the sum of their squares, in float64.
        low: the least; infinity before the first.
        high: the greatest; minus infinity before the first.
        at_low: how many are the least.
        at_high: how many are the greatest.
        nan: values that are not a number, left out of all else.
        infinite: values that are infinite, left out as well.
    """

    voxels: int = 0
    total: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    at_low: int = 0
    at_high: int = 0
    nan: int = 0
    infinite: int = 0
    # Neighbours are often alike, and adding to the same counter twice in a row waits for the first: two tables take turns.
    _units: npt.NDArray[np.uint32] = field(default_factory=_counters, repr=False)
    _counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64), repr=False)
    _pending: int = 0

    def add(self, values: Array) -> None:
        """Take in a C-contiguous float32 array of any shape."""
        flat = values.reshape(-1)
        for start in range(0, flat.size, _PIECE):
            self._add(flat[start : start + _PIECE])

    def _add(self, piece: Array) -> None:
        if self._pending + piece.size >= 1 << 32:
            self._settle()
        self._pending += piece.size
        bits = piece.view(np.uint32)
        total, squares, low, high = _tally(piece, bits, bits[: piece.size // 8 * 8].view(np.uint64), self._units)
        if not math.isfinite(total):  # finite values of float32 cannot exceed float64 together
            self.nan += int(np.isnan(piece).sum())
            self.infinite += int(np.isinf(piece).sum())
            piece = piece[np.isfinite(piece)]
            if not piece.size:
                return
            (total, squares), low, high = sums(piece), piece.min(), piece.max()
        self._moments(piece.size, total, squares)
        if low <= self.low:
            self._lower(float(low), _equal(piece, np.float32(low)))
        if high >= self.high:
            self._raise(float(high), _equal(piece, np.float32(high)))

    def absorb(self, other: "FloatTally") -> None:
        """Take in what another has taken in."""
        self._moments(other.voxels, other.total, other.squares)
        self._lower(other.low, other.at_low)
        self._raise(other.high, other.at_high)
        self.nan, self.infinite = self.nan + other.nan, self.infinite + other.infinite
        self._counts += other.counts()

    def _moments(self, voxels: int, total: float, squares: float) -> None:
        self.voxels, self.total, self.squares = self.voxels + voxels, self.total + total, self.squares + squares

    def _lower(self, low: float, held: int) -> None:
        if low <= self.low:
            self.low, self.at_low = low, held + (self.at_low if low == self.low else 0)

    def _raise(self, high: float, held: int) -> None:
        if high >= self.high:
            self.high, self.at_high = high, held + (self.at_high if high == self.high else 0)

    def _settle(self) -> None:
        """Take the counters over and clear them."""
        self._counts += self._units.sum(axis=0, dtype=np.int64)
        self._units[...] = 0
        self._pending = 0

    def counts(self) -> npt.NDArray[np.int64]:
        """int64 (BINS,): how many values so far, finite or not, begin with each 16 bits."""
        self._settle()
        return self._counts


def plain_tally(values: Array) -> FloatTally:
    """The plain twin of `FloatTally`, of all values at once."""
    flat = values.reshape(-1)
    finite = flat[np.isfinite(flat)].astype(np.float64)
    low, high = (finite.min(), finite.max()) if finite.size else (math.inf, -math.inf)
    at_low, at_high = int((finite == low).sum()), int((finite == high).sum())
    lost = int(np.isnan(flat).sum()), int(np.isinf(flat).sum())
    counts = np.bincount(flat.view(np.uint32) >> 16, minlength=BINS)
    moments = finite.size, float(finite.sum()), float((finite**2).sum())
    return FloatTally(*moments, float(low), float(high), at_low, at_high, *lost, _counts=counts)


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
def _tally(values, bits, words, counts):  # type: ignore[no-untyped-def]
    """Add to the counters; sum, sum of squares and ends, which are right where the sum is finite."""
    low, high = np.full(LANES, np.float32(np.inf)), np.full(LANES, np.float32(-np.inf))
    total, squares = 0.0, 0.0
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK]
        more, more_squares = sums(block)
        total += more
        squares += more_squares
        ends(block, low, high)
        _count(bits[start : start + _BLOCK], words[start // 2 : (start + _BLOCK) // 2], counts)
    return total, squares, low.min(), high.max()


@kernel
def _count(bits, words, counts):  # type: ignore[no-untyped-def]
    for group in range(words.size // 4):
        word, first = words[4 * group], 8 * group
        alike = word == words[4 * group + 1] and word == words[4 * group + 2] and word == words[4 * group + 3]
        if alike and word >> _WORD == word & _LOW:  # a background, mostly
            counts[0, bits[first] >> _SHIFT] += _GROUP
        else:
            for v in range(first, first + 8, 2):
                counts[0, bits[v] >> _SHIFT] += _ONE
                counts[1, bits[v + 1] >> _SHIFT] += _ONE
    for v in range(words.size // 4 * 8, bits.size):
        counts[0, bits[v] >> _SHIFT] += _ONE


@kernel
def _equal(values, value):  # type: ignore[no-untyped-def]
    found = 0
    for v in range(values.size):
        found += values[v] == value
    return found
