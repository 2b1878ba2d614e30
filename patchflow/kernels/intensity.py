"""Pointwise changes of a patch's values, in place: one pass each, beside the tensor formula that gives the same on any device."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from patchflow.kernels.elementary import power
from patchflow.kernels.jit import kernel
from patchflow.kernels.statistics import LANES, PIECE, as_moments, ends, sums
from patchflow.kernels.summary import Moments
from patchflow.types import Array

_f = np.float32


def apply_gamma(patch: Array, gamma: float, low: float, width: float) -> None:
    """v -> low + width sign(n) |n|^gamma with n = (v - low) / width, in place.

    Args:
        patch: float32, C-contiguous, any shape.
        gamma: exponent, above 0.
        low, width: where the scale of n starts, and its length, not 0 (negative for a scale that goes down); in units of the values.
    """
    _gamma(patch.reshape(-1), _f(gamma), _f(low), _f(width))


def apply_gamma_measured(patch: Array, gamma: float, low: float, width: float) -> Moments:
    """What `apply_gamma` does, and the moments of the result, in one trip through memory."""
    return as_moments(patch.size, *_gamma_measured(patch.reshape(-1), _f(gamma), _f(low), _f(width)))


def plain_gamma(patch: torch.Tensor, gamma: float, low: float | torch.Tensor, width: float | torch.Tensor) -> torch.Tensor:
    """What `apply_gamma` computes, to 1e-6 of `width` within the scale; a new tensor, on any device."""
    n = (patch - low) * (1 / width)
    return low + width * n.sign() * n.abs() ** gamma


def apply_scale_shift(patch: Array, factor: float, shift: float, low: float = -math.inf, high: float = math.inf) -> None:
    """v -> factor v + shift, not below `low` nor above `high`, in place. `patch` is float32, C-contiguous, of any shape."""
    if low == -math.inf and high == math.inf:
        _scale_shift(patch.reshape(-1), _f(factor), _f(shift))
    else:
        _scale_clamp(patch.reshape(-1), _f(factor), _f(shift), _f(low), _f(high))


def plain_scale_shift(patch: torch.Tensor, factor: float, shift: float, low: float = -math.inf, high: float = math.inf) -> torch.Tensor:
    """What `apply_scale_shift` computes, bit for bit on a CPU; a new tensor, on any device."""
    changed = patch * factor + shift
    return changed if low == -math.inf and high == math.inf else changed.clamp_(low, high)


def apply_segments(patch: Array, low: float, high: float, heights: Sequence[float]) -> None:
    """Map values by straight lines through evenly spaced points, in place; values beyond the ends stay as they are.

    Args:
        patch: float32, C-contiguous, any shape.
        low, high: where the first and the last point lie, low < high.
        heights: what the points become, at least two; the first is `low` and the last `high`.
    """
    shifts, slopes = _segments(low, high, heights)
    _map_segments(patch.reshape(-1), _f(low), _f((len(heights) - 1) / (high - low)), shifts, slopes)


def plain_segments(patch: torch.Tensor, low: float, high: float, heights: Sequence[float]) -> torch.Tensor:
    """What `apply_segments` computes, to 1e-6 of the range; a new tensor, on any device."""
    points = np.linspace(low, high, len(heights))
    mapped = patch.clone()
    for a, b, before, after in zip(points[:-1], points[1:], heights[:-1], heights[1:], strict=True):
        change = (after - before) / (b - a) - 1  # a line beyond the identity, within its own segment
        mapped += change * (patch.clamp(float(a), float(b)) - float(a))
    return mapped


def _segments(low: float, high: float, heights: Sequence[float]) -> tuple[Array, Array]:
    """Each line as v -> (v - low) slope + shift, the identity before the first and after the last; what is below `low` is line 0."""
    points = np.linspace(0, high - low, len(heights))
    slopes = np.concatenate([[1.0], np.diff(heights) / np.diff(points), [1.0]])
    shifts = np.concatenate([[low], heights[:-1] - slopes[1:-1] * points[:-1], [low]])
    return shifts.astype(np.float32), slopes.astype(np.float32)


@kernel(fastmath={"contract"})  # a third faster; differs in the last bit
def _gamma(values, gamma, low, width):  # type: ignore[no-untyped-def]
    scale = _f(1) / width
    for q in range(values.size):
        n = (values[q] - low) * scale
        values[q] = low + (-width if n < 0 else width) * power(abs(n), gamma)


@kernel
def _gamma_measured(values, gamma, low, width):  # type: ignore[no-untyped-def]
    lowest, highest = np.full(LANES, _f(np.inf)), np.full(LANES, _f(-np.inf))
    total, squares = 0.0, 0.0
    for start in range(0, values.size, PIECE):
        piece = values[start : start + PIECE]
        _gamma(piece, gamma, low, width)
        more, more_squares = sums(piece)
        total += more
        squares += more_squares
        ends(piece, lowest, highest)
    return total, squares, lowest.min(), highest.max()


@kernel
def _scale_shift(values, factor, shift):  # type: ignore[no-untyped-def]
    for q in range(values.size):
        values[q] = values[q] * factor + shift


@kernel
def _scale_clamp(values, factor, shift, low, high):  # type: ignore[no-untyped-def]
    for q in range(values.size):
        values[q] = min(max(values[q] * factor + shift, low), high)


@kernel
def _map_segments(values, low, per_width, shifts, slopes):  # type: ignore[no-untyped-def]
    last = _f(slopes.size - 1)
    for q in range(values.size):
        n = values[q] - low
        line = np.int32(min(max(np.floor(n * per_width) + _f(1), _f(0)), last))
        values[q] = n * slopes[line] + shifts[line]
