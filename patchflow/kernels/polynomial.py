"""Multiplication by the exponential of a polynomial in three coordinates."""

from typing import Any

import numpy as np
import torch

from patchflow.kernels.elementary import exp2
from patchflow.kernels.jit import kernel
from patchflow.types import Array, Int3

_f = np.float32
_PER_LN2 = 1.4426950408889634


def apply_field(patch: Array, start: Int3, shape: Int3, coefficients: Array, zero: float) -> None:
    """v -> zero + (v - zero) exp(sum of coefficients[a, b, c] x^a y^b z^c), in place.

    x, y and z go from -1 at the volume's first voxel to 1 at its last along I, J and K; beyond the volume they stay -1 and 1, and along an
    axis of one voxel they are 0.

    Args:
        patch: float32 (C, i, j, k), C-contiguous; every channel gets the same field.
        start: the volume's coordinates of the patch's first voxel; may be negative.
        shape: voxels of the volume.
        coefficients: float64 (n, n, n).
        zero: the value that stays as it is.
    """
    x, y, z = (_coordinates(np.arange(a, a + size), n) for a, size, n in zip(start, patch.shape[1:], shape, strict=True))
    _apply_field(patch, x, y, z.astype(np.float32), coefficients * _PER_LN2, _f(zero))


def plain_field(patch: torch.Tensor, start: Int3, shape: Int3, coefficients: Array, zero: float) -> torch.Tensor:
    """What `apply_field` computes, to 1e-5 of the result; a new tensor, on any device."""
    x, y, z = (
        _coordinates(torch.arange(a, a + size, device=patch.device), n).to(patch.dtype)
        for a, size, n in zip(start, patch.shape[1:], shape, strict=True)
    )
    exponent = torch.zeros((), dtype=patch.dtype, device=patch.device)
    for a, plane in enumerate(coefficients.tolist()):
        across = sum(c * y[:, None] ** b * z**power for b, row in enumerate(plane) for power, c in enumerate(row) if c)
        exponent = exponent + x[:, None, None] ** a * across
    return zero + (patch - zero) * torch.exp(exponent)


def _coordinates(voxels: Any, n: int) -> Any:
    return (2 * voxels - (n - 1)).clip(1 - n, n - 1) / max(n - 1, 1)


@kernel(fastmath={"contract"})
def _apply_field(patch, x, y, z, coefficients, zero):  # type: ignore[no-untyped-def]
    channels, ni, nj, nk = patch.shape
    terms = coefficients.shape[0]
    plane, line, field = np.empty((terms, terms)), np.empty(terms), np.empty(nk, np.float32)
    for i in range(ni):
        plane[:, :] = coefficients[terms - 1]
        for a in range(terms - 2, -1, -1):
            plane[:, :] = plane * x[i] + coefficients[a]
        for j in range(nj):
            for c in range(terms):
                total = 0.0
                for b in range(terms - 1, -1, -1):
                    total = total * y[j] + plane[b, c]
                line[c] = total
            field[:] = _f(line[terms - 1])
            for c in range(terms - 2, -1, -1):
                factor = _f(line[c])
                for k in range(nk):
                    field[k] = field[k] * z[k] + factor
            for k in range(nk):
                field[k] = exp2(field[k])
            for channel in range(channels):
                row = patch[channel, i, j]
                for k in range(nk):
                    row[k] = zero + (row[k] - zero) * field[k]
