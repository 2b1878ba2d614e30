"""Spatial steps that turn and resample the voxel grid."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt

from patchflow.errors import ArgumentError, ImageError
from patchflow.geometry.affine import spacing as spacing_of
from patchflow.geometry.space import PARALLEL, VoxelGrid, reaches, voxel_map, whole_move
from patchflow.images.image import Image, ScalarImage
from patchflow.images.volume import Volume
from patchflow.preprocess.base import SpatialStep, check_room, grid_of, where
from patchflow.preprocess.fields import chosen, number, set_fields
from patchflow.preprocess.interpolate import Interpolated, interpolated, smoothing_bytes
from patchflow.preprocess.moves import turned
from patchflow.types import Affine, Int3, SizeLike, int3

_CLEAR = 1e-3
"""Axes shrink if voxels become larger by more than this share: spacings in headers are rounded."""


@dataclass(frozen=True)
class ToCanonical(SpatialStep):
    """Turn the voxel axes so that I, J and K run as near as they can to right, anterior and superior (RAS+).

    Axes are permuted and mirrored, voxels move and no value changes; an oblique volume stays oblique. The same as
    `nibabel.as_closest_canonical`.
    """

    needs_finite = False

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Turn all volumes as the first one's affine asks for."""
        grid = grid_of(volumes)
        orientation = nib.orientations.io_orientation(grid.affine)  # type: ignore[no-untyped-call]
        if np.isnan(orientation).any():
            raise ImageError(f"subject {subject_name!r}: its affine leaves an axis without direction: {grid.affine.tolist()}")
        if (orientation == [[0, 1], [1, 1], [2, 1]]).all():
            return volumes
        targets = orientation[:, 0].astype(int).tolist()
        i, j, k = (targets.index(axis) for axis in range(3))
        a, b, c = (bool(orientation[axis, 1] < 0) for axis in (i, j, k))
        matrix = _turning((i, j, k), (a, b, c), grid.shape)
        return {key: turned(volume, (i, j, k), (a, b, c), matrix) for key, volume in volumes.items()}


