"""Artefacts of MRI that are made in k-space: motion between its segments, ringing where it ends."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from patchflow.augment.base import Context, IntensityTransform, Parameters, suits_kernels
from patchflow.augment.counts import voxel_axes
from patchflow.augment.lines import Weights, add_to_lines, encoding_axis, even_gains, frequencies, lines_through
from patchflow.augment.ranges import Limits, RangeLike, RangesLike, axis_ranges, one_range
from patchflow.augment.spatial import affine_map
from patchflow.geometry.location import PatchLocation
from patchflow.geometry.maps import SpatialMap
from patchflow.kernels.pointwise import IntensityMap
from patchflow.kernels.resample import Box, plain_resample, resample, touched_box
from patchflow.types import Int3, count

UNEVEN = 0.3
"""How far a movement may be from its place in an even row of movements, in steps of that row."""


class RandomGibbs(IntensityTransform):
    """Add ringing beside edges: k-space ends too early along one axis, the phase-encoding one, and zeros stand for the rest.

    The outer lines along the axis are cut away (Gibbs or truncation artefact: Czervionke et al., AJNR 9, 1988). Edges across the axis blur
    and ring, with overshoots of 9 % of their height. A patch is changed exactly as the volume would be: it reads the whole lines of the
    volume through it. MONAI's `GibbsNoise` cuts a ball out of the k-space of what it is given, so that what it does to a patch depends on
    the patch. For ringing along two axes, put two of these into a recipe.

    Args:
        alpha: share of the lines that is cut away, 0 to 1: x for (0, x), or a pair (low, high). The central line always stays.
        axes: voxel axes of which one is drawn: 0 (I), 1 (J), 2 (K), or several. An axis of one voxel is never drawn.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for a range the wrong way round, an `alpha` or `p` outside 0 to 1, or an axis other than 0, 1 and 2.
    """

    trusted = True

    def __init__(
        self,
        alpha: RangeLike = (0.3, 0.7),
        axes: int | Sequence[int] = (0, 1, 2),
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        self.alpha, self.axes = one_range(alpha, "alpha", Limits(one_sided=True, least=0.0, most=1.0)), voxel_axes(axes)

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters | None:
        axis = encoding_axis(self.axes, rng, context.shape)
        return None if axis is None else {"axis": axis, "alpha": self.alpha.draw(rng)}

    def windows(self, parameters: Parameters, context: Context) -> Sequence[PatchLocation]:
        lines = lines_through(context.location, context.shape, parameters["axis"])
        return () if lines is None else (lines,)

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        n = context.shape[parameters["axis"]]
        cut = np.abs(frequencies(n)) > (1 - parameters["alpha"]) * n / 2
        for lines in context.windows:
            add_to_lines(patch, lines, context, parameters["axis"], even_gains(-cut.astype(np.float64)))
        return patch


class RandomMotion(IntensityTransform):
    """Let the patient move during the scan: segments of k-space along one axis come from a head that has turned and shifted.

    As Shaw et al. ("MRI k-space motion artefact augmentation", MIDL 2019) and TorchIO's `RandomMotion` do it: rigid movements split k-space
    into segments, each filled from the spectrum of the volume as it lay then, linearly interpolated. The segment with the centre of k-space
    is that of the volume as it lies, so that the image stays where its labels are. Movements are about the volume's centre, in millimetres
    along the voxel axes; what moves in from outside the volume is its minimum. As in TorchIO, the real part of the image is taken.

    k-space is scanned along one axis, so a patch depends on the lines of the moved volumes through it: it reads what was there before they
    moved, over the whole length of the axis, and is changed exactly as the volume would be.

    Args:
        degrees: d for (-d, d), a pair, three numbers, six, or distributions; about the axes I, J, K.
        translation: millimetres: t for (-t, t), a pair, three numbers, six, or distributions; along I, J, K.
        num_transforms: movements, at least 1: evenly spread over the scan, but for up to 0.3 of a step.
        axes: voxel axes of which one, the phase-encoding axis, is drawn: 0 (I), 1 (J), 2 (K), or several. An axis of one voxel never is.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for a range the wrong way round, less than one movement, an axis other than 0, 1 and 2, or a `p` outside 0 to 1.
    """

    trusted = True

    def __init__(
        self,
        degrees: RangesLike = 10,
        translation: RangesLike = 10,
        num_transforms: int = 2,
        axes: int | Sequence[int] = (0, 1, 2),
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        self.degrees, self.translation = axis_ranges(degrees, "degrees"), axis_ranges(translation, "translation")
        self.num_transforms, self.axes = count(num_transforms, "num_transforms", 1), voxel_axes(axes)

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters | None:
        axis = encoding_axis(self.axes, rng, context.shape)
        return None if axis is None else {"axis": axis, "movements": [self._movement(number, rng) for number in range(self.num_transforms)]}

    def _movement(self, number: int, rng: np.random.Generator) -> Parameters:
        time = (number + 1 + UNEVEN * (2 * float(rng.random()) - 1)) / (self.num_transforms + 1)
        degrees = [angle.draw(rng) for angle in self.degrees]
        return {"time": time, "degrees": degrees, "translation": [shift.draw(rng) for shift in self.translation]}

    def windows(self, parameters: Parameters, context: Context) -> Sequence[PatchLocation]:
        lines = lines_through(context.location, context.shape, parameters["axis"])
        return () if lines is None else (_touched(lines, _poses(parameters, context), context.shape),)

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        lines = lines_through(context.location, context.shape, parameters["axis"])
        if lines is None:
            return patch
        poses = _poses(parameters, context)
        region, place = context.windows[0], _touched(lines, poses, context.shape)
        still = region[(slice(None), *lines.within(place))]
        for pose, gains in poses:
            moved = _moved(region, place, lines, pose, context)
            moved -= still  # the other segments keep the volume as it lies: only the difference is new
            add_to_lines(patch, moved, context, parameters["axis"], gains)
        return patch


def _poses(parameters: Parameters, context: Context) -> list[tuple[SpatialMap, Weights]]:
    """How the volume lay in each segment but the central one, and which frequencies the segment holds."""
    n = context.shape[parameters["axis"]]
    ends = [0, *(int(n * movement["time"]) for movement in parameters["movements"]), n]
    movements = iter(parameters["movements"])
    poses = []
    for first, stop in pairwise(ends):
        if first <= n // 2 < stop:
            continue
        pose, lines = _rigid(next(movements), context), np.arange(n)
        if stop > first:
            poses.append((pose, even_gains(((lines >= first) & (lines < stop)).astype(np.float64))))
    return poses


def _rigid(movement: Parameters, context: Context) -> SpatialMap:
    """Voxel after the movement to voxel before it."""
    i, j, k = ((n - 1) / 2 for n in context.shape)
    return SpatialMap.affine(affine_map(replace(context, anchor=(i, j, k)), movement["degrees"], movement["translation"]))


def _touched(lines: PatchLocation, poses: Sequence[tuple[SpatialMap, Weights]], shape: Int3) -> PatchLocation:
    """The smallest box with the lines and all that moves into them."""
    boxes = [Box(lines.start, lines.stop), *(touched_box(pose, lines, shape) for pose, _ in poses)]
    starts, stops = zip(*(box for box in boxes if box is not None), strict=True)
    (i, j, k), (i1, j1, k1) = np.min(starts, axis=0).tolist(), np.max(stops, axis=0).tolist()
    return PatchLocation((i, j, k), (i1 - i, j1 - j, k1 - k))


def _moved(region: torch.Tensor, place: PatchLocation, lines: PatchLocation, pose: SpatialMap, context: Context) -> torch.Tensor:
    """The lines of the moved volume, read from `region`, which lies in `place`."""
    box, fill = Box(place.start, place.stop), float(context.statistics.minimum)
    if not suits_kernels(region):
        return plain_resample(region, box, context.shape, pose, lines, fill)
    moved = torch.empty(region.shape[0], *lines.size)
    resample(region.numpy(), box, context.shape, pose, lines, IntensityMap(), fill, "constant", "linear", moved.numpy())
    return moved
