"""Window functions along one axis, normalised so that all windows of a grid sum to one at every voxel.

A window is separable and a grid is a product of starts per axis, so the sum over the grid of `wi * wj * wk` is the product of the three
sums along the axes. Dividing each axis's windows by that axis's sum therefore normalises the whole: no count volume, no final division.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from patchflow.errors import ArgumentError

Weights = npt.NDArray[np.float64]

Profile = Callable[[int], npt.ArrayLike]
"""A window function: for `size` voxels, `size` weights of at least 0."""

AxisMode = Literal["crop", "average", "hann", "gaussian"] | Profile
"""How predictions are combined where windows overlap along one axis."""

OverlapMode = AxisMode | Sequence[AxisMode]
"""For all axes, or for I, J and K."""

_NAMES = ("crop", "average", "hann", "gaussian")


def check_overlap_mode(mode: object) -> tuple[AxisMode, AxisMode, AxisMode]:
    """The modes along I, J and K; raises `ArgumentError` unless `mode` is one, or three: names of the four, or functions."""
    modes = tuple(mode) if isinstance(mode, (list, tuple)) else (mode,) * 3
    if len(modes) != 3:
        raise ArgumentError(f"overlap_mode must be one for all axes or three (I, J, K), not {mode!r}")
    for one in modes:
        if not callable(one) and one not in _NAMES:
            raise ArgumentError(f"overlap_mode must be one of {', '.join(_NAMES)}, or a function of a size in voxels, not {one!r}")
    return modes


def average(size: int) -> Weights:
    """Equal weights."""
    return np.ones(size)


def hann(size: int) -> Weights:
    """A Hann window of `size + 2` points less its two zeros: `sin^2(pi (x + 1) / (size + 1))`, positive at every voxel."""
    window: Weights = np.sin(np.pi * np.arange(1, size + 1) / (size + 1)) ** 2
    return window


def gaussian(size: int) -> Weights:
    """A Gaussian about the window's middle with a standard deviation of `size / 8` voxels, as in nnU-Net and MONAI.

    Its smallest value is about exp(-8), so nothing underflows and no floor is needed.
    """
    x = np.arange(size) - (size - 1) / 2
    window: Weights = np.exp(-0.5 * (x / (size / 8)) ** 2)
    return window


_PROFILES: dict[str, Callable[[int], Weights]] = {"average": average, "hann": hann, "gaussian": gaussian}


def axis_weights(mode: AxisMode, starts: Sequence[int], size: int, n: int) -> Weights:
    """The weights of every window along one axis: float64 (windows, size), summing to one at each of the axis's `n` voxels.

    Parts of a window outside the volume weigh nothing.

    Args:
        mode: "crop" gives zeros and ones (see `crop_bounds`), the others their window function divided by the sum of all windows; so does
            a function of `size` that returns `size` weights.
        starts: ascending first voxels of the windows, which together cover the axis.
        size: voxels of a window.
        n: voxels of the volume along this axis.

    Raises:
        ArgumentError: for a function that returns something else than weights, or weights that are all 0 at some voxel.
    """
    weights = np.zeros((len(starts), size))
    if mode == "crop":
        for row, start, (low, high) in zip(weights, starts, crop_bounds(starts, size, n), strict=True):
            row[low - start : high - start] = 1
        return weights
    profile = _profile(mode, size)
    boxes = [(max(start, 0), min(start + size, n), start) for start in starts]
    total = np.zeros(n)
    for low, high, start in boxes:
        total[low:high] += profile[low - start : high - start]
    if not total.all():
        voxel = int(np.argmin(total))
        raise ArgumentError(f"overlap_mode: no window of {size} voxels has a weight at voxel {voxel} of {n}: give weights above 0")
    for row, (low, high, start) in zip(weights, boxes, strict=True):
        row[low - start : high - start] = profile[low - start : high - start] / total[low:high]
    return weights


def _profile(mode: AxisMode, size: int) -> Weights:
    if isinstance(mode, str):
        return _PROFILES[mode](size)
    weights = np.asarray(mode(size), dtype=np.float64)
    if weights.shape != (size,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise ArgumentError(
            f"overlap_mode: {mode!r} must return {size} finite weights of at least 0 for {size} voxels, not {weights!r:.200}"
        )
    return weights


def crop_bounds(starts: Sequence[int], size: int, n: int) -> list[tuple[int, int]]:
    """The voxels (first, one past the last) of which each window is the only owner: overlaps are split at their middle.

    The first window owns the near border and the last the far one. As the starts ascend, every window owns at least one voxel.
    """
    middles = [(left + size + right) // 2 for left, right in pairwise(starts)]
    return list(zip([0, *middles], [*middles, n], strict=True))
