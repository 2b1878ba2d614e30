"""Filters along one axis of a volume: each spatial frequency of the volume's lines is multiplied by a real number.

Weighting lines of k-space along one axis leaves the other axes alone, so a voxel depends on nothing but the line of the volume through it:
with that line at hand, a patch is filtered exactly as the volume would be. The filter is a circular convolution with an even kernel. Taken
about the patch's middle, the even part of a line gives the even part of the result, and the odd part the odd one: two matrix products of
half the size each way, which take half as long as one, and for most lengths less than the Fourier transforms there and back.
"""

import numpy as np
import torch

from patchflow.kernels.jit import inlined, kernel
from patchflow.types import Array, Int3

_BLOCK = 16
"""Lines along K that are filtered together: they share each number read of the matrix."""


def add_filtered(patch: Array, slab: Array, place: Int3, first: int, axis: int, gains: Array) -> None:
    """Add the filtered slab to a patch, in place.

    Args:
        patch: float32 (C, i, j, k), C-contiguous.
        slab: float32 (C, i, j, k), C-contiguous: whole lines of the volume along `axis`, and along the other axes what is to be changed.
        place: where in the patch the part to be changed begins. Along `axis` it ends with the patch or with the volume.
        first: where in the volume it begins, along `axis`.
        axis: 0 (I), 1 (J) or 2 (K).
        gains: float64 (n // 2 + 1,) for lines of n voxels: what the frequencies of 0, 1, ... periods per line are multiplied by.
    """
    n = slab.shape[1 + axis]
    count = min(patch.shape[1 + axis] - place[axis], n - first)
    even, odd, mirror = _halves(np.fft.irfft(gains, n) if n > 1 else gains[:1], first, count)
    if axis == 2:
        _along_rows(patch, slab, place, count, np.ascontiguousarray(even.T), np.ascontiguousarray(odd.T), mirror)
    else:
        _across_rows(patch, slab, place, count, axis, even, odd, mirror)


def plain_add_filtered(patch: torch.Tensor, slab: torch.Tensor, place: Int3, first: int, axis: int, gains: Array) -> None:
    """What `add_filtered` does, to 1e-6 of the slab's range, by Fourier transforms along the axis, on any device."""
    n = slab.shape[1 + axis]
    count = min(patch.shape[1 + axis] - place[axis], n - first)
    shape = [1, 1, 1, 1]
    shape[1 + axis] = -1
    factors = torch.from_numpy(gains).to(slab.dtype).to(slab.device, non_blocking=True).view(shape)
    filtered = torch.fft.irfft(torch.fft.rfft(slab, dim=1 + axis) * factors, n=n, dim=1 + axis).narrow(1 + axis, first, count)
    inside = (slice(start, start + size) for start, size in zip(place, filtered.shape[1:], strict=True))
    patch[(slice(None), *inside)] += filtered


