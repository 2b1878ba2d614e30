"""Standard intensities: histograms of all subjects are brought to one by landmarks."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from patchflow.errors import ArgumentError, ImageError
from patchflow.files import whole_file
from patchflow.images.volume import Volume
from patchflow.kernels.histogram import has_histogram
from patchflow.kernels.intensity_map import Curve, IntensityMap
from patchflow.preprocess.base import Step, checked_keys, scalar_names, where
from patchflow.preprocess.cohort import cohort
from patchflow.preprocess.fields import ends, number, percents, set_fields
from patchflow.preprocess.foreground import constant, mask_of, nothing
from patchflow.preprocess.intensity import Keys
from patchflow.preprocess.pipeline import Pipeline
from patchflow.preprocess.statistics import Mask, moments, percentiles
from patchflow.subjects import Subject

PERCENTILES = (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0)
_Above = float | Literal["mean"] | None


@dataclass(frozen=True)
class HistogramStandardize(Step):
    """Map the percentiles of each image's foreground onto a cohort's landmarks, and values between two of them linearly.

    Beyond the first and the last percentile the outermost pieces go on. Where percentiles coincide, the mean of their landmarks counts.
    Images of 8- and 16-bit integers stay what they are: the map is kept beside them and applied as they are read. Of others the values are
    stored, as float32. Source: Nyul and Udupa, "On standardizing the MR image intensity scale", Magnetic Resonance in
    Medicine 42, 1999, in the variant with deciles of Nyul, Udupa and Zhang, IEEE Transactions on Medical Imaging 19, 2000.

        step = HistogramStandardize.train(subjects, "t1", above="mean")
        step.save("landmarks.json")  # HistogramStandardize.load("landmarks.json")

    Args:
        landmarks: the value onto which each percentile is mapped, none below the one before; see `train`.
        percentiles: of an image's foreground, from 0 to 100, each above the one before.
        keys: names of scalar images; None for every scalar image.
        mask: name of a label map, which is above 0 in the foreground.
        above: the foreground's values are above this; "mean" for the image's own mean, as Nyul and Udupa do. Neither: all voxels.

    Raises:
        ImageError: when applied to an image whose first and last percentile are equal, or without foreground.
    """

    landmarks: tuple[float, ...]
    percentiles: tuple[float, ...] = PERCENTILES
    keys: Keys = None
    mask: str | None = None
    above: _Above = None

    def __post_init__(self) -> None:
        set_fields(self, percentiles=percents(self.percentiles, "percentiles", 2), keys=checked_keys(self.keys), above=_above(self.above))
        given: Any = self.landmarks
        found = tuple(number(each, "a landmark") for each in given) if isinstance(given, (list, tuple, np.ndarray)) else ()
        if len(found) != len(self.percentiles) or sorted(found) != list(found) or found[0] == found[-1]:
            raise ArgumentError(
                f"landmarks must be {len(self.percentiles)} numbers, one for each percentile and none below the one before, not {given!r}"
            )
        set_fields(self, landmarks=found)

    @classmethod
    def train(
        cls,
        subjects: Iterable[Subject],
        key: str,
        *,
        mask: str | None = None,
        above: _Above = None,
        percentiles: tuple[float, ...] = PERCENTILES,
        out: tuple[float, float] = (0.0, 100.0),
        before: Pipeline | None = None,
    ) -> "HistogramStandardize":
        """The step of a cohort: each landmark is the mean of a percentile over all images, after each is stretched onto `out`.

        Args:
            subjects: the cohort: those for training. Images are read one after the other.
            key: the scalar image.
            mask, above, percentiles: see the class.
            out: what the first and the last percentile of every image are mapped onto.
            before: what is done to subjects first, such as a bias field correction.

        Raises:
            ArgumentError: for no subject.
            ImageError: for an image whose first and last percentile are equal, or without foreground.
        """
        low, high = ends(out, "out")
        wanted, above = percents(percentiles, "percentiles", 2), _above(above)
        found = []
        for name, volume, inside in cohort(subjects, key, mask, before):
            points = _points(volume, wanted, inside, above, name, key, mask)
            found.append(low + (high - low) * (points - points[0]) / (points[-1] - points[0]))
        return cls(tuple(np.mean(found, axis=0).tolist()), wanted, (key,), mask, above)

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Fold the curve into the maps of images of 8- and 16-bit integers, and map the values of others."""
        for key in scalar_names(self.keys, volumes, subject_name):
            volume, mask = volumes[key], mask_of(self.mask, volumes, subject_name)
            points = _points(volume, self.percentiles, mask, self.above, subject_name, key, self.mask)
            places, which = np.unique(points, return_inverse=True)
            values = np.bincount(which, weights=self.landmarks) / np.bincount(which)  # equal percentiles share the mean of their landmarks
            values = np.maximum.accumulate(values)  # a mean of equal numbers may lie above them, by rounding
            try:
                curve = Curve(tuple(places.tolist()), tuple(values.tolist()), volume.map)
            except ArgumentError as error:
                raise ImageError(f"{where(subject_name, key, volume)}: its percentiles cannot be told apart ({error})") from error
            volume = replace(volume, map=IntensityMap(curve=curve))
            few = has_histogram(volume.array.dtype)
            volumes[key] = volume if few else replace(volume, array=volume.values(), map=IntensityMap())
        return volumes

    def save(self, path: str | Path) -> None:
        """Write the step as JSON, whole or not at all."""
        with whole_file(Path(path)) as beside:
            beside.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "HistogramStandardize":
        """The step that `save` wrote.

        Raises:
            ArgumentError: for a file that cannot be read, or holds something else.
        """
        try:
            fields: Any = json.loads(Path(path).read_text())
        except OSError as error:
            raise ArgumentError(f"{path} cannot be read ({error.strerror}): give the path of a file written by save()") from error
        except ValueError as error:
            raise ArgumentError(f"{path} is no JSON: {error}") from error
        if not isinstance(fields, dict) or fields.pop("step", None) != cls.__name__ or set(fields) != set(cls.__dataclass_fields__):
            raise ArgumentError(f"{path} was not written by HistogramStandardize.save()")
        try:
            read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
            return cls(**read)
        except ArgumentError as error:
            raise ArgumentError(f"{path}: {error}") from error


def _above(value: Any) -> _Above:
    return value if value is None or value == "mean" else number(value, "above")


def _points(
    volume: Volume, wanted: tuple[float, ...], mask: Mask | None, above: _Above, subject_name: str, key: str, mask_name: str | None
) -> npt.NDArray[np.float64]:
    """The percentiles of an image's foreground."""
    if above == "mean":
        found = moments(volume, mask)
        above = None if found is None or found.minimum == found.maximum else found.mean
    points = percentiles(volume, wanted, mask, above)
    if points is None:
        raise nothing(subject_name, key, volume, mask_name, above)
    if not points[0] < points[-1]:
        raise constant(subject_name, key, volume, points[0], mask_name, above)
    return np.array(points)
