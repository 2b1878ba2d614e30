"""Preprocessing: steps that are done once, on whole volumes, before they are cached."""

import hashlib
import json
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchflow.errors import ArgumentError, ImageError, TransformError
from patchflow.geometry.space import VoxelGrid
from patchflow.images.image import LabelMap, ScalarImage
from patchflow.images.volume import Kind, Volume
from patchflow.kernels.pointwise import plain_apply_map
from patchflow.preprocess.base import GridChange, SpatialStep, Step, grid_of, where
from patchflow.preprocess.function import FunctionStep, identity
from patchflow.subjects import Subject
from patchflow.types import Affine, Array

_VERSION = 1
_BLOCK = 1 << 20

_Finite = dict[str, "weakref.ref[Array]"]


@dataclass(frozen=True, eq=False)
class Processed:
    """A subject's volumes after preprocessing, and how its voxel grid came about.

    Attributes:
        volumes: image names to volumes: what is to be stored, and the map from that to values.
        changes: the spatial steps that changed the grid, in order, each with the grid before it.
    """

    volumes: dict[str, Volume]
    changes: tuple[GridChange, ...]

    @property
    def native(self) -> VoxelGrid:
        """The grid of the source, to which predictions belong."""
        return native_grid(self.changes, grid_of(self.volumes))


class ProcessedSubject(Subject):
    """A subject that a pipeline gave back: images of arrays, which remembers the grid that it came from.

    Attributes:
        changes: see `Processed`.
    """

    changes: tuple[GridChange, ...] = ()

    @property
    def native(self) -> VoxelGrid:
        """The grid of the source, to which predictions belong."""
        return native_grid(self.changes, VoxelGrid(self.shape, self.affine))


def native_grid(changes: Iterable[GridChange], now: VoxelGrid) -> VoxelGrid:
    """The grid before the first of `changes`; `now` where nothing changed."""
    return next((change.before for change in changes), now)


