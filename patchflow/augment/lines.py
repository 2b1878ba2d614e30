"""Transforms that weight the lines of k-space along one axis, the phase-encoding one.

Such a weighting changes a voxel by the volume's line through it along that axis and by nothing else, so a patch is changed exactly as the
volume would be, given those lines: the patch's cross-section over the whole length of the axis, which `windows` asks for. What lies outside
the volume was never scanned and stays as it is.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from patchflow.augment.base import Context, suits_kernels
from patchflow.geometry.location import PatchLocation
from patchflow.kernels.lines import add_filtered, plain_add_filtered
from patchflow.types import Int3

Weights = npt.NDArray[np.float64]


def encoding_axis(axes: Sequence[int], rng: np.random.Generator, shape: Int3) -> int | None:
    """One of `axes` with more than one voxel, each as likely; None where there is none: one voxel has one frequency."""
    usable = [axis for axis in axes if shape[axis] > 1]
    return usable[int(rng.integers(len(usable)))] if usable else None


def frequencies(n: int) -> npt.NDArray[np.int64]:
    """Of the lines of k-space along an axis of n voxels, in the order in which they are scanned: periods per axis, int64 (n,)."""
    return np.arange(n) - n // 2


def even_gains(weights: Weights) -> Weights:
    """What weights of lines, in the order of `frequencies`, do to the real part of an image: float64 (n // 2 + 1,), by periods per axis."""
    wrapped = np.fft.ifftshift(weights)
    mirrored = np.roll(wrapped[::-1], 1)
    gains: Weights = 0.5 * (wrapped + mirrored)[: len(weights) // 2 + 1]
    return gains


def lines_through(location: PatchLocation, shape: Int3, axis: int) -> PatchLocation | None:
    """The volume's lines along `axis` through the part of `location` that lies in the volume; None where none does."""
    inside = location.overlap(shape)
    if inside is None:
        return None
    spans = [(0, shape[axis]) if other == axis else (part.start, part.stop) for other, part in enumerate(inside.volume)]
    (i, i1), (j, j1), (k, k1) = spans
    return PatchLocation((i, j, k), (i1 - i, j1 - j, k1 - k))


def add_to_lines(patch: torch.Tensor, slab: torch.Tensor, context: Context, axis: int, gains: Weights) -> None:
    """Add `slab`, which lies in `lines_through` of the context's location, to a patch in place, each frequency times its gain."""
    inside = context.location.overlap(context.shape)
    if inside is None or not gains.any():
        return
    i, j, k = (part.start for part in inside.patch)
    first = inside.volume[axis].start
    if suits_kernels(patch) and suits_kernels(slab):
        add_filtered(patch.numpy(), slab.numpy(), (i, j, k), first, axis, gains)
    else:
        plain_add_filtered(patch, slab.to(patch.dtype), (i, j, k), first, axis, gains)
