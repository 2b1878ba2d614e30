"""Gaussian noise that belongs to the voxel: a function of a key, the channel and the voxel's coordinates in the volume.

The generator is Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011), which has a counter and a key and no
state. The counter (i, j, k // 4, channel) gives four 32-bit words, for the voxels k of one block of four; Box and Muller (1958) turn each
two words into two normal numbers. The noise of a patch is therefore the crop of the noise of the volume, negative coordinates included.
"""

import math

import numpy as np
import torch

from patchflow.kernels.elementary import log, sin_cos
from patchflow.kernels.jit import inlined, kernel
from patchflow.types import Array, Int3

_u = np.uint64
_MASK = _u(0xFFFFFFFF)
_M0, _M1 = _u(0xD2511F53), _u(0xCD9E8D57)  # multipliers and key increments of the paper's table 2
_W0, _W1 = _u(0x9E3779B9), _u(0xBB67AE85)
_ROUNDS = 10
_f = np.float32
_QUARTER_TURN = _f(math.pi / 2)
_OTHER_FIELD = 2**31
_ROWS = 4  # made together: long loops lose less at their ends


def add_normal(patch: Array, start: Int3, key: int, mean: float, std: float) -> None:
    """Add noise of `mean` and `std` to a patch, in place.

    Args:
        patch: float32 (C, i, j, k), C-contiguous, with fewer than 2^31 voxels along each axis and fewer than 2^31 channels.
        start: the volume's coordinates of the patch's first voxel; may be negative.
        key: 0 <= key < 2^64; another key gives independent noise.
        mean, std: in units of the patch's values.
    """
    _add_normal(patch, start, _u(key & 0xFFFFFFFF), _u(key >> 32), _f(mean), _f(std))


def make_rician(patch: Array, start: Int3, key: int, low: float, std: float) -> None:
    """v -> low + sqrt((v - low + n)^2 + m^2), in place, with n and m independent normal numbers of `std`.

    n is the noise that `add_normal` adds for the same key; m is that of channels 2^31 and on, which no patch has.

    Args:
        patch, start, key: see `add_normal`.
        low: the value of no signal.
        std: of both, in units of the patch's values.
    """
    _make_rician(patch, start, _u(key & 0xFFFFFFFF), _u(key >> 32), _f(low), _f(std))


def plain_rician(patch: torch.Tensor, start: Int3, key: int, low: float, std: float) -> torch.Tensor:
    """What `make_rician` computes, to 1e-6 of the values' size; a new tensor, on any device."""
    channels, i, j, k = patch.shape
    real, imaginary = (
        std * plain_normal((channels, i, j, k), start, key, patch.device, first).to(patch.dtype) for first in (0, _OTHER_FIELD)
    )
    return low + torch.hypot(patch - low + real, imaginary)


def plain_normal(
    shape: tuple[int, int, int, int], start: Int3, key: int, device: torch.device | str = "cpu", first_channel: int = 0
) -> torch.Tensor:
    """The noise that `add_normal` adds for mean 0 and std 1: float32 (C, i, j, k), to 1e-6, on any device."""
    channels, size = shape[0], shape[1:]
    i, j = (torch.arange(a, a + n, device=device) for a, n in zip(start[:2], size[:2], strict=True))
    blocks = torch.arange(start[2] >> 2, ((start[2] + size[2] - 1) >> 2) + 1, device=device)
    grids = torch.meshgrid(torch.arange(channels, device=device) + first_channel, i, j, blocks, indexing="ij")
    c, i, j, block = (grid & 0xFFFFFFFF for grid in grids)
    words = plain_philox(i, j, block, c, key)
    normals = torch.stack([normal for pair in (0, 2) for normal in _plain_box_muller(words[pair], words[pair + 1])], dim=-1)
    lead = start[2] & 3  # a block holds four voxels, the patch may start within one
    return normals.reshape(*shape[:3], -1)[..., lead : lead + size[2]].float()


def plain_philox(c0: torch.Tensor, c1: torch.Tensor, c2: torch.Tensor, c3: torch.Tensor, key: int) -> tuple[torch.Tensor, ...]:
    mask, k0, k1 = 0xFFFFFFFF, key & 0xFFFFFFFF, key >> 32
    for _ in range(_ROUNDS):
        p0, p1 = c0 * int(_M0), c2 * int(_M1)  # int64 wraps, which keeps all 64 bits
        c0, c1, c2, c3 = ((p1 >> 32) & mask) ^ c1 ^ k0, p1 & mask, ((p0 >> 32) & mask) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + int(_W0)) & mask, (k1 + int(_W1)) & mask
    return c0, c1, c2, c3