def _halves(taps: Array, first: int, count: int) -> tuple[Array, Array, int]:
    """The filter for the voxels `first` to `first + count`, split about their middle.

    Returns:
        even, odd: float32 ((count + 1) // 2, r): what the voxels first + q and first + count - 1 - q get of the sums and the differences
            of r pairs of voxels of the line: even + odd and even - odd.
        mirror: says which they are: each voxel y with its mirror image mirror - y, from 0 on, then each that is left with mirror + n - y. A
            voxel that is its own mirror image is paired with itself.
    """
    n = len(taps)
    mirror = (2 * first + count - 1) % n
    one = np.concatenate([np.arange(mirror // 2 + 1), np.arange(mirror + 1, (mirror + n) // 2 + 1)])
    other = (mirror - one) % n
    x = np.arange(first, first + (count + 1) // 2)[:, None]
    near, far = taps[(x - one) % n], taps[(x - other) % n]
    even = (near + far) * np.where(one == other, 0.25, 0.5)
    return even.astype(np.float32), ((near - far) * 0.5).astype(np.float32), mirror


@kernel(fastmath={"contract"})
def _multiply(a, b, c):  # type: ignore[no-untyped-def]
    """c = a b for C-contiguous float32 matrices, by blocks of four rows and four terms."""
    rows, terms = a.shape
    width = b.shape[1]
    c[:, :] = np.float32(0)
    whole_rows, whole_terms = rows - rows % 4, terms - terms % 4
    for m in range(0, whole_rows, 4):
        c0, c1, c2, c3 = c[m], c[m + 1], c[m + 2], c[m + 3]
        for t in range(0, whole_terms, 4):
            a00, a01, a02, a03 = a[m, t], a[m, t + 1], a[m, t + 2], a[m, t + 3]
            a10, a11, a12, a13 = a[m + 1, t], a[m + 1, t + 1], a[m + 1, t + 2], a[m + 1, t + 3]
            a20, a21, a22, a23 = a[m + 2, t], a[m + 2, t + 1], a[m + 2, t + 2], a[m + 2, t + 3]
            a30, a31, a32, a33 = a[m + 3, t], a[m + 3, t + 1], a[m + 3, t + 2], a[m + 3, t + 3]
            b0, b1, b2, b3 = b[t], b[t + 1], b[t + 2], b[t + 3]
            for k in range(width):
                x0, x1, x2, x3 = b0[k], b1[k], b2[k], b3[k]
                c0[k] += a00 * x0 + a01 * x1 + a02 * x2 + a03 * x3
                c1[k] += a10 * x0 + a11 * x1 + a12 * x2 + a13 * x3
                c2[k] += a20 * x0 + a21 * x1 + a22 * x2 + a23 * x3
                c3[k] += a30 * x0 + a31 * x1 + a32 * x2 + a33 * x3
    for m in range(rows):
        row = c[m]
        for t in range(whole_terms if m < whole_rows else 0, terms):
            factor, values = a[m, t], b[t]
            for k in range(width):
                row[k] += factor * values[k]


@inlined
def _fold(values, sums, differences):  # type: ignore[no-untyped-def]
    """The sums and the differences of the first and the last value, the second and the last but one, and so on."""
    last = values.size - 1
    for r in range(sums.size):
        near, far = values[r], values[last - r]
        sums[r] = near + far
        differences[r] = near - far


@kernel
def _across_rows(patch, slab, place, count, axis, even, odd, mirror):  # type: ignore[no-untyped-def]
    """Along I or J: a line of rows at a time."""
    width, pairs, half, n = slab.shape[3], even.shape[1], even.shape[0], slab.shape[1 + axis]
    split = mirror // 2 + 1
    sums, differences = np.empty((pairs, width), np.float32), np.empty((pairs, width), np.float32)
    evens, odds = np.empty((half, width), np.float32), np.empty((half, width), np.float32)
    for channel in range(slab.shape[0]):
        for line in range(slab.shape[2 - axis]):
            for r in range(pairs):
                one, other = (r, mirror - r) if r < split else (mirror + 1 + r - split, n - 1 - r + split)
                near = slab[channel, one, line] if axis == 0 else slab[channel, line, one]
                far = slab[channel, other, line] if axis == 0 else slab[channel, line, other]
                total, difference = sums[r], differences[r]
                for k in range(width):
                    total[k] = near[k] + far[k]
                    difference[k] = near[k] - far[k]
            _multiply(even, sums, evens)
            _multiply(odd, differences, odds)
            for x in range(count):
                i, j = place[0] + (x if axis == 0 else line), place[1] + (line if axis == 0 else x)
                row = patch[channel, i, j]
                mirrored = x >= half
                total, difference = evens[count - 1 - x if mirrored else x], odds[count - 1 - x if mirrored else x]
                sign = np.float32(-1) if mirrored else np.float32(1)
                for k in range(width):
                    row[place[2] + k] += total[k] + sign * difference[k]


@kernel
def _along_rows(patch, slab, place, count, even, odd, mirror):  # type: ignore[no-untyped-def]
    """Along K: some rows at a time."""
    pairs, half = even.shape
    split = mirror // 2 + 1
    sums, differences = np.empty((_BLOCK, pairs), np.float32), np.empty((_BLOCK, pairs), np.float32)
    evens, odds = np.empty((_BLOCK, half), np.float32), np.empty((_BLOCK, half), np.float32)
    height = slab.shape[2]
    for channel in range(slab.shape[0]):
        for i in range(slab.shape[1]):
            for first in range(0, height, _BLOCK):
                rows = min(_BLOCK, height - first)
                for m in range(rows):
                    values = slab[channel, i, first + m]
                    _fold(values[: mirror + 1], sums[m, :split], differences[m, :split])
                    _fold(values[mirror + 1 :], sums[m, split:], differences[m, split:])
                _multiply(sums[:rows], even, evens[:rows])
                _multiply(differences[:rows], odd, odds[:rows])
                for m in range(rows):
                    row, total, difference = patch[channel, place[0] + i, place[1] + first + m], evens[m], odds[m]
                    for q in range(half):
                        row[place[2] + q] += total[q] + difference[q]
                    for q in range(count - half):
                        row[place[2] + count - 1 - q] += total[q] - difference[q]
