"""Random changes of boxes of voxels: cutout, swapping."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from patchflow.augment.base import Context, IntensityTransform, Parameters, suits_kernels
from patchflow.augment.counts import draw_count, whole_range, whole_ranges
from patchflow.augment.ranges import one_range
from patchflow.errors import ArgumentError, TransformError
from patchflow.geometry.location import PatchLocation
from patchflow.kernels.boxes import fill_boxes, plain_fill_boxes, plain_swap_boxes, swap_boxes
from patchflow.kernels.noise import add_normal, plain_normal
from patchflow.types import Int3, SizeLike, int3

Fill = float | Literal["minimum", "mean", "noise"]
Pairs = npt.NDArray[np.int64]
"""(n, 6): the first voxels of both boxes."""


class RandomCutout(IntensityTransform):
    """Blank out boxes, so that a network learns not to rely on any one part.

    Boxes are drawn within the patch, and are boxes of the volume: at another location the same parameters blank the same voxels.

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", arXiv:1708.04552, 2017.

    Args:
        size: of a box in voxels: n, a pair (smallest, largest) for all axes, three numbers (one per axis) or six (a pair per axis). Each
            axis of each box draws its own.
        count: of boxes: n, or a pair (fewest, most).
        fill: a number in units of the values as read; "minimum" or "mean" of the whole volume; "noise": normal numbers with the volume's
            mean and standard deviation, which belong to the voxel.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for numbers that are not whole, a size or count below 1, ranges the wrong way round, another `fill`, or a `p` outside
            0 to 1.
    """

    trusted = True

    def __init__(
        self,
        size: int | Sequence[int] = (8, 32),
        count: int | Sequence[int] = 1,
        fill: Fill = "mean",
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        self.size, self.count = whole_ranges(size, "size", least=1), whole_range(count, "count", least=1)
        if isinstance(fill, str) and fill not in ("minimum", "mean", "noise"):
            raise ArgumentError(f'fill must be a number, "minimum", "mean" or "noise", not {fill!r}')
        self.fill: Fill = fill if isinstance(fill, str) else one_range((fill, fill), "fill").low

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        """Draw boxes as [i, j, k, di, dj, dk]: first voxel and size.

        Raises:
            TransformError: for a box that is larger than the patch.
        """
        place, number = context.location, draw_count(self.count, rng)
        smallest, largest = np.transpose(self.size)
        sizes = rng.integers(smallest, largest + 1, size=(number, 3))
        spare = np.subtract(place.size, sizes)
        if spare.min() < 0:
            too_large = tuple(sizes[spare.min(axis=1).argmin()].tolist())
            raise TransformError(f"a box of {too_large} voxels is larger than the patch of {place.size}: give a smaller `size`")
        boxes = np.concatenate([place.start + rng.integers(0, spare + 1), sizes], axis=1)
        return {"boxes": boxes.tolist(), "key": int(rng.integers(0, 2**64, dtype=np.uint64)) if self.fill == "noise" else 0}

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        known, here = context.statistics, context.location
        if self.fill != "noise":
            value = float(getattr(known, self.fill)) if isinstance(self.fill, str) else self.fill
            starts, sizes = np.split(np.array(parameters["boxes"], dtype=np.int64), 2, axis=1)
            inside = np.concatenate([starts, starts + sizes], axis=1) - np.tile(here.start, 2)
            if suits_kernels(patch):
                fill_boxes(patch.numpy(), inside, value)
            else:
                plain_fill_boxes(patch, inside, value)
            return patch
        for box in parameters["boxes"]:
            part = here.common(PatchLocation(box[:3], box[3:]))
            if part is not None:
                voxels = patch[:, *part.within(here)]
                voxels.copy_(_noise(voxels, part.start, parameters["key"], float(known.mean), float(known.std)))
        return patch


class RandomSwap(IntensityTransform):
    """Swap pairs of boxes, so that a network learns to see what is out of place.

    Boxes are cells of a lattice within the patch, placed at random, and no cell is swapped twice; so boxes do not overlap and the order of
    swaps does not matter. They are boxes of the volume: at another location the same parameters swap the same voxels.

    Source: Chen et al., "Self-supervised learning for medical image analysis using image context restoration", Medical Image Analysis 58,
    2019; TorchIO's `RandomSwap`, where boxes may overlap.

    Args:
        patch_size: of the boxes in voxels: an int or three.
        num_iterations: how many pairs are swapped; the patch must hold twice as many boxes.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for a size that is not a whole number above 0, a negative `num_iterations`, or a `p` outside 0 to 1.
    """

    trusted = True

    def __init__(
        self,
        patch_size: SizeLike = 15,
        num_iterations: int = 100,
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        self.patch_size = int3(patch_size, "patch_size")
        self.num_iterations, _ = whole_range([num_iterations], "num_iterations")

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        """Draw pairs of boxes as [i, j, k, i', j', k']: the first voxel of each.

        Raises:
            TransformError: for a patch that does not hold twice `num_iterations` boxes.
        """
        place = context.location
        cells = [n // size for n, size in zip(place.size, self.patch_size, strict=True)]
        total = int(np.prod(cells))
        if total < 2 * self.num_iterations:
            raise TransformError(
                f"a patch of {place.size} voxels holds {total} boxes of {self.patch_size} side by side, too few for {self.num_iterations} "
                f"swaps: give a smaller `patch_size` or at most {total // 2} `num_iterations`"
            )
        spare = [n - cell * size for n, cell, size in zip(place.size, cells, self.patch_size, strict=True)]
        origin = np.array([start + int(rng.integers(0, n + 1)) for start, n in zip(place.start, spare, strict=True)])
        chosen = rng.permutation(total)[: 2 * self.num_iterations]
        starts = origin + np.stack(np.unravel_index(chosen, cells), axis=1) * self.patch_size
        return {"pairs": starts.reshape(-1, 6).tolist()}

    def windows(self, parameters: Parameters, context: Context) -> list[PatchLocation]:
        here = context.location
        return [source for _, source in self._moves(parameters, here) if not here.holds(source)]

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        here = context.location
        inside, _ = self._split(parameters, here)
        inside = inside - np.tile(here.start, 2)
        if suits_kernels(patch):
            swap_boxes(patch.numpy(), inside, self.patch_size)
        else:
            plain_swap_boxes(patch, inside, self.patch_size)
        fetched, moves = iter(context.windows), []
        for target, source in self._moves(parameters, here):  # all are read before any is written
            moves.append((target, patch[:, *source.within(here)].clone() if here.holds(source) else next(fetched)))
        for target, voxels in moves:
            patch[:, *target.within(here)] = voxels
        return patch

    def _split(self, parameters: Parameters, here: PatchLocation) -> tuple[Pairs, Pairs]:
        """The pairs that lie in `here`, and those of which a part does."""
        starts = np.array(parameters["pairs"], dtype=np.int64).reshape(-1, 2, 3)
        inside = np.all((starts >= here.start) & (starts + self.patch_size <= here.stop), axis=(1, 2))
        touching = np.any(np.all((starts < here.stop) & (starts + self.patch_size > here.start), axis=2), axis=1)
        return starts[inside].reshape(-1, 6), starts[touching & ~inside].reshape(-1, 6)

    def _moves(self, parameters: Parameters, here: PatchLocation) -> Iterator[tuple[PatchLocation, PatchLocation]]:
        """Of the pairs that are not wholly in `here`: what of it is overwritten, and the place of what comes there."""
        _, partly = self._split(parameters, here)
        for pair in partly.tolist():
            for to, come in ((pair[:3], pair[3:]), (pair[3:], pair[:3])):
                target = here.common(PatchLocation(to, self.patch_size))
                if target is not None:
                    i, j, k = (c + a - b for c, a, b in zip(come, target.start, to, strict=True))
                    yield target, PatchLocation((i, j, k), target.size)


def _noise(voxels: torch.Tensor, start: Int3, key: int, mean: float, std: float) -> torch.Tensor:
    channels, i, j, k = voxels.shape
    if voxels.device.type == "cpu":
        noise = torch.zeros(channels, i, j, k)
        add_normal(noise.numpy(), start, key, mean, std)
        return noise
    return mean + std * plain_normal((channels, i, j, k), start, key, voxels.device)
