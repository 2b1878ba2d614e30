"""How the values of a volume are spread: counted once, then asked for ends, percentiles and histograms."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from patchflow.kernels.float_histogram import FloatTally, ascending
from patchflow.kernels.histogram import has_histogram, levels
from patchflow.kernels.pointwise import IntensityMap, apply_map
from patchflow.kernels.tally import Tally
from patchflow.types import Array

_PIECE = 1 << 18  # float32 voxels: they stay in the processor's cache from one look at them to the next

BACKGROUND = 0.1
"""Least share of the voxels that hold one value, for it to be the background; what is cut below holds fewer."""

Numbers = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Spread:
    """How often values occur, all finite.

    Attributes:
        lower: least value of each bin that holds any, ascending (n,).
        upper: greatest value of each bin (n,); that of `lower` for integers, which are counted one by one.
        counts: voxels in each bin (n,).
        low: the least value; NaN where no value is finite, as `high`, `mean` and `std` are then.
        high: the greatest value.
        at_low: voxels that hold the least value.
        at_high: voxels that hold the greatest value.
        mean: of all.
        std: divided by the count.
        nan: voxels that are not a number, left out above.
        infinite: voxels that are infinite as float32, left out above.
        flat: channels that hold one value only.
        step: between two levels of values that are counted one by one; 0 for those in bins.
    """

    lower: Numbers
    upper: Numbers
    counts: Counts
    low: float
    high: float
    at_low: int
    at_high: int
    mean: float
    std: float
    nan: int = 0
    infinite: int = 0
    flat: tuple[int, ...] = ()
    step: float = 0.0

    @property
    def voxels(self) -> int:
        """How many are finite."""
        return int(self.counts.sum())

    @property
    def background(self) -> int:
        """Voxels of the least value, where it is more frequent than any other, and `BACKGROUND` of all, but not all; else 0."""
        others = self.counts.copy()
        others[0] -= self.at_low
        return self.at_low if self.at_low > others.max() > 0 and self.at_low >= BACKGROUND * self.voxels else 0

    def body(self) -> "Spread":
        """Without the background: bins and counts alone change."""
        counts = self.counts.copy()
        counts[0] -= self.background
        held = counts > 0
        return Spread(self.lower[held], self.upper[held], counts[held], self.low, self.high, self.at_low, self.at_high, self.mean, self.std)

    def percentile(self, percent: float) -> float:
        """The value below which `percent` of 100 voxels lie: of its bin, as if its voxels were spread evenly over it."""
        rank = percent / 100 * (self.voxels - 1)
        ends = np.cumsum(self.counts)
        number = int(np.searchsorted(ends, rank, side="right"))
        number = min(number, len(ends) - 1)
        within = (rank - (ends[number] - self.counts[number]) + 0.5) / self.counts[number]
        value = self.lower[number] + (self.upper[number] - self.lower[number]) * min(within, 1.0)
        return float(min(max(value, self.low), self.high))

    def between(self, first: float, last: float) -> float:
        """How many voxels lie from `first` to `last`: of bins that reach beyond, a share."""
        wide = self.upper > self.lower
        inside = np.minimum(self.upper, last) - np.maximum(self.lower, first)
        share = np.where(wide, inside / np.where(wide, self.upper - self.lower, 1), inside >= 0)
        return float((np.clip(share, 0, 1) * self.counts).sum())

    def rebinned(self, edges: Numbers) -> Counts:
        """How many voxels lie between each two edges (n + 1,), the last edge included: int64 (n,)."""
        # The bins' own counts, summed up, are read at the edges; between two ends of a bin they rise evenly.
        ends = np.cumsum(self.counts)
        if (self.upper > self.lower).any():
            points = np.stack([self.lower, self.upper], 1).reshape(-1)
            below = np.interp(edges, points, np.stack([ends - self.counts, ends], 1).reshape(-1))
        else:
            below = np.append(0, ends)[np.searchsorted(self.lower, edges, side="left")].astype(np.float64)
            below[-1] = np.append(0, ends)[np.searchsorted(self.lower, edges[-1], side="right")]
        return np.diff(np.rint(below)).astype(np.int64)


class Gathering(Protocol):
    """Counts values piece by piece."""

    def add(self, channel: int, piece: Array) -> None:
        """Stored voxels (n,) of a channel; channels come one after another."""

    def finish(self) -> Spread:
        """All of them."""


def gathering(dtype: np.dtype[Any], intensities: IntensityMap) -> Gathering:
    """What counts the values of a scalar image, as read; it releases the GIL for most of it."""
    return _Levels(dtype, intensities) if has_histogram(dtype) else _Bins(dtype, intensities)


class _Levels:
    """Few values, each counted."""

    def __init__(self, dtype: np.dtype[Any], intensities: IntensityMap) -> None:
        self._dtype, self._values, self._map = dtype, levels(dtype), intensities
        self._tally, self._channel = Tally(dtype), 0
        self._total = np.zeros(len(self._values), np.int64)
        self._flat: list[int] = []

    def add(self, channel: int, piece: Array) -> None:
        """As `Gathering` says."""
        if channel != self._channel:
            self._close()
            self._tally, self._channel = Tally(self._dtype), channel
        self._tally.add(piece)

    def _close(self) -> None:
        """Take the last channel's counts in."""
        last = self._tally.counts()
        if np.count_nonzero(last) == 1:
            self._flat.append(self._channel)
        self._total += last

    def finish(self) -> Spread:
        """As `Gathering` says."""
        self._close()
        held = np.flatnonzero(self._total)
        values, counts = self._values[held] * self._map.gain + self._map.bias, self._total[held]
        if self._map.gain < 0:
            values, counts = values[::-1], counts[::-1]
        total = int(counts.sum())
        mean = math.fsum(values * counts) / total
        std = math.sqrt(math.fsum((values - mean) ** 2 * counts) / total)
        ends = float(values[0]), float(values[-1]), int(counts[0]), int(counts[-1])
        return Spread(values, values, counts, *ends, mean, std, flat=tuple(self._flat), step=abs(self._map.gain))


