"""A stored voxel's value as read: a gain, a bias and a clamp, or a table, applied in the one pass that converts to float32.

This is the only definition of "value as read": whole-volume preprocessing and patch reads both go through `apply_map`, so that a patch
read from a cache equals the preprocessed volume bit for bit.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided

from patchflow.errors import ArgumentError
from patchflow.kernels.histogram import has_histogram, levels
from patchflow.kernels.intensity_map import IntensityMap, exact_values, plain_exact_values
from patchflow.kernels.jit import inlined, kernel
from patchflow.types import Array

__all__ = ["IntensityMap", "apply_map", "copy_voxels", "flat_view", "plain_apply_map", "plain_tensor_map", "table_of"]

_TABLES = 64
"""Tables of curves that a process keeps, 256 KiB each at most; a new one takes a tenth of a millisecond."""


def apply_map(stored: Array, intensities: IntensityMap, out: Array | None = None) -> Array:
    """Values as read of stored voxels.

    The kernel releases the GIL and takes any strides, negative ones included (a flip is a view); it is fastest where the last axis of
    both arrays is contiguous. Where the map has a curve, voxels of 8- and 16-bit integers are looked up in a table. It agrees with
    `plain_apply_map` bit for bit.

    Args:
        stored: (C, i, j, k), any real dtype, any strides.
        intensities: the map.
        out: float32 (C, i, j, k), any strides, not overlapping `stored`; made when None.

    Returns:
        `out`, filled.

    Raises:
        ArgumentError: for another dtype or shape of `out`, or voxels that are not real numbers.
    """
    source = _as_kernel_input(stored)
    if source.ndim != 4:
        raise ArgumentError(f"stored voxels must be (C, i, j, k), not of shape {stored.shape}")
    if out is None:
        out = np.empty(source.shape, np.float32)
    elif out.dtype != np.float32 or out.shape != source.shape:
        raise ArgumentError(f"out must be float32 of shape {source.shape}, not {out.dtype} of shape {out.shape}")
    m, table = intensities, None
    if m.curve is not None and not has_histogram(source.dtype):
        with np.errstate(over="ignore"):
            for plane in np.ndindex(source.shape[:2]):
                out[plane] = exact_values(source[plane], m)
    elif source.size:
        if m.curve is not None:
            table, source = table_of(m, source.dtype), source.view(f"u{source.itemsize}")
        flat_in, base_in, steps_in = flat_view(source)
        flat_out, base_out, steps_out = flat_view(out)
        flat_in.flags.writeable = False  # one compiled kernel serves mapped files and arrays in memory
        _map_box(flat_in, base_in, steps_in, flat_out, base_out, steps_out, source.shape, table, m.gain, m.bias, m.low, m.high)
    return out


@lru_cache(_TABLES)
def table_of(intensities: IntensityMap, dtype: np.dtype[Any]) -> Array:
    """What each value of a dtype reads as.

    Args:
        intensities: the map.
        dtype: 8- or 16-bit integers.

    Returns:
        float32 (256,) or (65536,), read-only: the value of each voxel at the place that its bits name as an unsigned number.
    """
    with np.errstate(over="ignore"):  # beyond float32 is inf, as in the kernel
        values = exact_values(levels(dtype), intensities).astype(np.float32)
    table: Array = np.roll(values, np.iinfo(dtype).min)
    table.flags.writeable = False
    return table


def plain_apply_map(stored: Array, intensities: IntensityMap) -> Array:
    """What `apply_map` computes, in a few lines of numpy."""
    values = plain_exact_values(stored, intensities)
    with np.errstate(over="ignore"):  # beyond float32 is inf, as in the kernel
        return values.astype(np.float32)


def copy_voxels(stored: Array, out: Array) -> None:
    """`out[...] = stored`, which it agrees with, quickly where rows are turned round: numpy copies those voxel by voxel.

    Args:
        stored: (C, i, j, k), any strides, not overlapping `out`.
        out: of the same shape, in a dtype that holds the values.
    """
    turned = stored.strides[3] == stored.itemsize and out.strides[3] == -out.itemsize
    if stored.dtype == out.dtype and out.itemsize in (1, 2, 4, 8):  # the bytes are moved as they are: dtypes of a size share one kernel
        stored, out = stored.view(f"u{out.itemsize}"), out.view(f"u{out.itemsize}")
    if not (turned and stored.size and stored.dtype.kind in "iu" and stored.dtype.isnative):
        np.copyto(out, stored)
        return
    flat_in, base_in, steps_in = flat_view(stored)
    flat_out, base_out, steps_out = flat_view(out)
    flat_in.flags.writeable = False
    _copy_turned(flat_in, base_in, steps_in, flat_out, base_out, steps_out, stored.shape)


def plain_tensor_map(stored: torch.Tensor, intensities: IntensityMap) -> torch.Tensor:
    """What `apply_map` computes, on tensors of any device: float32, bit for bit the same on a CPU."""
    return _plain_values(stored.double(), intensities).float()


def _plain_values(x: torch.Tensor, intensities: IntensityMap) -> torch.Tensor:
    m = intensities
    if m.curve is not None:
        places, values, slopes = (torch.from_numpy(numbers).to(x.device) for numbers in m.curve.points())
        x = _plain_values(x, m.curve.before).contiguous()
        piece = (torch.searchsorted(places, x, right=True) - 1).clamp(min=0)
        x = values[piece] + slopes[piece] * (x - places[piece])
    return (x * m.gain + m.bias).clamp(m.low, m.high)


def flat_view(array: Array) -> tuple[Array, int, tuple[int, ...]]:
    """The memory that `array` spans as one contiguous axis, the position of its first element there, and its strides in elements.

    Kernels on flat arrays vectorise; kernels on arrays of unknown strides do not. Shares memory with `array`, which must not be empty.
    """
    if array.flags.c_contiguous:
        flat = array.reshape(-1)[:]
        return flat, 0, tuple(step // array.itemsize for step in array.strides)
    steps = tuple(step // array.itemsize for step in array.strides)
    extents = [step * (n - 1) for step, n in zip(steps, array.shape, strict=True)]
    forward = array[tuple(slice(None, None, -1) if step < 0 else slice(None) for step in steps)]
    span = 1 + sum(abs(extent) for extent in extents)
    return as_strided(forward, (span,), (array.itemsize,)), -sum(min(extent, 0) for extent in extents), steps


def _as_kernel_input(stored: Array) -> Array:
    array = np.asarray(stored)
    if array.dtype.kind not in "biuf":
        raise ArgumentError(f"voxels must be real numbers, not {array.dtype}")
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)  # exact; half floats are no fast type on a CPU
    if array.dtype.itemsize > 8:
        return array.astype(np.float64)
    if any(step % array.itemsize for step in array.strides) or not array.flags.aligned:
        return array.astype(array.dtype.newbyteorder("="))  # a field of a record, say
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


@inlined
def _value(stored, table, gain, bias, low, high):  # type: ignore[no-untyped-def]
    if table is not None:
        return table[stored]
    value = gain * np.float64(stored) + bias
    value = low if value < low else value
    value = high if value > high else value
    return np.float32(value)


@kernel
def _map_box(source, base_in, steps_in, out, base_out, steps_out, shape, table, gain, bias, low, high):  # type: ignore[no-untyped-def]
    channels, ni, nj, nk = shape
    unit = abs(steps_in[3]) == 1 and abs(steps_out[3]) == 1
    first_in, first_out = min(steps_in[3] * (nk - 1), 0), min(steps_out[3] * (nk - 1), 0)
    for c in range(channels):
        for i in range(ni):
            for j in range(nj):
                start = base_in + c * steps_in[0] + i * steps_in[1] + j * steps_in[2]
                end = base_out + c * steps_out[0] + i * steps_out[1] + j * steps_out[2]
                if not unit:
                    for k in range(nk):
                        out[end + k * steps_out[3]] = _value(source[start + k * steps_in[3]], table, gain, bias, low, high)
                    continue
                row_in = source[start + first_in : start + first_in + nk]  # slices of known unit stride: the loop vectorises
                row_out = out[end + first_out : end + first_out + nk]
                if steps_in[3] == steps_out[3]:
                    for k in range(nk):
                        row_out[k] = _value(row_in[k], table, gain, bias, low, high)
                    continue
                last = np.uint64(nk - 1)  # unsigned: signed positions are tested for counting from the end, and do not vectorise
                for k in range(np.uint64(nk)):
                    row_out[k] = _value(row_in[last - np.uint64(k)], table, gain, bias, low, high)


@kernel
def _copy_turned(source, base_in, steps_in, out, base_out, steps_out, shape):  # type: ignore[no-untyped-def]
    """Rows of unit stride, those of `out` backwards."""
    channels, ni, nj, nk = shape
    last = np.uint64(nk - 1)
    for c in range(channels):
        for i in range(ni):
            for j in range(nj):
                start = base_in + c * steps_in[0] + i * steps_in[1] + j * steps_in[2]
                end = base_out + c * steps_out[0] + i * steps_out[1] + j * steps_out[2] - (nk - 1)
                row_in, row_out = source[start : start + nk], out[end : end + nk]
                for k in range(np.uint64(nk)):
                    row_out[k] = row_in[last - np.uint64(k)]
