"""Processed volumes to NIfTI files: in their stored dtype, with a slope and an intercept, where values stay the same; else as float32."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from patchflow.errors import ArgumentError
from patchflow.images.volume import Volume, checked_affine
from patchflow.images.write import NIFTI_ENDINGS, Data, nifti_header, nifti_pieces, slices_of_piece, write_pieces
from patchflow.kernels.pointwise import IntensityMap, apply_map
from patchflow.types import Array

_nifti1: Any = nib.Nifti1Header  # its methods have no types


class StoredForm(NamedTuple):
    """How the voxels of a volume stand in a file: stored ones between `low` and `high`, and value = slope * stored + inter.

    Attributes:
        slope: exact in float32, in which NIfTI-1 keeps it.
        inter: likewise.
        low: stored voxels below become this; None: as they are.
        high: stored voxels above become this; None: as they are.
    """

    slope: float = 1.0
    inter: float = 0.0
    low: int | None = None
    high: int | None = None


def write_volume(path: str | os.PathLike[str], volume: Volume) -> None:
    """Write a volume as NIfTI-1, so that the values as read are the same, bit for bit in float32.

    The dtype is that of the stored voxels where `stored_form` finds a way, else float32. Slices along K are converted some at a time. The
    file appears under its name whole or not at all.

    Args:
        path: ending in .nii or .nii.gz; replaced if it is there.
        volume: (C, I, J, K); channels become the fourth axis unless there is one.

    Raises:
        ArgumentError: for another ending of `path`.
        ImageError: for a shape or affine that NIfTI-1 cannot hold.
        ImageFileError: when the disk is full or the folder cannot be written to; nothing is left behind.
    """
    path = Path(path)
    if not path.name.lower().endswith(NIFTI_ENDINGS):
        raise ArgumentError(f"{path} must end in .nii or .nii.gz")
    form = stored_form(volume)
    dtype = np.dtype(np.float32) if form is None else volume.array.dtype
    header = nifti_header(volume.shape, dtype, checked_affine(volume.affine, volume.source), path)
    write_pieces(path, header if form is None else _scaled(header, form), _pieces(volume, form))


def stored_form(volume: Volume) -> StoredForm | None:
    """How a file holds a volume's values exactly in the dtype of its stored voxels; None where it cannot.

    A gain and a bias must be float32 numbers, and limits must be values of stored voxels, or such that no voxel reaches them.
    """
    intensities = volume.map
    if volume.kind == "label" or intensities.is_identity:
        return StoredForm()
    slope, inter = intensities.gain, intensities.bias
    if intensities.curve is not None or volume.array.dtype.kind not in "iu" or not (_fits(slope) and _fits(inter)):
        return None
    limits = (intensities.low, intensities.high) if intensities.gain > 0 else (intensities.high, intensities.low)
    info = np.iinfo(volume.array.dtype)
    below = _stored_limit(limits[0], intensities, int(info.min), int(info.max))
    above = _stored_limit(limits[1], intensities, int(info.max), int(info.min))
    if below is None or above is None:
        ends = (int(volume.array.min()), int(volume.array.max()))
        values = [slope * end + inter for end in ends]
        return StoredForm(slope, inter) if intensities.low <= min(values) and max(values) <= intensities.high else None
    return StoredForm(slope, inter) if (below, above) == (info.min, info.max) else StoredForm(slope, inter, below, above)


def _fits(number: float) -> bool:
    """Whether float32 holds exactly this."""
    return float(_float32(number)) == number


def _float32(number: float) -> np.float32:
    with np.errstate(all="ignore"):  # too large is inf, which is unlike
        return np.float32(number)


def _stored_limit(limit: float, intensities: IntensityMap, end: int, other: int) -> int | None:
    """The stored voxel whose value is a limit; `end` of the dtype where that does not reach it; None if there is none."""
    gain, bias = intensities.gain, intensities.bias
    if intensities.low <= gain * end + bias <= intensities.high or not np.isfinite(limit):
        return end
    place = (limit - bias) / gain
    if not min(end, other) <= place <= max(end, other):
        return None
    stored = round(place)
    return stored if _float32(gain * stored + bias) == _float32(limit) else None


def _pieces(volume: Volume, form: StoredForm | None) -> Iterator[Data]:
    """The voxels in the file's order."""
    channels, ni, nj, nk = volume.shape
    depth = slices_of_piece(ni * nj * max(volume.array.itemsize, 4))
    for c in range(channels):
        for k in range(0, nk, depth):
            yield from nifti_pieces(_converted(volume.array[c : c + 1, :, :, k : k + depth], volume.map, form))


def _converted(stored: Array, intensities: IntensityMap, form: StoredForm | None) -> Array:
    if form is None:
        return apply_map(stored, intensities)
    if form.low is None or form.high is None:
        return stored
    clipped: Array = np.clip(stored, form.low, form.high)
    return clipped


def _scaled(header: bytes, form: StoredForm) -> bytes:
    """A header with its slope and intercept."""
    length = int.from_bytes(header[:4], "little")
    scaled = _nifti1(header[:length])
    scaled["scl_slope"], scaled["scl_inter"] = form.slope, form.inter
    return bytes(scaled.binaryblock) + header[length:]
