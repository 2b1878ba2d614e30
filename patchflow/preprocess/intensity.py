"""Steps that change what stored voxels mean, and not the voxels: each is folded into the volume's map, so that int16 stays int16."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from patchflow.errors import ArgumentError, ImageError
from patchflow.images.volume import Volume
from patchflow.kernels.pointwise import IntensityMap, apply_map
from patchflow.preprocess.base import Step, checked_keys, scalar_names, where
from patchflow.preprocess.cohort import cohort_values
from patchflow.preprocess.fields import ends, finite, percents, set_fields
from patchflow.preprocess.foreground import constant, mask_of, nothing
from patchflow.preprocess.pipeline import Pipeline
from patchflow.preprocess.statistics import Mask, moments, percentiles, percentiles_of_counts
from patchflow.subjects import Subject

Keys = tuple[str, ...] | None


@dataclass(frozen=True)
class ZNormalize(Step):
    """(value - mean) / std, with the image's own mean and standard deviation unless they are given.

    They are exact (float64), over all channels together unless `per_channel` says otherwise, the standard deviation divided by the number
    of voxels (as in NumPy and nnU-Net).

    Channels of one kind (colours, a time series, directions of diffusion) keep their proportions when they are normalised together, which
    is what MONAI and TorchIO do unless told otherwise. Channels that are images of their own, such as T1, T2 and FLAIR, or all that
    `subjects_from_nnunet` finds, want `per_channel=True`, as nnU-Net does it.

    For CT, nnU-Net limits values to the 0.5 and 99.5 percentile of the cohort's foreground and takes the mean and standard deviation of
    that foreground: `ZNormalize.train(subjects, "image", mask="label")` finds the four numbers (Isensee et al., Nature Methods 18, 2021).

    Args:
        keys: names of scalar images; None for every scalar image.
        mean: subtract this instead of the image's mean.
        std: divide by this instead of the image's standard deviation; above 0.
        mask: name of a label map: the mean and standard deviation are those of the voxels where it is above 0 (in any of its channels).
        above: they are those of the voxels whose value is above this.
        clip: least and greatest value, to which values are limited first.
        per_channel: each channel by its own mean and standard deviation. An image of several channels is then stored as float32; with one
            channel, or without this, its voxels stay as they are and reading normalises.

    Raises:
        ImageError: when applied to an image (or channel) that is constant, or of which no voxel counts.
    """

    keys: Keys = None
    mean: float | None = None
    std: float | None = None
    mask: str | None = None
    above: float | None = None
    clip: tuple[float, float] | None = None
    per_channel: bool = False

    def __post_init__(self) -> None:
        set_fields(self, keys=checked_keys(self.keys), mean=finite(self.mean, "mean"), std=finite(self.std, "std"))
        set_fields(self, above=finite(self.above, "above"), clip=None if self.clip is None else ends(self.clip, "clip"))
        if self.std is not None and self.std <= 0:
            raise ArgumentError(f"std must be above 0, not {self.std}")
        if (self.mask is not None or self.above is not None or self.per_channel) and self.mean is not None and self.std is not None:
            raise ArgumentError("mean and std are given, so that mask, above and per_channel would have no effect: give one or the other")

    @classmethod
    def train(
        cls,
        subjects: Iterable[Subject],
        key: str,
        *,
        mask: str | None = None,
        above: float | None = None,
        percentiles: tuple[float, float] = (0.5, 99.5),
        before: Pipeline | None = None,
    ) -> "ZNormalize":
        """The step with a cohort's own numbers: values limited to two percentiles, then the mean and standard deviation of all.

        Statistics are of the foreground of all subjects together, the mean and standard deviation before values are limited (as in
        nnU-Net). Images of 8- and 16-bit integers are counted in full; of others, at most a million voxels a subject are taken, evenly
        spaced.

        Args:
            subjects: the cohort: those for training.
            key: the scalar image.
            mask: name of a label map, which is above 0 in the foreground.
            above: the foreground's values are above this. Neither: all voxels.
            percentiles: to which values are limited.
            before: what is done to subjects first.

        Raises:
            ArgumentError, ImageError: for no subject, or a subject without foreground.
        """
        low, high = percents(percentiles, "percentiles", 2)
        values, counts = cohort_values(subjects, key, mask, finite(above, "above"), before)
        clip = percentiles_of_counts(values, counts, (low, high))
        mean = float(np.average(values, weights=counts))
        std = float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))
        if not clip[0] < clip[1] or not std > 0:
            raise ImageError(f"image {key!r} of the cohort is constant: its values are all {mean:g}")
        return cls((key,), mean, std, clip=(clip[0], clip[1]))

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Fold the normalisation into the maps of the images."""
        return each_folded(self, volumes, subject_name, self._normalised)

    def _normalised(self, volume: Volume, mask: Mask | None, subject_name: str, key: str) -> Volume:
        mean, std = self.mean, self.std
        if self.clip is not None:
            volume = replace(volume, map=volume.map.then(IntensityMap(low=self.clip[0], high=self.clip[1])))
        if mean is None or std is None:
            found = moments(volume, mask, self.above)
            if found is None:
                raise nothing(subject_name, key, volume, self.mask, self.above)
            if std is None and (found.std == 0 or found.minimum == found.maximum):
                raise constant(subject_name, key, volume, found.minimum, self.mask, self.above)
            mean = found.mean if mean is None else mean
            std = found.std if std is None else std
        return folded(volume, 1 / std, -mean / std, where(subject_name, key, volume))