def _plain_box_muller(one: torch.Tensor, two: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    uniform = ((one >> 1).float() + 1) * 2.0**-31  # in float32, as in the kernel: close to 1 the rounding shows
    radius = torch.sqrt(-2 * torch.log(uniform.double()))
    angle = ((two >> 30).double() + (two & 0x3FFFFFFF).double() * 2.0**-30 - 0.5) * (math.pi / 2)
    return radius * torch.cos(angle), radius * torch.sin(angle)


@inlined
def philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> _u(32)) ^ c1 ^ k0, p1 & _MASK, (p0 >> _u(32)) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@inlined
def _box_muller(one, two):  # type: ignore[no-untyped-def]
    uniform = (_f(np.int32(one >> np.uint32(1))) + _f(1)) * _f(2.0**-31)  # in (0, 1]; 31 bits, as signed integers convert fast
    radius = np.sqrt(_f(-2) * log(uniform))
    sine, cosine = sin_cos((_f(np.int32(two & np.uint32(0x3FFFFFFF))) * _f(2.0**-30) - _f(0.5)) * _QUARTER_TURN)
    quarter = np.int32(two >> np.uint32(30))
    swap = (quarter & np.int32(1)) == 1
    x = sine if swap else cosine
    y = cosine if swap else sine
    x = -x if quarter == 1 or quarter == 2 else x
    y = -y if quarter >= 2 else y
    return radius * x, radius * y


@kernel
def _row_words(i, j, block, channel, k0, k1, first, second, third, fourth):  # type: ignore[no-untyped-def]
    """Four words for every block of four voxels of a row."""
    for b in range(first.size):
        counter = _u(block + b) & _MASK
        w0, w1, w2, w3 = philox(i, j, counter, channel, k0, k1)
        first[b] = np.uint32(w0)
        second[b] = np.uint32(w1)
        third[b] = np.uint32(w2)
        fourth[b] = np.uint32(w3)


@kernel
def _normals(first, second, third, fourth, normals):  # type: ignore[no-untyped-def]
    for b in range(first.size):
        x, y = _box_muller(first[b], second[b])
        z, t = _box_muller(third[b], fourth[b])
        normals[4 * b] = x
        normals[4 * b + 1] = y
        normals[4 * b + 2] = z
        normals[4 * b + 3] = t


@kernel
def _fill_rows(i, j, count, block, blocks, channel, k0, k1, words, normals):  # type: ignore[no-untyped-def]
    """The noise of rows j to j + count of plane i, one after another in `normals`, from `block` on."""
    first, second, third, fourth = words[0], words[1], words[2], words[3]
    for r in range(count):
        a, b = r * blocks, (r + 1) * blocks
        _row_words(_u(i) & _MASK, _u(j + r) & _MASK, block, _u(channel), k0, k1, first[a:b], second[a:b], third[a:b], fourth[a:b])
    total = count * blocks
    _normals(first[:total], second[:total], third[:total], fourth[:total], normals)


@kernel
def _add_normal(patch, start, k0, k1, mean, std):  # type: ignore[no-untyped-def]
    channels, ni, nj, nk = patch.shape
    block = start[2] >> 2
    blocks, lead = ((start[2] + nk - 1) >> 2) - block + 1, start[2] - 4 * block
    words, normals = np.empty((4, _ROWS * blocks), np.uint32), np.empty(4 * _ROWS * blocks, np.float32)
    for c in range(channels):
        for i in range(ni):
            for first in range(0, nj, _ROWS):
                count = min(_ROWS, nj - first)
                _fill_rows(start[0] + i, start[1] + first, count, block, blocks, c, k0, k1, words, normals)
                for r in range(count):
                    row, noise = patch[c, i, first + r], normals[4 * r * blocks + lead : 4 * r * blocks + lead + nk]
                    for k in range(nk):
                        row[k] += mean + std * noise[k]


@kernel
def _make_rician(patch, start, k0, k1, low, std):  # type: ignore[no-untyped-def]
    channels, ni, nj, nk = patch.shape
    block = start[2] >> 2
    blocks, lead = ((start[2] + nk - 1) >> 2) - block + 1, start[2] - 4 * block
    words = np.empty((4, _ROWS * blocks), np.uint32)
    real, imaginary = np.empty(4 * _ROWS * blocks, np.float32), np.empty(4 * _ROWS * blocks, np.float32)
    for c in range(channels):
        for i in range(ni):
            for first in range(0, nj, _ROWS):
                count = min(_ROWS, nj - first)
                _fill_rows(start[0] + i, start[1] + first, count, block, blocks, c, k0, k1, words, real)
                _fill_rows(start[0] + i, start[1] + first, count, block, blocks, c + _OTHER_FIELD, k0, k1, words, imaginary)
                for r in range(count):
                    begin = 4 * r * blocks + lead
                    row, one, two = patch[c, i, first + r], real[begin : begin + nk], imaginary[begin : begin + nk]
                    for k in range(nk):
                        a, b = row[k] - low + std * one[k], std * two[k]
                        row[k] = low + np.sqrt(a * a + b * b)
