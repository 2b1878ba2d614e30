"""Volumes to NIfTI files, whole or not at all; the one home of their header and of how their voxels are encoded."""

import io
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

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
_PIECE_BYTES = 16 << 20
_PACK_BYTES = 1 << 20

NIFTI_ENDINGS = (".nii", ".nii.gz")
Data = bytes | memoryview


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
    if not path.name.lower().endswith(NIFTI_ENDINGS):
        raise ArgumentError(f"{path} must end in .nii or .nii.gz")
    volume = _converted(_four(array, path), dtype, path)
    header = nifti_header(volume.shape, volume.dtype, checked_affine(affine, str(path)), path)
    write_pieces(path, header, nifti_pieces(volume))


def nifti_header(shape: tuple[int, ...], dtype: Any, affine: Affine, path: Path) -> bytes:
    """What stands before the voxels of a single NIfTI-1 file.

    Args:
        shape: (C, I, J, K); channels become the fourth axis unless there is one.
        dtype: of the voxels: integers or floats of 1, 2, 4 or 8 bytes, but not float16.
        affine: 4x4 float64, voxel index to RAS+ millimetres.
        path: the file, for errors.

    Raises:
        ImageError: for more voxels along an axis than NIfTI-1 holds, or an affine that does not fit float32.
    """
    if max(shape) > _MOST_VOXELS:
        raise ImageError(f"{path}: NIfTI-1 holds at most {_MOST_VOXELS} voxels along an axis, not shape {shape}: write it in parts")
    if np.abs(affine).max() > np.finfo(np.float32).max / 2:  # half, as the spacing is up to 3**0.5 times the greatest
        raise ImageError(f"{path}: the affine does not fit NIfTI's float32: {affine.tolist()}")
    channels, *space = shape
    header = _nifti1(endianness="<")
    header.set_data_shape(space if channels == 1 else [*space, channels])
    header["datatype"], header["bitpix"] = _CODES[dtype.str[1:]], dtype.itemsize * 8
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = _OFFSET, 1, 0
    header.set_xyzt_units("mm")
    header.set_sform(affine, _SCANNER)
    header.set_qform(affine, _SCANNER)  # also sets the spacing
    if not np.allclose(header.get_qform(), affine, rtol=1e-4, atol=1e-3):
        header["qform_code"] = _UNKNOWN  # a quaternion cannot shear, and readers that prefer it would misplace the image
    return bytes(header.binaryblock) + bytes(4)  # no extensions


def nifti_pieces(volume: Array) -> Iterator[memoryview]:
    """The voxels of (C, I, J, K) as NIfTI files hold them, little-endian and I fastest, some slices along K at a time."""
    channels, ni, nj, nk = volume.shape
    depth = slices_of_piece(ni * nj * volume.dtype.itemsize)
    little = volume.dtype.newbyteorder("<")
    for c in range(channels):
        for k in range(0, nk, depth):
            part = np.ascontiguousarray(volume[c, :, :, k : k + depth])
            turned = np.empty(part.shape[::-1], volume.dtype)
            slab_to_volume(part, turned, 0)
            yield turned.astype(little, copy=False).data.cast("B")


def slices_of_piece(size: int) -> int:
    """How many slices of `size` bytes are written together, which bounds the memory."""
    return max(_PIECE_BYTES // size, 1)


def write_pieces(path: Path, header: bytes, pieces: Iterable[Data]) -> None:
    """Write a file of a header and pieces of voxels, packed by gzip if its name ends in .gz, whole or not at all.

    Raises:
        ImageFileError: when the disk is full or the folder cannot be written to; nothing is left behind.
    """
    content: Iterator[Data] = chain([header], pieces)
    if path.name.lower().endswith(".gz"):
        content = _packed(content)
    with atomic_file(path) as file:
        for data in content:
            write_all(file, data)


def _packed(content: Iterator[Data]) -> Iterator[bytes]:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # its header holds no time: same volume, same bytes
    for piece in content:
        for start in range(0, len(piece), _PACK_BYTES):  # what cannot be compressed takes as much memory again
            yield packer.compress(piece[start : start + _PACK_BYTES])
    yield packer.flush()


def write_all(file: io.FileIO, data: Data) -> None:
    """Write all of `data` to an unbuffered file, which may take only a part at a time.

    Raises:
        OSError: when the disk is full.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def atomic_file(path: Path) -> Iterator[io.FileIO]:
    """An unbuffered file that appears under `path`, whole and flushed to disk, when the block ends, and not at all when it raises.

    Raises:
        ImageFileError: when the file cannot be written.
    """
    with naming(path), whole_file(path) as beside, open(beside, "xb", buffering=0) as file:
        yield file


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns what the system says of a write into an `ImageFileError` that names the file."""
    try:
        yield
    except ImageFileError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageFileError(f"{path} cannot be written ({reason}): check that its folder is there, and has room") from error


def _four(array: Any, path: Path) -> Array:
    volume = as_array(array)
    if volume.ndim not in (3, 4) or volume.size == 0:
        raise ImageError(f"{path}: a volume must be (I, J, K) or (C, I, J, K) with no empty axis, not of shape {volume.shape}")
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