@dataclass(frozen=True)
class Rescale(Step):
    """Map a range of the image's values linearly onto another, and limit values to it.

    Args:
        out: least and greatest value afterwards.
        percentiles: of the image's values (all channels together, or see `per_channel`), which become the ends of `out`: (0, 100) is its
            least and greatest value. Exact, and between two voxels linear (NumPy's default).
        keys: names of scalar images; None for every scalar image.
        mask: name of a label map: the percentiles are those of the voxels where it is above 0 (in any of its channels).
        above: the percentiles are those of the voxels whose value is above this.
        per_channel: each channel by its own percentiles; see `ZNormalize`.

    Raises:
        ImageError: when applied to an image (or channel) whose two percentiles are equal, or of which no voxel counts.
    """

    out: tuple[float, float] = (0.0, 1.0)
    percentiles: tuple[float, float] = (0.0, 100.0)
    keys: Keys = None
    mask: str | None = None
    above: float | None = None
    per_channel: bool = False

    def __post_init__(self) -> None:
        set_fields(self, above=finite(self.above, "above"))
        set_fields(self, out=ends(self.out, "out"), percentiles=ends(self.percentiles, "percentiles"), keys=checked_keys(self.keys))
        if self.percentiles[0] < 0 or self.percentiles[1] > 100:
            raise ArgumentError(f"percentiles must be from 0 to 100, not {self.percentiles}")

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Fold the rescaling into the maps of the images."""
        return each_folded(self, volumes, subject_name, self._rescaled)

    def _rescaled(self, volume: Volume, mask: Mask | None, subject_name: str, key: str) -> Volume:
        found = percentiles(volume, self.percentiles, mask, self.above)
        if found is None:
            raise nothing(subject_name, key, volume, self.mask, self.above)
        low, high = found
        if not low < high:
            raise constant(subject_name, key, volume, low, self.mask, self.above)
        return _stretched(volume, low, high, self.out, where(subject_name, key, volume))


@dataclass(frozen=True)
class Window(Step):
    """Limit values to a window, as a viewer of CT does, and map it onto a range if one is given.

    Args:
        center: middle of the window, for example 40 (HU).
        width: of the window, for example 400 for -160 to 240; above 0.
        out: least and greatest value afterwards; None leaves the values within the window as they are.
        keys: names of scalar images; None for every scalar image.
    """

    needs_finite = False  # it takes nothing from the image

    center: float
    width: float
    out: tuple[float, float] | None = None
    keys: Keys = None

    def __post_init__(self) -> None:
        set_fields(self, center=finite(self.center, "center"), width=finite(self.width, "width"), keys=checked_keys(self.keys))
        set_fields(self, out=None if self.out is None else ends(self.out, "out"))
        if self.center is None or self.width is None or self.width <= 0:
            raise ArgumentError(f"a window needs a center and a width above 0, not {self.center} and {self.width}")

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Fold the window into the maps of the images."""
        low, high = self.center - self.width / 2, self.center + self.width / 2
        for key in scalar_names(self.keys, volumes, subject_name):
            out = (low, high) if self.out is None else self.out
            volumes[key] = _stretched(volumes[key], low, high, out, where(subject_name, key, volumes[key]))
        return volumes


