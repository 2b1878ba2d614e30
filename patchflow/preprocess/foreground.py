"""Which voxels of an image statistics are taken of."""

from collections.abc import Mapping

import numpy as np

from patchflow.errors import ArgumentError, ImageError
from patchflow.images.volume import Volume
from patchflow.preprocess.base import volume_named, where
from patchflow.preprocess.statistics import Mask


def mask_of(name: str | None, volumes: Mapping[str, Volume], subject_name: str) -> Mask | None:
    """Where the label map `name` is above 0 in any channel, (I, J, K); None for no name.

    Raises:
        UnknownNameError, ArgumentError: for the name of no image, or of a scalar image.
        ImageError: where no voxel is above 0.
    """
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
    return np.ascontiguousarray(mask)


def described(mask: str | None, above: float | None) -> str:
    """Of which voxels, for messages."""
    parts = [] if mask is None else [f"where {mask!r} is above 0"]
    parts += [] if above is None else [f"above {above:g}"]
    return (" " + " and ".join(parts)) if parts else ""


def constant(subject_name: str, key: str, volume: Volume, value: float, mask: str | None, above: float | None = None) -> ImageError:
    """The error for an image whose values are all one."""
    return ImageError(
        f"{where(subject_name, key, volume)}: the values between which it would be normalised are all {value:g}"
        f"{described(mask, above)}: leave the subject out, or give numbers (ZNormalize's mean and std, or Window) instead of taking them "
        "from the image"
    )


def nothing(subject_name: str, key: str, volume: Volume, mask: str | None, above: float | None) -> ImageError:
    """The error for an image none of whose voxels count."""
    return ImageError(
        f"{where(subject_name, key, volume)}: there is no voxel{described(mask, above)}, so that nothing can be measured: choose another "
        "threshold, or leave the subject out"
    )
