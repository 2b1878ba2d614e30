"""What a preprocessing step is."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, ClassVar

from patchflow.errors import ArgumentError, ImageError, UnknownNameError
from patchflow.files import machine_memory
from patchflow.geometry.affine import spacing
from patchflow.geometry.space import VoxelGrid
from patchflow.images.volume import Volume
from patchflow.notices import size
from patchflow.types import Int3


class Step(ABC):
    """A deterministic change of a subject's volumes, before they are cached.

    Subclasses are dataclasses whose fields are plain JSON values, or override `to_dict`.

    Attributes:
        needs_finite: whether NaN and infinite voxels are refused before this step (they are after the last step in any case).
    """

    needs_finite: ClassVar[bool] = True

    @abstractmethod
    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """The volumes after this step: the same names, kinds, spatial shapes and affines. Arrays given are not to be written to."""

    def to_dict(self) -> dict[str, Any]:
        """The step's name and parameters, as plain JSON values: what a pipeline's fingerprint is made of."""
        step: Any = self
        if not is_dataclass(step):
            raise ArgumentError(f"{type(self).__name__} must be a dataclass or have a to_dict() of its own, which says what it does")
        return {"step": type(self).__name__, **asdict(step)}  # type: ignore[arg-type]


class SpatialStep(Step):
    """A step that changes the voxel grid of a subject: `apply` gives all images one new shape, and affines that are true for it.

    The pipeline records the grid before each such step, so that predictions can be brought back to the source's own grid.
    """


@dataclass(frozen=True, eq=False)
class GridChange:
    """What a spatial step did.

    Attributes:
        step: the name of its class.
        before: the subject's voxel grid before it (that of its first image).
    """

    step: str
    before: VoxelGrid

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"step": self.step, **self.before.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GridChange":
        """The change written by `to_dict`."""
        return cls(values["step"], VoxelGrid.from_dict(values))


def grid_of(volumes: Mapping[str, Volume]) -> VoxelGrid:
    """The voxel grid of a subject: that of its first image. Affines of the others may differ from it by rounding."""
    first = next(iter(volumes.values()))
    return VoxelGrid(first.spatial_shape, first.affine)


def where(subject_name: str, key: str, volume: Volume) -> str:
    """Which image of which subject from which file, for messages."""
    return f"subject {subject_name!r}, image {key!r} ({volume.source})"


def check_room(volumes: Mapping[str, Volume], shape: Int3, subject_name: str, step: str, beside: int = 0, as_float: bool = False) -> None:
    """Refuse a grid on which the volumes would not fit into memory, before any is made: a spacing in other units asks for terabytes.

    Args:
        volumes: what is to be brought to the grid.
        shape: of the grid, (I, J, K).
        subject_name, step: for the error.
        beside: bytes that are taken as well.
        as_float: whether scalar images become float32.

    Raises:
        ImageError: says how much they would take.
    """
    sizes = [volume.channels * (4 if as_float and volume.kind == "scalar" else volume.array.itemsize) for volume in volumes.values()]
    needed, there = math.prod(shape) * sum(sizes) + beside, machine_memory()
    if needed > there:
        grid = grid_of(volumes)
        raise ImageError(
            f"subject {subject_name!r}: {step} would make {shape} voxels of {grid.shape}, which takes {size(needed)} of memory, where "
            f"{size(there)} are: check its numbers against the spacing, {' x '.join(f'{each:g}' for each in spacing(grid.affine))} mm"
        )


def checked_keys(keys: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """The image names that a step was given; None for every scalar image."""
    if keys is None:
        return None
    keys = (keys,) if isinstance(keys, str) else tuple(keys)
    if not keys or not all(isinstance(key, str) for key in keys):
        raise ArgumentError(f"keys must be one or more names of images, or None for every scalar image, not {keys!r}")
    return keys


def scalar_names(keys: tuple[str, ...] | None, volumes: Mapping[str, Volume], subject_name: str) -> list[str]:
    """The scalar images that a step works on.

    Raises:
        UnknownNameError: for a name that the subject lacks.
        ArgumentError: for the name of a label map.
    """
    if keys is None:
        return [key for key, volume in volumes.items() if volume.kind == "scalar"]
    for key in keys:
        if volume_named(key, volumes, subject_name).kind != "scalar":
            raise ArgumentError(f"image {key!r} of subject {subject_name!r} is a label map, which has no intensities: leave it out of keys")
    return list(keys)


def volume_named(key: str, volumes: Mapping[str, Volume], subject_name: str) -> Volume:
    """The image named `key`; raises `UnknownNameError` if there is none."""
    if key not in volumes:
        raise UnknownNameError(f"subject {subject_name!r} has no image {key!r}: it has {', '.join(map(repr, volumes))}")
    return volumes[key]