@dataclass(frozen=True)
class Clamp(Step):
    """Limit values.

    Args:
        low: least value afterwards; None for no limit.
        high: greatest value afterwards; None for no limit.
        keys: names of scalar images; None for every scalar image.
    """

    needs_finite = False  # it takes nothing from the image

    low: float | None = None
    high: float | None = None
    keys: Keys = None

    def __post_init__(self) -> None:
        set_fields(self, low=finite(self.low, "low"), high=finite(self.high, "high"), keys=checked_keys(self.keys))
        if self.low is None and self.high is None:
            raise ArgumentError("Clamp needs low, high or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ArgumentError(f"low must not be above high, not {self.low} and {self.high}")

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Fold the limits into the maps of the images."""
        limits = IntensityMap(low=-math.inf if self.low is None else self.low, high=math.inf if self.high is None else self.high)
        for key in scalar_names(self.keys, volumes, subject_name):
            volumes[key] = replace(volumes[key], map=volumes[key].map.then(limits))
        return volumes


@dataclass(frozen=True)
class ReplaceNonFinite(Step):
    """Replace NaN and infinite values; without this step, they are refused. It comes before steps that take numbers from the image.

    Args:
        value: what they become, in the image's values.
        keys: names of scalar images; None for every scalar image.
    """

    needs_finite = False

    value: float = 0.0
    keys: Keys = None

    def __post_init__(self) -> None:
        set_fields(self, value=finite(self.value, "value"), keys=checked_keys(self.keys))
        if self.value is None:
            raise ArgumentError("ReplaceNonFinite needs a value")

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Replace the voxels of images that have some; the others stay as they are."""
        for key in scalar_names(self.keys, volumes, subject_name):
            volume = volumes[key]
            if volume.array.dtype.kind != "f" or np.isfinite([volume.array.min(), volume.array.max()]).all():
                continue
            # Where a map lies between, stored voxels have no exact counterpart of the value: store the values instead.
            array = volume.array.copy() if volume.map.is_identity else volume.values()
            array[~np.isfinite(array)] = self.value
            volumes[key] = replace(volume, array=array, map=IntensityMap())
        return volumes


class _Normalisation(Protocol):
    """A step that normalises scalar images by statistics of their own."""

    @property
    def keys(self) -> Keys: ...
    @property
    def mask(self) -> str | None: ...
    @property
    def per_channel(self) -> bool: ...


def each_folded(step: _Normalisation, volumes: dict[str, Volume], subject_name: str, change: Callable[..., Volume]) -> dict[str, Volume]:
    """The volumes, those of the step's scalar images changed by `change(volume, mask, subject_name, key)`."""
    for key in scalar_names(step.keys, volumes, subject_name):
        mask = mask_of(step.mask, volumes, subject_name)
        fold = partial(change, mask=mask, subject_name=subject_name, key=key)
        volumes[key] = _of_channels(volumes[key], step.per_channel, fold)
    return volumes


def _of_channels(volume: Volume, per_channel: bool, change: Callable[[Volume], Volume]) -> Volume:
    """The volume with its map changed: of all channels together, or of each by itself.

    A volume has one map for all channels; where they would need several, it holds their values, float32, and nothing is left to be done.
    """
    if not per_channel or volume.channels == 1:
        return change(volume)
    channels = [replace(volume, array=volume.array[c : c + 1], source=f"{volume.source}, channel {c}") for c in range(volume.channels)]
    changed = [change(channel) for channel in channels]
    if all(channel.map == changed[0].map for channel in changed):
        return replace(volume, map=changed[0].map)
    values = np.empty(volume.shape, np.float32)
    for channel, out in zip(changed, values, strict=True):
        apply_map(channel.array, channel.map, out[None])
    return replace(volume, array=values, map=IntensityMap())


def _stretched(volume: Volume, low: float, high: float, out: tuple[float, float], what: str) -> Volume:
    """Values from low to high onto `out`, and limited to it."""
    gain = (out[1] - out[0]) / (high - low)
    return folded(volume, gain, out[0] - gain * low, what, out)


def folded(volume: Volume, gain: float, bias: float, what: str, out: tuple[float, float] = (-math.inf, math.inf)) -> Volume:
    """value -> gain value + bias, limited to `out`, put into the volume's map."""
    try:
        return replace(volume, map=volume.map.then(IntensityMap(gain, bias, *out)))
    except ArgumentError as error:
        raise ImageError(f"{what}: its values are too close or too far apart to be normalised ({error}): rescale the source") from error