@dataclass(frozen=True)
class Resample(SpatialStep):
    """Interpolate all images on another voxel grid: of a spacing, of a shape, or that of a reference.

    With `spacing`, the volume's centre stays where it is, and each axis has as many voxels as come nearest to its extent. With `shape`, the
    volume's borders stay. An axis of one voxel, as of a 2D image, stays unless `shape` or `like` says otherwise. Points beyond the
    outermost voxel centres take the nearest point between them. With `like`, points that lie outside the volume (further than half a voxel
    from its outermost voxel centres) get the fill.

    Interpolated scalar images are stored as float32 values; those whose voxels only move (nearest neighbours, or a reference grid that
    differs by whole voxels) keep their dtype. Cubic interpolation may overshoot the range of the image.

    Where an axis shrinks, scalar images are smoothed along it before they are interpolated linearly or cubically, so that structures finer
    than the new voxels do not alias: by a Gaussian of variance (k^2 - 1) / (8 ln 2) voxels, k the ratio of the spacings (Cardoso et al.,
    "Scale factor point spread function matching", MICCAI 2015); the image goes on beyond its border with its border's values.

    Args:
        spacing: millimetres between voxels along I, J, K as they are when the step comes (`ToCanonical` before it makes them right,
            anterior, superior): a number or three.
        shape: voxels, an int or three.
        like: a path, an image, or a `patchflow.geometry.space.VoxelGrid`; its header is read as the step is made.
        image_interpolation: "linear", "cubic" (the cubic B-spline through the voxels) or "nearest".
        label_interpolation: "nearest", or "linear": the arg-max of linearly interpolated one-hot labels.
        anti_alias: smooth where an axis shrinks.
        thick_ratio: nnU-Net's treatment of thick slices, for which it takes 3: where the largest spacing is more than this many times the
            smallest, before or (if not before) afterwards, and one axis alone has it, slices are interpolated in their plane, and along
            that axis the nearest slice is taken, unsmoothed (Isensee et al., Nature Methods 18, 2021). None: all axes alike.
        fill: of scalar images outside the volume, as read.
        label_fill: of label maps.

    Raises:
        ArgumentError: unless exactly one of spacing, shape and like is given; for what none of them can be.
        ImageFileError: for a reference that cannot be read.
        ImageError: when applied with `thick_ratio` to an image whose axes are not parallel to those of the reference, to an image in which
            no voxel of the reference lies, or where the result would not fit into memory.
    """

    spacing: float | Sequence[float] | None = None
    shape: SizeLike | None = None
    like: Any = None
    image_interpolation: Literal["linear", "cubic", "nearest"] = "linear"
    label_interpolation: Literal["nearest", "linear"] = "nearest"
    anti_alias: bool = True
    thick_ratio: float | None = None
    fill: float = 0.0
    label_fill: int = 0

    def __post_init__(self) -> None:
        if [self.spacing, self.shape, self.like].count(None) != 2:
            raise ArgumentError("Resample needs exactly one of spacing, shape and like")
        chosen(self.image_interpolation, "image_interpolation", ("linear", "cubic", "nearest"))
        chosen(self.label_interpolation, "label_interpolation", ("nearest", "linear"))
        set_fields(self, fill=number(self.fill, "fill"), anti_alias=bool(self.anti_alias))
        if self.spacing is not None:
            set_fields(self, spacing=_spacings(self.spacing))
        if self.shape is not None:
            set_fields(self, shape=int3(self.shape, "shape"))
        if self.like is not None:
            set_fields(self, like=_reference(self.like))
        if self.thick_ratio is not None:
            set_fields(self, thick_ratio=number(self.thick_ratio, "thick_ratio", above=1))
        if number(self.label_fill, "label_fill") != int(self.label_fill):
            raise ArgumentError(f"label_fill must be an integer, not {self.label_fill!r}")

    def to_dict(self) -> dict[str, Any]:
        """The parameters; a reference by its shape and affine, wherever it stood."""
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return {"step": "Resample", **fields, "like": None if self.like is None else self.like.to_dict()}

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Interpolate all volumes through one map of voxels, that of the first."""
        grid = grid_of(volumes)
        matrix, shape = self._map(grid)
        if shape == grid.shape and whole_move(matrix, shape) == ((0, 1, 2), (1, 1, 1), (0, 0, 0)):
            return volumes  # it is there already
        how = self._how(grid, matrix, shape, subject_name)
        check_room(volumes, shape, subject_name, "Resample", smoothing_bytes(volumes.values(), how), as_float=how.image != "nearest")
        if self.like is not None and not reaches(matrix, shape, grid.shape):
            raise ImageError(
                f"subject {subject_name!r}: no voxel of the reference lies in it, so that all would be fill: are both in one space? "
                f"Their centres are at {_centre(grid)} and {_centre(self.like)} mm"
            )
        for key, volume in volumes.items():
            value = self.label_fill if volume.kind == "label" else self.fill
            volumes[key] = replace(interpolated(volume, how, value, where(subject_name, key, volume)), affine=volume.affine @ matrix)
        return volumes

    def _map(self, grid: VoxelGrid) -> tuple[Affine, Int3]:
        """4x4, new voxel to old voxel; and the new shape."""
        if self.like is not None:
            return voxel_map(grid, self.like), self.like.shape
        before = spacing_of(grid.affine)
        if self.spacing is not None:
            wanted: Any = self.spacing
            counts = [1 if n == 1 else max(1, round(n * old / new)) for n, old, new in zip(grid.shape, before, wanted, strict=True)]
            steps = [1.0 if n == 1 else new / old for n, old, new in zip(grid.shape, before, wanted, strict=True)]
        else:
            counts = list(int3(self.shape or 1, "shape"))
            steps = [n / count for n, count in zip(grid.shape, counts, strict=True)]
        matrix = np.diag([*steps, 1.0])
        matrix[:3, 3] = [
            ((n - 1) - step * (count - 1)) / 2 for n, step, count in zip(grid.shape, steps, counts, strict=True)
        ]  # the centre stays
        return matrix, (counts[0], counts[1], counts[2])

    def _how(self, grid: VoxelGrid, matrix: Affine, shape: Int3, subject_name: str) -> Interpolated:
        moves = whole_move(matrix, shape) is not None
        factors = np.sqrt((matrix[:3, :3] ** 2).sum(axis=1))  # how far the new voxels reach along each old axis, in old voxels
        stds = [math.sqrt((k * k - 1) / (8 * math.log(2))) if self.anti_alias and k > 1 + _CLEAR and not moves else 0.0 for k in factors]
        thick = None if moves else self._thick(grid, matrix, shape, subject_name)
        if thick is not None:
            stds[thick] = 0.0
        return Interpolated(
            matrix,
            shape,
            "nearest" if moves else self.image_interpolation,
            "nearest" if moves else self.label_interpolation,
            (stds[0], stds[1], stds[2]),
            thick,
        )

    def _thick(self, grid: VoxelGrid, matrix: Affine, shape: Int3, subject_name: str) -> int | None:
        """The axis along which the nearest slice is taken."""
        if self.thick_ratio is None:
            return None
        axis = _thick_axis(spacing_of(grid.affine), self.thick_ratio)
        if axis is None:
            axis = _thick_axis(spacing_of(grid.affine @ matrix), self.thick_ratio)
        astray = np.abs(matrix[:3, :3] * (1 - np.eye(3))) @ (np.array(shape) - 1.0)
        if axis is not None and astray.max() > PARALLEL:
            raise ImageError(
                f"subject {subject_name!r}: the reference's axes are not parallel to the image's, so that it has no slices to take the "
                "nearest of: leave thick_ratio out, or put ToCanonical first"
            )
        return axis


def _thick_axis(spacings: npt.NDArray[np.float64], ratio: float) -> int | None:
    """The one axis of largest spacing, if that is more than `ratio` times the smallest."""
    largest = np.flatnonzero(spacings >= spacings.max() * (1 - 1e-6))
    return int(largest[0]) if spacings.max() > ratio * spacings.min() and len(largest) == 1 else None


def _centre(grid: VoxelGrid) -> str:
    centre = grid.affine[:3] @ [*((n - 1) / 2 for n in grid.shape), 1]
    return f"({', '.join(f'{part:.1f}' for part in centre)})"


def _turning(axes: Int3, mirrored: tuple[bool, bool, bool], shape: Int3) -> Affine:
    """4x4: voxel of the turned volume to voxel of a volume of `shape`."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for new, (old, flip) in enumerate(zip(axes, mirrored, strict=True)):
        matrix[old, new] = -1 if flip else 1
        matrix[old, 3] = shape[old] - 1 if flip else 0
    return matrix


def _spacings(value: Any) -> tuple[float, float, float]:
    parts = tuple(value) if isinstance(value, (list, tuple, np.ndarray)) else (value,) * 3
    if len(parts) != 3:
        raise ArgumentError(f"spacing must be a number or three (I, J, K), not {value!r}: it has {len(parts)} values")
    i, j, k = (number(part, "spacing", above=0) for part in parts)
    return i, j, k


def _reference(like: Any) -> VoxelGrid:
    if isinstance(like, (str, os.PathLike)):
        like = ScalarImage(Path(like))
    if isinstance(like, Image):
        i, j, k = like.shape[1:]
        like = VoxelGrid((i, j, k), like.affine)
    if not isinstance(like, VoxelGrid):
        raise ArgumentError(f"like must be a path, an image or a VoxelGrid, not {like!r}")
    like.check("like")
    return like
