"""Adding a weighted window to a ring of slices, and looking for values that are not finite: the hot loops of stitching."""

import numpy as np

from patchflow.geometry.location import Overlap
from patchflow.geometry.windows import Weights
from patchflow.kernels.jit import kernel
from patchflow.types import Array


def add_window(ring: Array, patch: Array, weights: tuple[Weights, Weights, Weights], box: Overlap) -> None:
    """`ring[i % D, j, k] += patch * wi * wj * wk` for the voxels (i, j, k) of `box.volume`, in place.

    Products and sums are float64 and rounded once per voxel to the dtype of `ring`, so that the weights themselves add no error.

    Args:
        ring: float32 or float64 (D, J, K), C-contiguous: slice i of the volume stands at i modulo D.
        patch: float32 (i, j, k), C-contiguous.
        weights: the window along each axis of the patch, float64 (i,), (j,), (k,), C-contiguous.
        box: the part of the patch that lies in the volume.
    """
    wi, wj, wk = (weight[part] for weight, part in zip(weights, box.patch, strict=True))
    _add_rows(_flat(ring), _flat(patch), wi, wj, wk, ring.shape, patch.shape, _first(box.volume), _first(box.patch))


def plain_add_window(ring: Array, patch: Array, weights: tuple[Weights, Weights, Weights], box: Overlap) -> None:
    """The plain twin of `add_window`."""
    wi, wj, wk = (weight[part] for weight, part in zip(weights, box.patch, strict=True))
    window = (wi[:, None] * wj)[:, :, None] * wk
    i, j, k = box.volume
    places = np.arange(i.start, i.stop) % len(ring)
    ring[places, j, k] = ring[places, j, k] + patch[box.patch] * window


def count_nonfinite(values: Array) -> int:
    """How many values of a C-contiguous float32 array are NaN or infinite."""
    return int(_count_nonfinite(_flat(values).view(np.uint32)))


def plain_count_nonfinite(values: Array) -> int:
    """The plain twin of `count_nonfinite`."""
    return int(values.size - np.isfinite(values).sum())


def _flat(array: Array) -> Array:
    if not array.flags.c_contiguous:  # reshape would copy, and what is added to a copy is lost
        raise ValueError("the array must be C-contiguous")
    return array.reshape(-1)


def _first(slices: tuple[slice, slice, slice]) -> tuple[int, int, int]:
    i, j, k = (part.start for part in slices)
    return i, j, k


@kernel
def _add_rows(ring, patch, wi, wj, wk, ring_shape, patch_shape, ring_first, patch_first):  # type: ignore[no-untyped-def]
    n = wk.size
    for i in range(wi.size):
        place = (ring_first[0] + i) % ring_shape[0]
        for j in range(wj.size):
            weight = wi[i] * wj[j]
            o = (place * ring_shape[1] + ring_first[1] + j) * ring_shape[2] + ring_first[2]
            p = ((patch_first[0] + i) * patch_shape[1] + patch_first[1] + j) * patch_shape[2] + patch_first[2]
            out_row, patch_row = ring[o : o + n], patch[p : p + n]
            for k in range(n):
                out_row[k] += patch_row[k] * (weight * wk[k])


@kernel
def _count_nonfinite(bits):  # type: ignore[no-untyped-def]
    count = 0
    for n in range(bits.size):
        count += (bits[n] & np.uint32(0x7F800000)) == np.uint32(0x7F800000)  # NaN and infinity alone have all exponent bits set
    return count
