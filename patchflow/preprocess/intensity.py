"""Steps that change what stored voxels mean, and not the voxels: each is folded into the volume's map, so that int16 stays int16."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from patchflow.errors import ArgumentError, ImageError
from patchflow.images.volume import Volume
from patchflow.kernels.pointwise import IntensityMap
from patchflow.preprocess.base import Step, checked_keys, scalar_names, volume_named, where
from patchflow.preprocess.statistics import Mask, moments, percentiles

Keys = tuple[str, ...] | None


@dataclass(frozen=True)
class ZNormalize(Step):
    """(value - mean) / std, with the image's own mean and standard deviation unless they are given.

    They are exact (float64), over all channels together, the standard deviation divided by the number of voxels (as in NumPy and nnU-Net).

    Args:
        keys: names of scalar images; None for every scalar image.
        mean: subtract this instead of the image's mean.
        std: divide by this instead of the image's standard deviation; above 0.
        mask: name of a label map: the mean and standard deviation are those of the voxels where it is above 0 (in any of its channels).

    Raises:
        ImageError: when applied to an image that is constant, or whose mask is empty.
    """

    keys: Keys = None
    mean: float | None = None
    std: float | None = None
    mask: str | None = None

    def __post_init__(self) -> None:
        _set(self, keys=checked_keys(self.keys), mean=_finite(self.mean, "mean"), std=_finite(self.std, "std"))
        if self.std is not None and self.std <= 0:
            raise ArgumentError(f"std must be above 0, not {self.std}")
        if self.mask is not None and self.mean is not None and self.std is not None:
            raise ArgumentError("mean and std are given, so that mask would have no effect: give one or the other")

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Fold the normalisation into the maps of the images."""
        for key in scalar_names(self.keys, volumes, subject_name):
            mean, std = self.mean, self.std
            if mean is None or std is None:
                found = moments(volumes[key], _mask(self.mask, volumes, subject_name))
                if std is None and (found.std == 0 or found.minimum == found.maximum):
                    raise _constant(subject_name, key, volumes[key], found.minimum, self.mask)
                mean = found.mean if mean is None else mean
                std = found.std if std is None else std
            volumes[key] = _folded(volumes[key], 1 / std, -mean / std, where(subject_name, key, volumes[key]))
        return volumes


@dataclass(frozen=True)
class Rescale(Step):
    """Map a range of the image's values linearly onto another, and limit values to it.

    Args:
        out: least and greatest value afterwards.
        percentiles: of the image's values (all channels together), which become the ends of `out`: (0, 100) is its least and greatest
            value. Exact, and between two voxels linear (NumPy's default).
        keys: names of scalar images; None for every scalar image.
        mask: name of a label map: the percentiles are those of the voxels where it is above 0 (in any of its channels).

    Raises:
        ImageError: when applied to an image whose two percentiles are equal, or whose mask is empty.
    """

    out: tuple[float, float] = (0.0, 1.0)
    percentiles: tuple[float, float] = (0.0, 100.0)
    keys: Keys = None
    mask: str | None = None

    def __post_init__(self) -> None:
        _set(self, out=_ends(self.out, "out"), percentiles=_ends(self.percentiles, "percentiles"), keys=checked_keys(self.keys))
        if self.percentiles[0] < 0 or self.percentiles[1] > 100:
            raise ArgumentError(f"percentiles must be from 0 to 100, not {self.percentiles}")

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Fold the rescaling into the maps of the images."""
        for key in scalar_names(self.keys, volumes, subject_name):
            low, high = percentiles(volumes[key], self.percentiles, _mask(self.mask, volumes, subject_name))
            if not low < high:
                raise _constant(subject_name, key, volumes[key], low, self.mask)
            volumes[key] = _stretched(volumes[key], low, high, self.out, where(subject_name, key, volumes[key]))
        return volumes


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
        _set(self, center=_finite(self.center, "center"), width=_finite(self.width, "width"), keys=checked_keys(self.keys))
        _set(self, out=None if self.out is None else _ends(self.out, "out"))
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
        _set(self, low=_finite(self.low, "low"), high=_finite(self.high, "high"), keys=checked_keys(self.keys))
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
        _set(self, value=_finite(self.value, "value"), keys=checked_keys(self.keys))
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


def _stretched(volume: Volume, low: float, high: float, out: tuple[float, float], what: str) -> Volume:
    """Values from low to high onto `out`, and limited to it."""
    gain = (out[1] - out[0]) / (high - low)
    return _folded(volume, gain, out[0] - gain * low, what, out)


def _folded(volume: Volume, gain: float, bias: float, what: str, out: tuple[float, float] = (-math.inf, math.inf)) -> Volume:
    try:
        return replace(volume, map=volume.map.then(IntensityMap(gain, bias, *out)))
    except ArgumentError as error:
        raise ImageError(f"{what}: its values are too close or too far apart to be normalised ({error}): rescale the source") from error


def _mask(name: str | None, volumes: dict[str, Volume], subject_name: str) -> Mask | None:
    """Where the label map `name` is above 0 in any channel, (I, J, K)."""
    if name is None:
        return None
    volume = volume_named(name, volumes, subject_name)
    if volume.kind != "label":
        raise ArgumentError(f"mask names image {name!r} of subject {subject_name!r}, which is a scalar image: name a label map")
    mask: Mask = volume.array[0] > 0
    for channel in volume.array[1:]:
        mask |= channel > 0
    if not mask.any():
        raise ImageError(f"{where(subject_name, name, volume)}: no voxel is above 0, so that it cannot be a mask: leave the subject out")
    return mask


def _constant(subject_name: str, key: str, volume: Volume, value: float, mask: str | None) -> ImageError:
    within = "" if mask is None else f" where {mask!r} is above 0"
    return ImageError(
        f"{where(subject_name, key, volume)}: the values between which it would be normalised are all {value:g}{within}: "
        "leave the subject out, or give numbers (ZNormalize's mean and std, or Window) instead of taking them from the image"
    )


def _finite(value: Any, what: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{what} must be a number, not {value!r}") from error
    if not math.isfinite(number):
        raise ArgumentError(f"{what} must be finite, not {value!r}")
    return number


def _ends(value: Any, what: str) -> tuple[float, float]:
    ends = [_finite(end, what) for end in value] if isinstance(value, (tuple, list)) else []
    if len(ends) != 2 or ends[0] is None or ends[1] is None or ends[0] >= ends[1]:
        raise ArgumentError(f"{what} must be two numbers, the smaller first, not {value!r}")
    return ends[0], ends[1]


def _set(step: Step, **fields: Any) -> None:
    """Set fields of a frozen step as it is made: numbers become floats, so that equal parameters have equal fingerprints."""
    for name, value in fields.items():
        object.__setattr__(step, name, value)
