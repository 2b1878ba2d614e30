"""Separable symmetric filters (Gaussian blur, unsharp mask) over a patch with a margin, in one trip through memory.

Every plane of the patch is filtered along J and K piece by piece, in a buffer that stays in the nearest cache, and the last planes are kept
in a ring; a plane of the result is a weighted sum of the ring's. A plane is treated as one long row: what such a row brings in from beyond
the ends of the patch's own rows falls into the margin only.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from patchflow.kernels.jit import kernel
from patchflow.types import Array

Weights = npt.NDArray[np.float32]
"""Half of a symmetric filter: the weight of the voxel itself, then of its neighbours at distance 1, 2, ..."""

_TAIL = 6.4e-5  # what lies beyond 4 standard deviations
_PIECE = 2048  # float32 voxels: 8 KiB


@lru_cache(maxsize=256)  # asked for again and again while one patch is made
def gaussian(std: float) -> Weights:
    """Half of a Gaussian filter that adds up to 1, sampled at whole voxels.

    It is cut where less than 6.4e-5 of the whole, as much as lies beyond 4 standard deviations, is left over; so far reaches the filter.

    Args:
        std: in voxels, at least 0.

    Returns:
        float32 (radius + 1,), read-only.
    """
    distance = np.arange(math.ceil(6 * std) + 2 if std >= 0.1 else 1)  # below 0.1, the neighbours' share is below 1e-21
    heights = np.exp(-0.5 * (distance / max(std, 0.1)) ** 2)
    heights[1:] *= 2  # both sides
    left_over = 1 - np.cumsum(heights) / heights.sum()
    radius = int(np.argmax(left_over < _TAIL))
    half = heights[: radius + 1] / heights[: radius + 1].sum()
    half[1:] /= 2
    weights = np.asarray(half, np.float32)
    weights.flags.writeable = False
    return weights


def filter_middle(patch: Array, weights: Sequence[Weights], keep: float = 0.0, gain: float = 1.0) -> None:
    """v -> keep v + gain (filtered v), in place, in the middle of a patch.

    Args:
        patch: float32 (C, i, j, k), C-contiguous. As many voxels at each end of an axis as its filter's radius are the margin: they are
            looked at, and hold anything afterwards. Along each axis at least one voxel must be left.
        weights: half filters along I, J, K.
        keep, gain: see the formula.
    """
    along_i, along_j, along_k = weights
    for volume in patch:
        _filter(volume.reshape(-1), volume.shape, along_i, along_j, along_k, np.float32(keep), np.float32(gain))


def plain_filter(patch: torch.Tensor, weights: Sequence[Weights], keep: float = 0.0, gain: float = 1.0) -> torch.Tensor:
    """What `filter_middle` computes, to 1e-6 of the values' size: a new tensor of the same shape, on any device."""
    filtered = patch
    for axis, half in enumerate(weights, 1):
        radius, count = len(half) - 1, patch.shape[axis]
        total = filtered * float(half[0])
        for distance in range(1, radius + 1):
            middle = total.narrow(axis, radius, count - 2 * radius)
            before, after = (filtered.narrow(axis, radius + step, count - 2 * radius) for step in (-distance, distance))
            middle += (before + after) * float(half[distance])
        filtered = total
    return keep * patch + gain * filtered if keep else gain * filtered


