"""Reading an image through the composed map of a patch: copied where the map moves whole voxels, interpolated once elsewhere."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchflow.augment.base import Context, Parameters, Readable, Source, SpatialTransform
from patchflow.augment.foreign import where
from patchflow.errors import TransformError
from patchflow.geometry.location import Outside, PatchLocation, voxels_inside
from patchflow.geometry.maps import SpatialMap
from patchflow.kernels.resample import Interpolation, resample, touched_box
from patchflow.types import Array

Stages = dict[str, int]
"""Nanoseconds spent so far in each stage: "read", "spatial" and the name of each transform."""
Maps = dict[tuple[int, ...], SpatialMap | None]
"""Composed maps of a patch, by the places in the list of the transforms that they hold: most images share one."""


class Clock:
    """Adds the time since the last lap to a stage."""

    def __init__(self, stages: Stages | None) -> None:
        self._stages = stages
        self._last = 0 if stages is None else time.perf_counter_ns()

    def lap(self, stage: str) -> None:
        """The time since the last lap was spent in `stage`."""
        if self._stages is not None:
            now = time.perf_counter_ns()
            self._stages[stage] = self._stages.get(stage, 0) + now - self._last
            self._last = now


@dataclass(frozen=True)
class Reading:
    """How a recipe reads an image.

    Attributes:
        fill: the value outside the volume, as read.
        outside: what lies outside the volume: "constant" (the fill), "border" or "reflect".
        interpolation: "linear", "nearest" or "cubic"; for a label map "nearest" or "linear".
    """

    fill: float
    outside: Outside
    interpolation: Interpolation


def composed_map(drawn: Sequence[tuple[Any, Any]], context: Context, maps: Maps) -> SpatialMap | None:
    """The map of the image of the context through all spatial transforms that were drawn for it; None where there are none.

    Args:
        drawn: each transform with its parameters.
        context: of the image at hand.
        maps: those composed before for this patch; the new one is added.

    Raises:
        TransformError: for a map that is not a finite affine matrix.
    """
    chosen = tuple(
        n
        for n, (step, values) in enumerate(drawn)
        if isinstance(step, SpatialTransform) and values is not None and step.takes(str(context.image), context.info)
    )
    if chosen not in maps:
        composed: SpatialMap | None = None
        for step, values in (drawn[n] for n in chosen):
            following = _map_of(step, values, context)
            composed = following if composed is None else composed.then(following)
        maps[chosen] = composed
    return maps[chosen]


def _map_of(step: SpatialTransform, values: Parameters, context: Context) -> SpatialMap:
    given = step.map(values, context)
    if isinstance(given, SpatialMap):
        return given
    matrix = np.asarray(given, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or matrix[3].tolist() != [0, 0, 0, 1]:
        raise TransformError(f"{where(step.name, context)} gave a map that is not a finite 4x4 affine matrix: {matrix.tolist()}")
    return SpatialMap.affine(matrix)


def read_through(
    source: SpatialMap | None, entry: Source, target: Array, context: Context, location: PatchLocation, how: Reading, clock: Clock
) -> None:
    """Fill `target` with the image of the context at `location`, read through the map `source` (None: as it lies).

    Args:
        source: output voxel to source voxel.
        entry: the subject.
        target: (C, i, j, k) of the location's size: float32 for a scalar image, the labels' dtype for a label map; any strides.
        context: of the image at hand.
        location: the voxels to fill.
        how: where the map does more than copy voxels, and outside the volume.
        clock: told of the stages "read" and "spatial".
    """
    name, info = str(context.image), context.info
    copy = source.as_copy(location) if source is not None else None
    if source is None or copy is not None:
        view = target if copy is None else target[(slice(None), *(slice(None, None, -1 if back else 1) for back in copy.mirrored))]
        read_padded(entry, name, location if copy is None else copy.location, view, how.fill, how.outside)
        clock.lap("read")
        return
    box = touched_box(source, location, context.shape, how.interpolation, how.outside)
    if box is None:
        target[...] = how.fill
        clock.lap("spatial")
        return
    region = entry.region(name, box.start, box.stop)
    clock.lap("read")
    intensities = info.map if info.kind == "scalar" else None
    resample(region, box, context.shape, source, location, intensities, how.fill, how.outside, how.interpolation, target)
    clock.lap("spatial")


def read_padded(entry: Readable, name: str, location: PatchLocation, target: Array, fill: float, outside: Outside) -> None:
    """Fill `target` (C, i, j, k) with an image at a location, of which parts may hang over the border: what lies there `outside` says."""
    if outside == "constant" or location.is_inside(entry.shape):
        entry.read(name, location, out=target, fill=fill)
        return
    axes = zip(location.start, location.size, entry.shape, strict=True)
    i, j, k = (voxels_inside(start, size, n, outside) for start, size, n in axes)
    start = int(i.min()), int(j.min()), int(k.min())
    size = int(i.max()) + 1 - start[0], int(j.max()) + 1 - start[1], int(k.max()) + 1 - start[2]
    inside = entry.read(name, PatchLocation(start, size))
    target[...] = inside[:, (i - start[0])[:, None, None], (j - start[1])[None, :, None], (k - start[2])[None, None, :]]
