"""Random changes of how sharp an image is: blur, sharpening, low resolution."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
import torch

from patchflow.augment.base import Context, IntensityTransform, Parameters, suits_kernels
from patchflow.augment.counts import voxel_axes
from patchflow.augment.ranges import NOT_NEGATIVE, Limits, Range, RangeLike, Ranges, RangesLike, axis_ranges, one_range
from patchflow.errors import ArgumentError
from patchflow.kernels.blur import Weights, filter_middle, gaussian, plain_filter
from patchflow.kernels.coarse import coarsen, plain_coarsen, reach_of
from patchflow.types import Int3

Unit = Literal["mm", "voxel"]


class RandomBlur(IntensityTransform):
    """Blur with a Gaussian of random width, as a smooth reconstruction or a thick beam would.

    The filter is sampled at whole voxels and cut where less than 6.4e-5 of it is left, as much as lies beyond 4 standard deviations. It
    sees what is around the patch, also beyond the volume, so the blurred patch is the crop of the blurred volume.

    Source: TorchIO's `RandomBlur` (Pérez-García et al., Computer Methods and Programs in Biomedicine 208, 2021) in millimetres; nnU-Net's
    (Isensee et al., Nature Methods 18, 2021, supplement) in voxels.

    Args:
        std: standard deviation along I, J, K: s for (0, s), a pair (low, high), three numbers or six. Each axis draws its own.
        unit: what `std` counts: "mm" or "voxel".
        isotropic: draw one standard deviation for all axes.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for a range the wrong way round, a negative `std`, another `unit`, ranges that differ between axes though
            `isotropic`, or a `p` outside 0 to 1.
    """

    trusted = True

    def __init__(
        self,
        std: RangesLike = (0, 2),
        unit: Unit = "mm",
        isotropic: bool = False,
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        self.std, self.unit, self.isotropic = axis_ranges(std, "std", NOT_NEGATIVE), _checked_unit(unit), bool(isotropic)
        _agree(self.std, "std", self.isotropic)

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        return {"std": _drawn(self.std, self.isotropic, rng)}

    def reach(self, parameters: Parameters, context: Context) -> Int3:
        return _radii(_filters(parameters["std"], self.unit, context))

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        weights = _filters(parameters["std"], self.unit, context)
        if suits_kernels(patch):
            filter_middle(patch.numpy(), weights)
            return patch
        return plain_filter(patch, weights)


class RandomSharpen(IntensityTransform):
    """Sharpen by an unsharp mask: v becomes v + amount (v - blurred v), as a sharp reconstruction kernel would.

    The blur is that of `RandomBlur`.

    Source: the unsharp mask, as in Polesel, Ramponi, Mathews, IEEE Transactions on Image Processing 9(3), 2000.

    Args:
        amount: a for (0, a), or a pair (low, high).
        std: standard deviation of the blur along I, J, K: s for (0, s), a pair (low, high), three numbers or six.
        unit: what `std` counts: "mm" or "voxel".
        isotropic: draw one standard deviation for all axes.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for a range the wrong way round, a negative `amount` or `std`, another `unit`, ranges that differ between axes though
            `isotropic`, or a `p` outside 0 to 1.
    """

    trusted = True

    def __init__(
        self,
        amount: RangeLike = (0, 1),
        std: RangesLike = (0.5, 1.5),
        unit: Unit = "mm",
        isotropic: bool = False,
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        self.amount = one_range(amount, "amount", NOT_NEGATIVE)
        self.std, self.unit, self.isotropic = axis_ranges(std, "std", NOT_NEGATIVE), _checked_unit(unit), bool(isotropic)
        _agree(self.std, "std", self.isotropic)

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        return {"amount": self.amount.draw(rng), "std": _drawn(self.std, self.isotropic, rng)}

    def reach(self, parameters: Parameters, context: Context) -> Int3:
        return _radii(_filters(parameters["std"], self.unit, context))

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        weights, amount = _filters(parameters["std"], self.unit, context), parameters["amount"]
        if suits_kernels(patch):
            filter_middle(patch.numpy(), weights, 1 + amount, -amount)
            return patch
        return plain_filter(patch, weights, 1 + amount, -amount)


class RandomLowResolution(IntensityTransform):
    """Show an image as a grid of fewer voxels would: the nearest voxel of each coarse cell, then linear interpolation back.

    The coarse grid is anchored in the volume (cell 0 begins at the edge of voxel 0), and what is beyond the patch is looked at, so the
    patch is the crop of the whole volume at low resolution. nnU-Net and MONAI begin the grid at the edge of the patch and round its size to
    whole cells; for a patch that starts at voxel 0 and a whole number of cells, inner voxels are theirs.

    Source: simulation of low resolution in nnU-Net (Isensee et al., Nature Methods 18, 2021, supplement).

    Args:
        zoom: coarse voxels per voxel, above 0 to 1, along I, J, K: z for (z, 1), a pair (low, high), three numbers or six.
        isotropic: draw one zoom for all axes.
        axes: the axes (0, 1, 2 for I, J, K) along which resolution is lowered; the others stay.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for a zoom that is not above 0 or is above 1, a range the wrong way round, ranges that differ between axes though
            `isotropic`, axes that are not 0, 1 or 2 or occur twice, or a `p` outside 0 to 1.
    """

    trusted = True

    def __init__(
        self,
        zoom: RangesLike = (0.5, 1),
        isotropic: bool = True,
        axes: Sequence[int] = (0, 1, 2),
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        self.zoom, self.isotropic = axis_ranges(_up_to_one(zoom), "zoom", Limits(above=0.0, most=1.0)), bool(isotropic)
        self.axes = voxel_axes(axes)
        _agree(self.zoom, "zoom", self.isotropic)

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        drawn = _drawn(self.zoom, self.isotropic, rng)
        return {"zoom": [zoom if axis in self.axes else 1.0 for axis, zoom in enumerate(drawn)]}

    def reach(self, parameters: Parameters, context: Context) -> Int3:
        i, j, k = (reach_of(zoom) for zoom in parameters["zoom"])
        return i, j, k

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        i, j, k = parameters["zoom"]
        if suits_kernels(patch):
            coarsen(patch.numpy(), context.location.start, (i, j, k))
            return patch
        return plain_coarsen(patch, context.location.start, (i, j, k))


def _drawn(ranges: Ranges, isotropic: bool, rng: np.random.Generator) -> list[float]:
    return [ranges[0].draw(rng)] * 3 if isotropic else [one.draw(rng) for one in ranges]


def _filters(std: Sequence[float], unit: Unit, context: Context) -> list[Weights]:
    """The filters along I, J, K."""
    return [gaussian(one / (mm if unit == "mm" else 1)) for one, mm in zip(std, context.spacing, strict=True)]


def _radii(filters: Sequence[Weights]) -> Int3:
    i, j, k = (len(half) - 1 for half in filters)
    return i, j, k


def _agree(ranges: Ranges, name: str, isotropic: bool) -> None:
    if isotropic and len(set(ranges)) != 1:
        raise ArgumentError(f"isotropic draws one {name} for all axes, but the ranges differ: {ranges}; give one range, or isotropic=False")


def _checked_unit(unit: Unit) -> Unit:
    if unit not in ("mm", "voxel"):
        raise ArgumentError(f'unit must be "mm" or "voxel", not {unit!r}')
    return unit


def _up_to_one(zoom: Any) -> Any:
    """Single numbers z, one or three, as ranges (z, 1)."""
    if _is_number(zoom):
        return zoom, 1.0
    if isinstance(zoom, (list, tuple)) and len(zoom) == 3 and not isinstance(zoom, get_args(Range)) and all(map(_is_number, zoom)):
        return [end for number in zoom for end in (number, 1.0)]
    return zoom


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_))
