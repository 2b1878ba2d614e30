"""What steps that are trained on a cohort look at: one image of one subject after another."""

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
import numpy.typing as npt

from patchflow.errors import ArgumentError
from patchflow.images.volume import Volume
from patchflow.kernels.histogram import has_histogram
from patchflow.preprocess.base import scalar_names
from patchflow.preprocess.foreground import mask_of, nothing
from patchflow.preprocess.pipeline import Pipeline
from patchflow.preprocess.statistics import Mask, counted, some_values
from patchflow.subjects import Subject

_MOST_VOXELS = 1_000_000


def cohort(subjects: Iterable[Subject], key: str, mask: str | None, before: Pipeline | None) -> Iterator[tuple[str, Volume, Mask | None]]:
    """The name of each subject, its image `key` as a volume, and where its label map `mask` is above 0.

    Args:
        subjects: read one after the other.
        key: a scalar image.
        mask: a label map, or None.
        before: what is done to subjects first; None leaves them as they are.

    Raises:
        ArgumentError: for no subject, or an image that is no scalar image.
        UnknownNameError: for a subject without the image.
    """
    if isinstance(subjects, Subject) or not isinstance(subjects, Iterable):
        raise ArgumentError(f"subjects must be a list of pf.Subject objects, not {subjects!r}")
    iterator = iter(subjects)
    first = next(iterator, None)
    if first is None:
        raise ArgumentError("there are no subjects to train on")
    pipeline = Pipeline() if before is None else before
    for subject in chain([first], iterator):
        subject = subject if before is not None else _part(subject, key, mask)
        volumes = pipeline.process(subject).volumes
        scalar_names((key,), volumes, subject.name)
        yield subject.name, volumes[key], mask_of(mask, volumes, subject.name)


def cohort_values(
    subjects: Iterable[Subject], key: str, mask: str | None, above: float | None, before: Pipeline | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Values of the foreground of all subjects together (N,), and how often each occurs.

    All values of images of 8- and 16-bit integers; of each other image at most a million, evenly spaced among its foreground's voxels.

    Raises:
        ImageError: for a subject without foreground; and what `cohort` raises.
    """
    pooled: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]] = []
    for name, volume, where in cohort(subjects, key, mask, before):
        if has_histogram(volume.array.dtype):
            found = counted(volume, where, above)
        else:
            values, weight = some_values(volume, _MOST_VOXELS, where, above)
            found = values, np.full(values.size, weight, np.int64)
        if not found[0].size:
            raise nothing(name, key, volume, mask, above)
        pooled.append(found)
    return np.concatenate([values for values, _ in pooled]), np.concatenate([counts for _, counts in pooled])


def _part(subject: Subject, key: str, mask: str | None) -> Subject:
    """The subject with the images that are looked at alone."""
    names = [key] if mask is None else list(dict.fromkeys((key, mask)))
    return Subject(subject.name, **{name: subject[name] for name in names})
