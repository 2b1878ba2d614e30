"""Volumes to NIfTI files, whole or not at all."""

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np

from patchflow.errors import ArgumentError, ImageError, ImageFileError
from patchflow.files import whole_file
from patchflow.images.volume import as_array, checked_affine
from patchflow.kernels.transpose import slab_to_volume
from patchflow.types import Affine, Array

_nifti1: Any = nib.Nifti1Header  # its methods have no types
_CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280}
_OFFSET = 352
_SCANNER, _UNKNOWN = 1, 0
_LEVEL = 1  # as nibabel: higher levels take several times as long for a few percent
_MOST_VOXELS = 2**15 - 1
_SLAB_BYTES = 16 << 20


def write_nifti(path: str | os.PathLike[str], array: Any, affine: Any, dtype: Any = None) -> None:
    """Write a volume as NIfTI-1, in millimetres, with sform and (where it has no shear) qform set to `affine`.

    The file is written beside its final name, flushed to disk and renamed, so that `path` never holds part of a volume.

    Args:
        path: ending in .nii or .nii.gz; replaced if it is there.
        array: array or tensor (I, J, K) or (C, I, J, K) of real numbers; channels become the fourth axis unless there is one.
            Integers and floats keep their dtype; bool becomes uint8, float16 float32.
        affine: 4x4, voxel index to RAS+ millimetres.
        dtype: convert to this first; None keeps the array's.

    Raises:
        ArgumentError: for another ending of `path`, or a dtype that NIfTI lacks.
        ImageError: for an array or affine that cannot be written, or values that `dtype` does not hold.
        ImageFileError: when the disk is full or the folder cannot be written to; nothing is left behind.
    """
    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise ArgumentError(f"{path} must end in .nii or .nii.gz")
    volume = _converted(_four(array, path), dtype, path)
    header = _header(volume, checked_affine(affine, str(path)), path)
    with atomic_file(path) as file:
        if path.name.lower().endswith(".gz"):
            packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # its header holds no time: same volume, same bytes
            _write(volume, header, lambda data: file.write(packer.compress(data)))
            file.write(packer.flush())
        else:
            _write(volume, header, file.write)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under `path`, whole and flushed to disk, when the block ends, and not at all when it raises.

    Raises:
        ImageFileError: when the file cannot be written.
    """
    try:
        with whole_file(path) as beside, open(beside, "xb") as file:
            yield file
    except ImageFileError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageFileError(f"{path} cannot be written ({reason}): check that its folder is there, and has room") from error


def _four(array: Any, path: Path) -> Array:
    volume = as_array(array)
    if volume.ndim not in (3, 4) or volume.size == 0:
        raise ImageError(f"{path}: a volume must be (I, J, K) or (C, I, J, K) with no empty axis, not of shape {volume.shape}")
    if max(volume.shape) > _MOST_VOXELS:
        raise ImageError(f"{path}: NIfTI-1 holds at most {_MOST_VOXELS} voxels along an axis, not shape {volume.shape}: write it in parts")
    return volume if volume.ndim == 4 else volume[None]


def _converted(array: Array, dtype: Any, path: Path) -> Array:
    if dtype is None:
        return array
    wanted = np.dtype(dtype).newbyteorder("=")
    if wanted.str[1:] not in _CODES:
        raise ArgumentError(f"{path}: NIfTI has no voxels of type {wanted}: give dtype=, for example 'float32'")
    if wanted.kind in "iu":
        info = np.iinfo(wanted)
        whole = array.dtype.kind in "iu" or bool((np.isfinite(array) & (array == np.rint(array))).all())
        if not whole or int(array.min()) < info.min or int(array.max()) > info.max:
            raise ImageError(f"{path}: {wanted} holds integers from {info.min} to {info.max}, and not all values are: round or scale them")
    with np.errstate(over="ignore"):
        converted: Array = array.astype(wanted, copy=False)
    if wanted.kind == "f" and (np.isinf(converted) & np.isfinite(array)).any():
        raise ImageError(f"{path}: {wanted} holds numbers up to {np.finfo(wanted).max:.3g}, and not all values are: rescale them")
    return converted


def _header(volume: Array, affine: Affine, path: Path) -> bytes:
    channels, *space = volume.shape
    header = _nifti1(endianness="<")
    header.set_data_shape(space if channels == 1 else [*space, channels])
    header["datatype"], header["bitpix"] = _CODES[volume.dtype.str[1:]], volume.dtype.itemsize * 8
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = _OFFSET, 1, 0
    header.set_xyzt_units("mm")
    header.set_sform(affine, _SCANNER)
    header.set_qform(affine, _SCANNER)  # also sets the spacing
    if not np.allclose(header.get_qform(), affine, rtol=1e-4, atol=1e-3):
        header["qform_code"] = _UNKNOWN  # a quaternion cannot shear, and readers that prefer it would misplace the image
    if not np.isfinite(header.get_sform()).all():
        raise ImageError(f"{path}: the affine does not fit NIfTI's float32: {affine.tolist()}")
    return bytes(header.binaryblock) + bytes(4)  # no extensions


def _write(volume: Array, header: bytes, write: Callable[[Any], object]) -> None:
    """Header and voxels, I fastest, a slab of slices along K at a time."""
    write(header)
    channels, ni, nj, nk = volume.shape
    depth = min(nk, max(_SLAB_BYTES // (ni * nj * volume.dtype.itemsize), 1))
    little = volume.dtype.newbyteorder("<")
    for c in range(channels):
        for k in range(0, nk, depth):
            part = np.ascontiguousarray(volume[c, :, :, k : k + depth])
            slab = np.empty(part.shape[::-1], volume.dtype)
            slab_to_volume(part, slab, 0)
            write(slab.astype(little, copy=False).data.cast("B"))
