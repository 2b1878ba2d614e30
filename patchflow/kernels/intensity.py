"""Pointwise changes of a patch's values, in place: one pass each, beside the tensor formula that gives the same on any device."""

import numba
import numpy as np
import torch

from patchflow.kernels.elementary import exp2, log2_parts
from patchflow.types import Array

_f = np.float32
_SMALLEST = _f(np.finfo(np.float32).tiny)
_PER_LN2 = _f(1.4426950408889634)


def apply_gamma(patch: Array, gamma: float, low: float, width: float) -> None:
    """v -> low + width sign(n) |n|^gamma with n = (v - low) / width, in place.

    Args:
        patch: float32, C-contiguous, any shape.
        gamma: exponent, above 0.
        low, width: where the scale of n starts, and its length, above 0; in units of the values.
    """
    _gamma(patch.reshape(-1), _f(gamma), _f(low), _f(width))


def plain_gamma(patch: torch.Tensor, gamma: float, low: float, width: float) -> torch.Tensor:
    """What `apply_gamma` computes, to 1e-6 of `width` within the scale; a new tensor, on any device."""
    n = (patch - low) * (1 / width)
    return low + width * n.sign() * n.abs() ** gamma


def apply_scale_shift(patch: Array, factor: float, shift: float) -> None:
    """v -> factor v + shift, in place. `patch` is float32, C-contiguous, of any shape."""
    _scale_shift(patch.reshape(-1), _f(factor), _f(shift))


def plain_scale_shift(patch: torch.Tensor, factor: float, shift: float) -> torch.Tensor:
    """What `apply_scale_shift` computes, bit for bit on a CPU; a new tensor, on any device."""
    return patch * factor + shift


@numba.njit(nogil=True, cache=True, error_model="numpy")  # a check for division by zero would keep the loop from vectorising
def _gamma(values, gamma, low, width):  # type: ignore[no-untyped-def]
    scale = _f(1) / width
    for q in range(values.size):
        n = (values[q] - low) * scale
        size = abs(n)
        exponent, rest = log2_parts(max(size, _SMALLEST))
        power = exp2(gamma * (_f(exponent) + rest * _PER_LN2))
        power = _f(0) if size < _SMALLEST else power
        values[q] = low + width * (-power if n < 0 else power)


@numba.njit(nogil=True, cache=True)
def _scale_shift(values, factor, shift):  # type: ignore[no-untyped-def]
    for q in range(values.size):
        values[q] = values[q] * factor + shift