@kernel(fastmath={"contract"})
def _weighted_sum(source, places, weights, out):  # type: ignore[no-untyped-def]
    """out = weights[0] source[places[0]:] + the sum over t of weights[t] (source[places[2t-1]:] + source[places[2t]:])."""
    n, taps = out.size, weights.size
    centre, w = source[places[0] : places[0] + n], weights[0]
    done = 1
    if taps > 2:
        a, b = source[places[1] : places[1] + n], source[places[2] : places[2] + n]
        c, d = source[places[3] : places[3] + n], source[places[4] : places[4] + n]
        wa, wc = weights[1], weights[2]
        for q in range(n):
            out[q] = w * centre[q] + wa * (a[q] + b[q]) + wc * (c[q] + d[q])
        done = 3
    else:
        for q in range(n):
            out[q] = w * centre[q]
    while done + 1 < taps:  # two at a time: half as many trips through `out`
        a, b = source[places[2 * done - 1] : places[2 * done - 1] + n], source[places[2 * done] : places[2 * done] + n]
        c, d = source[places[2 * done + 1] : places[2 * done + 1] + n], source[places[2 * done + 2] : places[2 * done + 2] + n]
        wa, wc = weights[done], weights[done + 1]
        for q in range(n):
            out[q] += wa * (a[q] + b[q]) + wc * (c[q] + d[q])
        done += 2
    if done < taps:
        a, b = source[places[2 * done - 1] : places[2 * done - 1] + n], source[places[2 * done] : places[2 * done] + n]
        wa = weights[done]
        for q in range(n):
            out[q] += wa * (a[q] + b[q])


@kernel
def _spread(places, centre, step):  # type: ignore[no-untyped-def]
    """The places of a voxel and of its neighbours, `step` apart, in the order of `_weighted_sum`."""
    places[0] = centre
    for t in range(1, places.size // 2 + 1):
        places[2 * t - 1], places[2 * t] = centre - t * step, centre + t * step


@kernel
def _filter_plane(plane, nk, first, along_j, along_k, places_j, places_k, piece, out):  # type: ignore[no-untyped-def]
    """Filter the voxels of a plane from `first` on along J and K."""
    radius = along_k.size - 1
    _spread(places_k, radius, 1)
    for start in range(0, out.size, _PIECE):
        size = min(_PIECE, out.size - start)
        _spread(places_j, first + start - radius, nk)
        _weighted_sum(plane, places_j, along_j, piece[: size + 2 * radius])
        _weighted_sum(piece, places_k, along_k, out[start : start + size])


@kernel(fastmath={"contract"})
def _combine(values, filtered, keep, gain):  # type: ignore[no-untyped-def]
    for q in range(values.size):
        values[q] = keep * values[q] + gain * filtered[q]


@kernel
def _filter(flat, shape, along_i, along_j, along_k, keep, gain):  # type: ignore[no-untyped-def]
    ni, nj, nk = shape
    ri, rj, rk = along_i.size - 1, along_j.size - 1, along_k.size - 1
    first = rj * nk + rk  # of a plane's middle, as of one long row
    size, depth = (nj - rj) * nk - rk - first, 2 * ri + 1
    ring, piece, filtered = np.empty(depth * size, np.float32), np.empty(_PIECE + 2 * rk, np.float32), np.empty(_PIECE, np.float32)
    places_i, places_j, places_k = np.empty(depth, np.int64), np.empty(2 * rj + 1, np.int64), np.empty(2 * rk + 1, np.int64)
    for i in range(ni):
        plane, slot = flat[i * nj * nk : (i + 1) * nj * nk], i % depth
        _filter_plane(plane, nk, first, along_j, along_k, places_j, places_k, piece, ring[slot * size : (slot + 1) * size])
        if i < 2 * ri:
            continue
        result = flat[(i - ri) * nj * nk + first : (i - ri) * nj * nk + first + size]
        for start in range(0, size, _PIECE):
            count = min(_PIECE, size - start)
            places_i[0] = (i - ri) % depth * size + start
            for t in range(1, ri + 1):
                places_i[2 * t - 1], places_i[2 * t] = (i - ri - t) % depth * size + start, (i - ri + t) % depth * size + start
            if keep == 0 and gain == 1:
                _weighted_sum(ring, places_i, along_i, result[start : start + count])
            else:
                _weighted_sum(ring, places_i, along_i, filtered[:count])
                _combine(result[start : start + count], filtered[:count], keep, gain)