class _Bins:
    """Floats, and integers of more than 16 bits: counted in bins, with ends and moments beside them."""

    def __init__(self, dtype: np.dtype[Any], intensities: IntensityMap) -> None:
        self._map, self._direct = intensities, dtype == np.float32 and intensities.is_identity
        self._whole, self._tally, self._channel = FloatTally(), FloatTally(), 0
        self._flat: list[int] = []

    def add(self, channel: int, piece: Array) -> None:
        """As `Gathering` says."""
        if channel != self._channel:
            self._close()
            self._tally, self._channel = FloatTally(), channel
        for start in range(0, piece.size, _PIECE):
            stored = piece[start : start + _PIECE]
            self._tally.add(stored if self._direct else apply_map(stored[None, None, None], self._map)[0, 0, 0])

    def _close(self) -> None:
        """Take the last channel in."""
        if self._tally.low == self._tally.high:
            self._flat.append(self._channel)
        self._whole.absorb(self._tally)

    def finish(self) -> Spread:
        """As `Gathering` says."""
        self._close()
        found, flat = self._whole, tuple(self._flat)
        lower, upper, counts = ascending(found.counts())
        if not found.voxels:
            return Spread(lower, upper, counts, math.nan, math.nan, 0, 0, math.nan, math.nan, found.nan, found.infinite, flat)
        lower, upper = np.clip(lower, found.low, found.high), np.clip(upper, found.low, found.high)
        mean = found.total / found.voxels
        variance = max(found.squares / found.voxels - mean * mean, 0.0)  # in float64, of float32 values
        ends = found.low, found.high, found.at_low, found.at_high
        return Spread(lower, upper, counts, *ends, mean, math.sqrt(variance), found.nan, found.infinite, flat)
