"""Patches around voxels drawn from a weight map."""

from typing import TYPE_CHECKING, Any

import numpy as np

from patchflow.errors import SamplerError
from patchflow.geometry.location import PatchLocation, centred_on
from patchflow.sampling.base import Fallback, Sampler, check_fallback, check_name, find_record, uniform_location
from patchflow.types import SizeLike

if TYPE_CHECKING:
    from patchflow.cache import Entry, ImageRecord


class WeightedSampler(Sampler):
    """Draws patches around voxels that are drawn in proportion to an image of weights.

    Distribution: a voxel is drawn with probability weight / sum of all weights, border voxels included, in float64; weights are the values
    of the image as read, after preprocessing. The location is the patch with that voxel at index `size // 2`, moved as little as needed to
    lie in the volume; along an axis where the patch is larger than the volume, the volume is centred in it.

    Args:
        patch_size: voxels along I, J, K: an int for all three, or three ints.
        weights: name of the image of weights: a `ScalarImage` of one channel without negative values.
        fallback: what to do with a subject whose weights are all zero: None raises, "uniform" draws as `UniformSampler` does.

    Raises:
        ArgumentError: if an argument cannot be used.
    """

    def __init__(self, patch_size: SizeLike, weights: str, fallback: Fallback = None) -> None:
        super().__init__(patch_size)
        self.weights = check_name(weights, "weights")
        self.fallback = check_fallback(fallback)

    def draw(self, entry: "Entry", rng: np.random.Generator) -> PatchLocation:
        """Draw one location; see the class for the distribution.

        Raises:
            UnknownNameError: if the subject has no image of that name.
            SamplerError: if the image cannot be weights, or if all weights are zero and there is no fallback.
        """
        self._check_image(entry)
        index = entry.weight_index(self.weights)
        if index.total <= 0:
            if self.fallback is None:
                raise self._all_zero(entry)
            return uniform_location(entry.shape, self.patch_size, rng)
        return centred_on(index.voxel(rng.random()), self.patch_size, entry.shape)

    def check(self, entry: "Entry") -> None:
        """Raise what `draw` would raise for this subject; reads the record and the statistics of the image, no voxel."""
        statistics = self._check_image(entry).statistics
        if statistics is not None and statistics.maximum == 0 and self.fallback is None:
            raise self._all_zero(entry)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-safe values."""
        return {**super().to_dict(), "weights": self.weights, "fallback": self.fallback}

    def _check_image(self, entry: "Entry") -> "ImageRecord":
        """The record of the image of weights; raises unless it is a scalar image of one channel without negative values."""
        record = find_record(entry, self.weights, "weights")
        image = f'image "{self.weights}" of subject "{entry.name}"'
        if record.kind != "scalar":
            raise SamplerError(f"{image} cannot be weights: it is a LabelMap. Make it a ScalarImage, or use LabelSampler to weigh classes")
        if record.channels != 1:
            raise SamplerError(f"{image} cannot be weights: it has {record.channels} channels. Give an image of one channel")
        statistics = record.statistics
        if statistics is not None and statistics.minimum < 0:
            raise SamplerError(
                f"{image} cannot be weights: its least value is {statistics.minimum:g}, and weights cannot be negative. Mend the image; if "
                f"preprocessing made it so, name the images that each step is for (keys=...), so that the weights stay as they are"
            )
        return record

    def _all_zero(self, entry: "Entry") -> SamplerError:
        return SamplerError(
            f'image "{self.weights}" of subject "{entry.name}" cannot be weights: they are all zero. Leave the subject out, or give the '
            f'sampler fallback="uniform"'
        )
