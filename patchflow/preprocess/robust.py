"""Normalisation that a few extreme voxels do not move."""

from dataclasses import dataclass
from typing import Literal

from patchflow.images.volume import Volume
from patchflow.preprocess.base import Step, checked_keys, where
from patchflow.preprocess.fields import chosen, finite, set_fields
from patchflow.preprocess.foreground import constant, nothing
from patchflow.preprocess.intensity import Keys, each_folded, folded
from patchflow.preprocess.statistics import Mask, percentiles, spread

_QUARTILES = 1.3489795003921634  # from one to the other of a normal distribution, in standard deviations
_MEDIAN_DISTANCE = 0.6744897501960817  # from the mean, of a normal distribution


@dataclass(frozen=True)
class RobustNormalize(Step):
    """(value - median) / scale, with the image's own median, and as scale what would be the standard deviation of normal values.

    The scale is the distance of the quartiles / 1.349, or the median absolute distance from the median x 1.4826 (Rousseeuw and Croux,
    "Alternatives to the median absolute deviation", JASA 88, 1993). Both are exact, over all channels together unless
    `per_channel` says otherwise.

    Args:
        scale: "iqr" for the quartiles, "mad" for the median distance.
        keys: names of scalar images; None for every scalar image.
        mask: name of a label map: only voxels where it is above 0 (in any of its channels) count.
        above: only voxels whose value is above this count.
        per_channel: each channel by its own median and scale; see `ZNormalize`.

    Raises:
        ImageError: when applied to an image (or channel) whose scale is 0, or of which no voxel counts.
    """

    scale: Literal["iqr", "mad"] = "iqr"
    keys: Keys = None
    mask: str | None = None
    above: float | None = None
    per_channel: bool = False

    def __post_init__(self) -> None:
        chosen(self.scale, "scale", ("iqr", "mad"))
        set_fields(self, keys=checked_keys(self.keys), above=finite(self.above, "above"))

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Fold the normalisation into the maps of the images."""
        return each_folded(self, volumes, subject_name, self._normalised)

    def _normalised(self, volume: Volume, mask: Mask | None, subject_name: str, key: str) -> Volume:
        found = percentiles(volume, (25.0, 50.0, 75.0), mask, self.above)
        if found is None:
            raise nothing(subject_name, key, volume, self.mask, self.above)
        low, median, high = found
        iqr = self.scale == "iqr"
        scale = (high - low) / _QUARTILES if iqr else spread(volume, median, mask, self.above) / _MEDIAN_DISTANCE
        if not scale > 0:
            raise constant(subject_name, key, volume, median, self.mask, self.above)
        return folded(volume, 1 / scale, -median / scale, where(subject_name, key, volume))
