"""Exact statistics of an image's values as read, in float64.

Images of 8- and 16-bit integers are counted per value, from which everything follows; others are gone through in blocks.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchflow.images.volume import Volume
from patchflow.kernels.histogram import has_histogram, histogram, levels
from patchflow.kernels.intensity_map import IntensityMap, exact_values
from patchflow.types import Array

_BLOCK = 1 << 20

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Moments:
    """Of values as read, over all channels: how many, least, greatest, mean, and standard deviation (divided by the count)."""

    count: int
    minimum: float
    maximum: float
    mean: float
    std: float


def moments(volume: Volume, mask: Mask | None = None, above: float | None = None) -> Moments | None:
    """Moments of a scalar volume's values before they are rounded to float32; None where no voxel counts.

    Args:
        volume: every stored voxel finite.
        mask: (I, J, K), C-contiguous: only where it is true, in every channel.
        above: only voxels whose value is above this.
    """
    if has_histogram(volume.array.dtype):
        values, counts = counted(volume, mask, above)
        if not values.size:
            return None
        total = int(counts.sum())
        mean = math.fsum(values * counts) / total
        variance = math.fsum((values - mean) ** 2 * counts) / total
        return Moments(total, float(values.min()), float(values.max()), mean, math.sqrt(variance))
    sums, least, greatest, total = [], math.inf, -math.inf, 0
    for block in _blocks(volume, mask, above):
        sums.append(float(block.sum()))
        least, greatest, total = min(least, float(block.min())), max(greatest, float(block.max())), total + block.size
    if not total:
        return None
    mean = math.fsum(sums) / total
    variance = math.fsum(float(((block - mean) ** 2).sum()) for block in _blocks(volume, mask, above)) / total
    return Moments(total, least, greatest, mean, math.sqrt(variance))


def percentiles(volume: Volume, wanted: Sequence[float], mask: Mask | None = None, above: float | None = None) -> list[float] | None:
    """Percentiles of a scalar volume's values before they are rounded to float32, between two voxels linearly (NumPy's default).

    Args:
        volume: every stored voxel finite.
        wanted: from 0, the least value, to 100, the greatest.
        mask, above: as in `moments`.

    Returns:
        One number for each that is wanted; None where no voxel counts.
    """
    if has_histogram(volume.array.dtype):
        values, counts = counted(volume, mask, above)
        return percentiles_of_counts(values, counts, wanted) if values.size else None
    stored = volume.array.reshape(-1) if mask is None else volume.array[:, mask].reshape(-1)
    if above is not None:
        stored = stored[_is_above(stored, volume.map, above)]
    if not stored.size:
        return None
    found = _of_ranks(stored, _ranks(wanted, stored.size), volume.map)
    return [_between(found, percent / 100 * (stored.size - 1)) for percent in wanted]


def percentiles_of_counts(values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], wanted: Sequence[float]) -> list[float]:
    """Percentiles of values (N,), in any order, that occur `counts` (N,) times each."""
    order = np.argsort(values, kind="stable")  # a negative gain turns them round
    ends = np.cumsum(counts[order])
    count = int(ends[-1])
    found = {rank: float(values[order][np.searchsorted(ends, rank, side="right")]) for rank in _ranks(wanted, count)}
    return [_between(found, percent / 100 * (count - 1)) for percent in wanted]


def spread(volume: Volume, centre: float, mask: Mask | None = None, above: float | None = None) -> float:
    """The median of the values' absolute distances from `centre`; some voxel counts."""
    if has_histogram(volume.array.dtype):
        values, counts = counted(volume, mask, above)
        return percentiles_of_counts(np.abs(values - centre), counts, (50.0,))[0]
    distances = np.concatenate([np.abs(block - centre) for block in _blocks(volume, mask, above)])
    return float(np.median(distances, overwrite_input=True))


def _ranks(wanted: Sequence[float], count: int) -> list[int]:
    positions = [percent / 100 * (count - 1) for percent in wanted]
    return sorted({rank for position in positions for rank in (math.floor(position), math.ceil(position))})


def _between(found: dict[int, float], position: float) -> float:
    low, high = found[math.floor(position)], found[math.ceil(position)]
    return low + (high - low) * (position - math.floor(position))


def _of_ranks(stored: Array, ranks: list[int], intensities: IntensityMap) -> dict[int, float]:
    """The values of the ranks among all values. The map keeps or reverses the order, so that the stored voxels are sorted instead."""
    last = stored.size - 1
    places = {rank: rank if intensities.gain > 0 else last - rank for rank in ranks}
    if set(places.values()) <= {0, last}:  # no copy of the image
        picked = {0: stored.min(), last: stored.max()}
    else:
        ordered = np.partition(stored, sorted(places.values()))
        picked = {place: ordered[place] for place in places.values()}
    return {rank: float(exact_values(picked[place], intensities)) for rank, place in places.items()}


def counted(volume: Volume, mask: Mask | None = None, above: float | None = None) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """The values that occur in a volume of 8- or 16-bit integers, and how often."""
    counts = np.sum([histogram(channel, mask) for channel in volume.array], axis=0)
    present = np.flatnonzero(counts)
    values, counts = exact_values(levels(volume.array.dtype)[present], volume.map), counts[present]
    return (values, counts) if above is None else (values[values > above], counts[values > above])


def some_values(volume: Volume, most: int, mask: Mask | None = None, above: float | None = None) -> tuple[npt.NDArray[np.float64], int]:
    """At most `most` values, evenly spaced among the voxels that count in storage order; and for how many voxels each stands."""
    total = sum(block.size for block in _blocks(volume, mask, above))
    step = max(1, -(-total // most))
    kept, passed = [np.empty(0)], 0
    for block in _blocks(volume, mask, above):
        kept.append(block[-passed % step :: step])
        passed += block.size
    return np.concatenate(kept), step


def _is_above(stored: Array, intensities: IntensityMap, above: float) -> npt.NDArray[np.bool_]:
    """Whether each voxel of a flat array reads above a value; in blocks, as they are widened."""
    found = np.empty(stored.size, np.bool_)
    for start in range(0, stored.size, _BLOCK):
        found[start : start + _BLOCK] = exact_values(stored[start : start + _BLOCK], intensities) > above
    return found


def _blocks(volume: Volume, mask: Mask | None, above: float | None) -> Iterator[npt.NDArray[np.float64]]:
    flat_mask = None if mask is None else mask.reshape(-1)
    for channel in volume.array:
        flat = channel.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK]
            if flat_mask is not None:
                block = block[flat_mask[start : start + _BLOCK]]
            values = exact_values(block, volume.map)
            if above is not None:
                values = values[values > above]
            if values.size:
                yield values
