"""The channel of the greatest value: `torch.argmax` along the first axis takes tens of times as long, and makes int64."""

import numpy as np
import numpy.typing as npt

from patchflow.kernels.jit import kernel
from patchflow.types import Array

_ROW = 4096
"""Voxels worked on at a time, so that the greatest values so far stay in the processor's nearest cache."""


def argmax_channels(values: Array, dtype: npt.DTypeLike) -> Array:
    """The channel of the greatest value of each voxel; ties go to the lower channel.

    Args:
        values: float32 or float64 (C, I, J, K), each channel C-contiguous (a few slices of a larger volume are), without NaN.
        dtype: integer dtype of the result, which holds C - 1.

    Returns:
        (1, I, J, K).
    """
    if not values[0].flags.c_contiguous or values.strides[0] < 0:
        raise ValueError("each channel must be C-contiguous")
    labels = np.zeros((1, *values.shape[1:]), dtype)
    step = values.strides[0] // values.itemsize if len(values) > 1 else labels.size
    flat = np.lib.stride_tricks.as_strided(values, ((len(values) - 1) * step + labels.size,), (values.itemsize,), writeable=False)
    _argmax_rows(flat, step, len(values), labels.reshape(-1), np.empty(_ROW, values.dtype))
    return labels


def plain_argmax_channels(values: Array, dtype: npt.DTypeLike) -> Array:
    """The plain twin of `argmax_channels`."""
    labels: Array = values.argmax(axis=0, keepdims=True).astype(dtype)
    return labels


@kernel
def _argmax_rows(values, step, channels, labels, best):  # type: ignore[no-untyped-def]
    voxels = labels.size
    for first in range(0, voxels, best.size):
        n = min(best.size, voxels - first)
        row = labels[first : first + n]
        best[:n] = values[first : first + n]
        for c in range(1, channels):
            channel = values[c * step + first : c * step + first + n]
            for k in range(n):
                greater = channel[k] > best[k]
                best[k] = channel[k] if greater else best[k]
                row[k] = c if greater else row[k]