class Pipeline:
    """Steps done one after another on each subject.

    NaN and infinite voxels are refused unless `ReplaceNonFinite` (or a function) replaces them.

    Args:
        steps: `Step`s, and functions from a dict of values to a dict of values (see `patchflow.preprocess.function.FunctionStep`).

    Raises:
        ArgumentError: for something that is neither, or a function that cannot be told from others.
    """

    def __init__(self, steps: Iterable[Step | Callable[[dict[str, Array]], Mapping[str, Any]]] = ()) -> None:
        if not isinstance(steps, Iterable):
            raise ArgumentError(f"a pipeline is made of a list of steps: write pf.Pipeline([{steps!r}])")
        self.steps: tuple[Step, ...] = tuple(_as_step(step) for step in steps)
        self._description = {"version": _VERSION, "steps": [_described(step) for step in self.steps]}

    def to_dict(self) -> dict[str, Any]:
        """All steps and their parameters, as plain JSON values."""
        return json.loads(self._text())  # type: ignore[no-any-return]

    def fingerprint(self) -> str:
        """sha256 in hexadecimal of `to_dict`: the same in every process and run; another whenever a step or a parameter is."""
        return hashlib.sha256(self._text().encode()).hexdigest()

    def run(self, subject: Subject) -> dict[str, Volume]:
        """The volumes of `process`."""
        return self.process(subject).volumes

    def process(self, subject: Subject, volumes: dict[str, Volume] | None = None) -> Processed:
        """Check that the subject's images belong together, read them, and do all steps.

        Args:
            subject: what to preprocess; what a pipeline gave back keeps the grid that it came from.
            volumes: its images, where they have been read already. They are not written to, and are taken out of the dict, so that a
                volume that a step replaces can go.

        Raises:
            SubjectError: for images of different shapes or affines.
            ImageFileError: for a file that cannot be read.
            ImageError: for voxels that cannot be used; every message names the subject and the image.
        """
        if volumes is None:
            subject.check()
            volumes = subject.load_with_digests()[0]
        current = dict(volumes)
        volumes.clear()
        changes = list(subject.changes) if isinstance(subject, ProcessedSubject) else []
        return self._done(current, changes, subject.name)

    def apply(self, volumes: Mapping[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Do all steps on volumes that have been read; see `process`. The arrays given are not written to."""
        return self._done(dict(volumes), [], subject_name).volumes

    def _done(self, current: dict[str, Volume], changes: list[GridChange], subject_name: str) -> Processed:
        finite: _Finite = {}
        for step in self.steps:
            if step.needs_finite:
                _check_finite(current, subject_name, finite)
            kinds, grid = {key: volume.kind for key, volume in current.items()}, grid_of(current)
            affines = {key: volume.affine for key, volume in current.items()}
            current = step.apply(current, subject_name)
            _check_step(step, current, kinds, grid, affines, subject_name)
            if grid.shape != grid_of(current).shape or (grid.affine != grid_of(current).affine).any():
                changes.append(GridChange(type(step).__name__, grid))
        _check_finite(current, subject_name, finite)
        for key, volume in current.items():
            _check_range(volume, where(subject_name, key, volume))
        return Processed(current, tuple(changes))

    def __call__(self, subject: Subject) -> ProcessedSubject:
        """The subject after all steps: images of arrays, float32 for scalar images; the metadata as it is."""
        processed = self.process(subject)
        images = {
            key: (LabelMap if volume.kind == "label" else ScalarImage)(volume.values(), volume.affine)
            for key, volume in processed.volumes.items()
        }
        made = ProcessedSubject(subject.name, **images)
        made.metadata, made.changes = dict(subject.metadata), processed.changes
        return made

    def __repr__(self) -> str:
        return f"Pipeline([{', '.join(getattr(step, 'name', repr(step)) for step in self.steps)}])"

    def _text(self) -> str:
        return json.dumps(self._description, sort_keys=True, allow_nan=False)


def _as_step(step: Any) -> Step:
    if isinstance(step, Step):
        return step
    if isinstance(step, type) and issubclass(step, Step):
        raise ArgumentError(f"a pipeline is made of steps and functions, and {step.__name__} is a class of steps: write {step.__name__}()")
    if isinstance(step, type) or not callable(step):
        raise ArgumentError(f"a pipeline is made of steps and functions, not of {step!r}")
    return FunctionStep(step)


def _described(step: Step) -> dict[str, Any]:
    """What identifies a step: a user's own step by its source code as well, as its results change with that."""
    description = step.to_dict()
    if not type(step).__module__.startswith("patchflow."):
        description = {**description, "code": identity(type(step).apply)}
    try:
        json.dumps(description, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{type(step).__name__}.to_dict() must give plain JSON values, not {description!r}") from error
    return description


def _check_step(
    step: Step, after: dict[str, Volume], kinds: dict[str, Kind], grid: VoxelGrid, affines: dict[str, Affine], subject_name: str
) -> None:
    """Refuse what a step must not change: names and kinds, and the grid unless it is spatial; then all images change alike."""
    if {key: volume.kind for key, volume in after.items()} != kinds:
        raise TransformError(f"{type(step).__name__} changed the names or kinds of the images of subject {subject_name!r}")
    shapes = {key: volume.spatial_shape for key, volume in after.items()}
    if isinstance(step, SpatialStep):
        if len(set(shapes.values())) > 1:
            raise TransformError(f"{type(step).__name__} gave the images of subject {subject_name!r} different shapes: {shapes}")
    elif set(shapes.values()) != {grid.shape} or any((volume.affine != affines[key]).any() for key, volume in after.items()):
        raise TransformError(
            f"{type(step).__name__} changed the spatial shape or affine of subject {subject_name!r}: steps that do are "
            "subclasses of SpatialStep"
        )


def _check_finite(volumes: Mapping[str, Volume], subject_name: str, known: _Finite) -> None:
    """Refuse NaN and infinite voxels in arrays that are not known to be finite."""
    for key, volume in volumes.items():
        if volume.array.dtype.kind != "f" or (key in known and known[key]() is volume.array):
            continue
        if not np.isfinite([volume.array.min(), volume.array.max()]).all():  # NaN goes through both
            raise ImageError(f"{where(subject_name, key, volume)}: {_not_finite(volume.array)}")
        known[key] = weakref.ref(volume.array)


def _not_finite(array: Array) -> str:
    flat = array.reshape(-1)
    first, nans, infinite = -1, 0, 0
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        wrong = ~np.isfinite(block)
        if first < 0 and wrong.any():
            first = start + int(np.argmax(wrong))
        nans, infinite = nans + int(np.isnan(block).sum()), infinite + int(np.isinf(block).sum())
    channel, *voxel = (int(n) for n in np.unravel_index(first, array.shape))
    return (
        f"{nans} voxels are NaN and {infinite} infinite, the first {flat[first]} in channel {channel} at voxel {tuple(voxel)}: "
        "mend the source, or put patchflow.preprocess.ReplaceNonFinite(value) first in the pipeline"
    )


def _check_range(volume: Volume, what: str) -> None:
    """Refuse values that float32 does not hold."""
    if volume.kind == "label":
        return
    integers = volume.array.dtype.kind in "iu"
    ends: Any = np.iinfo(volume.array.dtype) if integers else None
    ends = np.array([ends.min, ends.max] if integers else [volume.array.min(), volume.array.max()], dtype=np.float64)
    if integers and not np.isfinite(plain_apply_map(ends, volume.map)).all():  # not all values of the dtype need occur
        ends = np.array([volume.array.min(), volume.array.max()], dtype=np.float64)
    if not np.isfinite(plain_apply_map(ends, volume.map)).all():
        raise ImageError(f"{what}: values from {ends[0]:g} to {ends[1]:g} as stored do not fit float32: rescale the source, or clamp first")
