"""A stored voxel's value as read: a gain, a bias and a clamp, applied in the one pass that converts to float32.

This is the only definition of "value as read": whole-volume preprocessing and patch reads both go through `apply_map`, so that a patch
read from a cache equals the preprocessed volume bit for bit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided

from patchflow.errors import ArgumentError
from patchflow.kernels.jit import inlined, kernel
from patchflow.types import Array


@dataclass(frozen=True)
class IntensityMap:
    """value = clip(gain * stored + bias, low, high), computed per voxel in float64 and rounded once to float32.

    Attributes:
        gain: finite and not 0.
        bias: finite.
        low: the least value as read; -inf for no limit.
        high: the greatest value as read; inf for no limit; not below `low`.
    """

    gain: float = 1.0
    bias: float = 0.0
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        for name in ("gain", "bias", "low", "high"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if not math.isfinite(self.gain) or self.gain == 0:
            raise ArgumentError(f"the gain of an intensity map must be finite and not 0, not {self.gain!r}")
        if not math.isfinite(self.bias):
            raise ArgumentError(f"the bias of an intensity map must be finite, not {self.bias!r}")
        if not self.low <= self.high:
            raise ArgumentError(f"the limits of an intensity map must be low <= high, not {self.low!r} and {self.high!r}")

    @property
    def has_clamp(self) -> bool:
        """Whether values are limited on either side."""
        return self.low > -math.inf or self.high < math.inf

    @property
    def is_identity(self) -> bool:
        """Whether values as read are the stored values (rounded to float32)."""
        return self.gain == 1 and self.bias == 0 and not self.has_clamp

    def then(self, other: "IntensityMap") -> "IntensityMap":
        """The map that does this one first and `other` on its result: again a gain, a bias and a clamp.

        Raises:
            ArgumentError: when the composed gain is not finite or vanishes in float64.
        """
        ends = sorted(other.gain * limit + other.bias for limit in (self.low, self.high))  # a negative gain swaps the limits
        low, high = (min(max(end, other.low), other.high) for end in ends)
        return IntensityMap(other.gain * self.gain, other.gain * self.bias + other.bias, low, high)

    def to_dict(self) -> dict[str, float | None]:
        """Plain JSON values; a missing limit is None, as JSON has no infinity."""
        low = self.low if math.isfinite(self.low) else None
        high = self.high if math.isfinite(self.high) else None
        return {"gain": self.gain, "bias": self.bias, "low": low, "high": high}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "IntensityMap":
        """The map written by `to_dict`."""
        low, high = values["low"], values["high"]
        return cls(values["gain"], values["bias"], -math.inf if low is None else low, math.inf if high is None else high)


def apply_map(stored: Array, intensities: IntensityMap, out: Array | None = None) -> Array:
    """Values as read of stored voxels.

    The kernel releases the GIL and takes any strides, negative ones included (a flip is a view); it is fastest where the last axis of
    both arrays is contiguous. It agrees with `plain_apply_map` bit for bit.

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
    if source.size:
        flat_in, base_in, steps_in = flat_view(source)
        flat_out, base_out, steps_out = flat_view(out)
        flat_in.flags.writeable = False  # one compiled kernel serves mapped files and arrays in memory
        m = intensities
        _map_box(flat_in, base_in, steps_in, flat_out, base_out, steps_out, source.shape, m.gain, m.bias, m.low, m.high)
    return out


def plain_apply_map(stored: Array, intensities: IntensityMap) -> Array:
    """What `apply_map` computes, in four lines of numpy."""
    values = np.asarray(stored).astype(np.float64) * intensities.gain + intensities.bias
    values = np.where(values < intensities.low, intensities.low, values)
    values = np.where(values > intensities.high, intensities.high, values)
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
    m = intensities
    return (stored.double() * m.gain + m.bias).clamp(m.low, m.high).float()


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
def _value(stored, gain, bias, low, high):  # type: ignore[no-untyped-def]
    value = gain * np.float64(stored) + bias
    value = low if value < low else value
    value = high if value > high else value
    return np.float32(value)


@kernel
def _map_box(source, base_in, steps_in, out, base_out, steps_out, shape, gain, bias, low, high):  # type: ignore[no-untyped-def]
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
                        out[end + k * steps_out[3]] = _value(source[start + k * steps_in[3]], gain, bias, low, high)
                    continue
                row_in = source[start + first_in : start + first_in + nk]  # slices of known unit stride: the loop vectorises
                row_out = out[end + first_out : end + first_out + nk]
                if steps_in[3] == steps_out[3]:
                    for k in range(nk):
                        row_out[k] = _value(row_in[k], gain, bias, low, high)
                    continue
                last = np.uint64(nk - 1)  # unsigned: signed positions are tested for counting from the end, and do not vectorise
                for k in range(np.uint64(nk)):
                    row_out[k] = _value(row_in[last - np.uint64(k)], gain, bias, low, high)


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
