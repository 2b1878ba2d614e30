"""Spatial steps that take and add whole voxels: crops and margins."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from patchflow.errors import ArgumentError, ImageError
from patchflow.geometry.location import Outside, PatchLocation
from patchflow.images.volume import Volume
from patchflow.kernels.pointwise import apply_map
from patchflow.preprocess.base import SpatialStep, check_room, grid_of, volume_named, where
from patchflow.preprocess.fields import chosen, number, set_fields
from patchflow.preprocess.moves import window_of
from patchflow.types import Int3, SizeLike, int3

_SLAB = 1 << 20
_OUTSIDE = ("constant", "border", "reflect")


@dataclass(frozen=True)
class CropToForeground(SpatialStep):
    """Cut all images to the smallest box that holds the foreground.

    Args:
        image: the image that tells: voxels above the threshold in any of its channels are foreground.
        threshold: in the image's values as read.
        margin: voxels kept around the box, an int or three; the volume's border limits it.

    Raises:
        ImageError: when applied to an image without foreground.
    """

    image: str
    threshold: float = 0.0
    margin: SizeLike = 0

    def __post_init__(self) -> None:
        if not isinstance(self.image, str):
            raise ArgumentError(f"image must be the name of one image, not {self.image!r}")
        set_fields(self, threshold=number(self.threshold, "threshold"), margin=int3(self.margin, "margin", minimum=0))

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Find the box and cut the volumes."""
        volume = volume_named(self.image, volumes, subject_name)
        found = foreground_box(volume, self.threshold)
        if found is None:
            raise ImageError(
                f"{where(subject_name, self.image, volume)}: no voxel is above {self.threshold:g}: choose another threshold, or leave the "
                "subject out"
            )
        box = found.grown(int3(self.margin, "margin", minimum=0)).common(PatchLocation((0, 0, 0), volume.spatial_shape))
        assert box is not None
        return _cut(volumes, box, subject_name, type(self).__name__)


@dataclass(frozen=True)
class Pad(SpatialStep):
    """Add voxels around all images.

    Args:
        before: voxels added before the first along each axis, an int or three.
        after: voxels added after the last; None for as many as before.
        outside: what they are: "constant", "border" (the nearest voxel of the image) or "reflect" (d c b | a b c d | c b a).
        fill: for "constant", the value of scalar images as read.
        label_fill: for "constant", the label.
    """

    needs_finite = False

    before: SizeLike
    after: SizeLike | None = None
    outside: Outside = "constant"
    fill: float = 0.0
    label_fill: int = 0

    def __post_init__(self) -> None:
        after = self.before if self.after is None else self.after
        set_fields(self, before=int3(self.before, "before", minimum=0), after=int3(after, "after", minimum=0))
        _read_fills(self, self.fill, self.label_fill, self.outside)

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Add the voxels."""
        before, after = int3(self.before, "before", minimum=0), int3(self.after or 0, "after", minimum=0)
        i, j, k = (a + n + b for a, n, b in zip(before, grid_of(volumes).shape, after, strict=True))
        box = PatchLocation((-before[0], -before[1], -before[2]), (i, j, k))
        return _cut(volumes, box, subject_name, type(self).__name__, self.outside, self.fill, self.label_fill)


@dataclass(frozen=True)
class CropOrPad(SpatialStep):
    """Give all images one size: along each axis the middle is cut out, or voxels are added on both sides.

    Where the difference is odd, the side before the first voxel loses or gains the smaller half.

    Args:
        size: voxels, an int or three.
        outside, fill, label_fill: see `Pad`.
    """

    needs_finite = False

    size: SizeLike
    outside: Outside = "constant"
    fill: float = 0.0
    label_fill: int = 0

    def __post_init__(self) -> None:
        set_fields(self, size=int3(self.size, "size"))
        _read_fills(self, self.fill, self.label_fill, self.outside)

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Cut or pad the volumes."""
        box = _middle(grid_of(volumes).shape, int3(self.size, "size"))
        return _cut(volumes, box, subject_name, type(self).__name__, self.outside, self.fill, self.label_fill)


@dataclass(frozen=True)
class EnsureMultiple(SpatialStep):
    """Pad or crop all images so that each axis has a multiple of a number of voxels, as networks that halve their input ask for.

    Voxels are added or taken on both sides, as by `CropOrPad`.

    Args:
        n: the number, an int or three.
        method: "pad" to the next larger multiple, or "crop" to the next smaller one (but to `n` where an axis is smaller).
        outside, fill, label_fill: see `Pad`.
    """

    needs_finite = False

    n: SizeLike
    method: Literal["pad", "crop"] = "pad"
    outside: Outside = "constant"
    fill: float = 0.0
    label_fill: int = 0

    def __post_init__(self) -> None:
        set_fields(self, n=int3(self.n, "n"))
        chosen(self.method, "method", ("pad", "crop"))
        _read_fills(self, self.fill, self.label_fill, self.outside)

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Pad or crop the volumes."""
        shape, multiple = grid_of(volumes).shape, int3(self.n, "n")
        pad = self.method == "pad"
        i, j, k = (-(-size // n) * n if pad else max(size // n, 1) * n for size, n in zip(shape, multiple, strict=True))
        return _cut(volumes, _middle(shape, (i, j, k)), subject_name, type(self).__name__, self.outside, self.fill, self.label_fill)


def foreground_box(volume: Volume, threshold: float) -> PatchLocation | None:
    """The smallest box that holds all voxels that read above `threshold`, in any channel; None where there are none."""
    along_i = np.zeros(volume.spatial_shape[0], np.bool_)
    plane = np.zeros(volume.spatial_shape[1:], np.bool_)
    step = max(1, _SLAB // max(1, plane.size))
    for channel in volume.array[:, None]:
        for first in range(0, len(along_i), step):
            slab = channel[:, first : first + step]
            above = (slab if volume.kind == "label" else apply_map(slab, volume.map))[0] > threshold
            along_i[first : first + step] |= above.any(axis=(1, 2))
            plane |= above.any(axis=0)
    ends = []
    for line in (along_i, plane.any(axis=1), plane.any(axis=0)):
        places = np.flatnonzero(line)
        if not places.size:
            return None
        ends.append((int(places[0]), int(places[-1]) + 1))
    (a, b), (c, d), (e, f) = ends
    return PatchLocation((a, c, e), (b - a, d - c, f - e))


def _middle(shape: Int3, size: Int3) -> PatchLocation:
    """The window of `size` about the middle of a volume."""
    i, j, k = ((n - s) // 2 if n >= s else -((s - n) // 2) for n, s in zip(shape, size, strict=True))
    return PatchLocation((i, j, k), size)


def _cut(
    volumes: dict[str, Volume],
    box: PatchLocation,
    subject_name: str,
    step: str,
    outside: Outside = "constant",
    fill: float = 0.0,
    label_fill: int = 0,
) -> dict[str, Volume]:
    check_room(volumes, box.size, subject_name, step)
    for key, volume in volumes.items():
        value = label_fill if volume.kind == "label" else fill
        volumes[key] = window_of(volume, box, outside, value, where(subject_name, key, volume))
    return volumes


def _read_fills(step: SpatialStep, fill: float, label_fill: int, outside: str) -> None:
    chosen(outside, "outside", _OUTSIDE)
    label = number(label_fill, "label_fill")
    if label != int(label):
        raise ArgumentError(f"label_fill must be an integer, not {label_fill!r}")
    set_fields(step, fill=number(fill, "fill"), label_fill=int(label))
