"""NIfTI-1 and NIfTI-2 single files (.nii, .nii.gz): the header, and all voxels in one pass over the file.

What the header says is checked against the file before memory is taken for it. nibabel reads the header and the affine; the voxels
are decompressed slab by slab and put in order by a kernel meanwhile, which takes little more than decompressing alone.
"""

import hashlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from patchflow.errors import ImageError, ImageFileError
from patchflow.images.content import Content, Header
from patchflow.images.stream import ByteStream, open_stream
from patchflow.images.volume import checked_affine
from patchflow.images.voxels import check_end, read_voxels
from patchflow.types import Affine

_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_REFUSED = {1: "binary", 32: "complex64", 128: "RGB", 1536: "float128", 1792: "complex128", 2048: "complex256", 2304: "RGBA"}
_MILLIMETRES = {1: 1000.0, 3: 0.001}  # NIfTI's codes for metres and micrometres; others are millimetres or unknown
_HEADERS: dict[int, tuple[Any, int, bytes]] = {348: (nib.Nifti1Header, 352, b"n+1\0"), 540: (nib.Nifti2Header, 544, b"n+2\0")}


def read_header(path: Path) -> Header:
    """Read the header alone.

    The affine is nibabel's choice (sform, else qform, else spacing alone), in millimetres also where the header is in metres or
    micrometres. A slope of 0 or NaN means no scaling, as the standard says. A fourth axis becomes channels, and so does a fifth where
    the fourth has one element.

    Raises:
        ImageFileError: for a file that is missing, empty, not NIfTI, or whose header cannot be used or claims more than the file holds.
    """
    with open_stream(path) as stream:
        return _header(stream, path)[0]


def read(path: Path) -> Content:
    """Read a whole file to its very end, so that a gzip file's checksum is checked.

    Returns:
        The voxels in C order and the machine's byte order, and the rest of `Content`.

    Raises:
        ImageFileError: as `read_header` does, and for a file that is truncated, damaged, or longer than its header says.
    """
    digest = hashlib.sha256()
    with open_stream(path, digest) as stream:
        header, done = _header(stream, path)
        array = read_voxels(stream, header, path, done)
        check_end(stream, header, path)
    return Content(array, header.affine, header.slope, header.inter, digest.hexdigest())


def _header(stream: ByteStream, path: Path) -> tuple[Header, int]:
    """The header, and how many bytes of the stream it took."""
    start = bytearray(4)
    stream.into(memoryview(start))
    size, order = int.from_bytes(start, "little"), "<"
    if size not in _HEADERS:
        size, order = int.from_bytes(start, "big"), ">"
    if size not in _HEADERS:
        raise ImageFileError(f"{path} is not a NIfTI file: it begins with {bytes(start)!r}, not with the size of a NIfTI header")
    block = bytearray(size)
    block[:4] = start
    stream.into(memoryview(block)[4:])
    make, first, magic = _HEADERS[size]
    found = bytes(block[344:348] if size == 348 else block[4:8])
    if found in (b"ni1\0", b"ni2\0"):
        raise ImageFileError(f"{path} is the header of a .hdr/.img pair: convert the pair to one .nii.gz")
    if found != magic:
        raise ImageFileError(f"{path} is not a NIfTI file: its magic string is {found!r}, not {magic!r}; convert Analyze files to NIfTI")
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused below
            header = _parsed(make(bytes(block), order, False), order, path, first)
    except ImageFileError:
        raise
    except (nib.spatialimages.HeaderDataError, ImageError, ValueError, OverflowError) as error:
        raise ImageFileError(f"{path}: the header cannot be used: {error}") from error
    header.check_fits(stream.limit, path)
    return header, size


def _parsed(raw: Any, order: str, path: Path, first: int) -> Header:
    code = int(raw["datatype"])
    if code not in _DTYPES:
        raise ImageFileError(f"{path}: voxels of type {_REFUSED.get(code, f'code {code}')} cannot be used: convert to integers or floats")
    offset = float(raw["vox_offset"])
    if not offset.is_integer() or offset < first:
        raise ImageFileError(f"{path}: the header puts the voxels at byte {offset:g}, which must be a whole number of at least {first}")
    slope, inter = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or np.isnan(slope):
        slope, inter = 1.0, 0.0
    if not np.isfinite([slope, inter]).all():
        raise ImageFileError(f"{path}: the scaling must be finite, not scl_slope {slope} and scl_inter {inter}; set it right in the header")
    return Header(_shape(raw, path), np.dtype(order + _DTYPES[code]), _affine(raw, path), slope, inter, int(offset))


def _shape(raw: Any, path: Path) -> tuple[int, int, int, int]:
    dim = [int(n) for n in raw["dim"]]
    if not 1 <= dim[0] <= 7:
        raise ImageFileError(f"{path}: the header declares {dim[0]} axes, not 1 to 7")
    shape = dim[1 : dim[0] + 1]
    if min(shape) < 1:
        raise ImageFileError(f"{path}: the header declares shape {tuple(shape)}: every axis needs at least one voxel")
    i, j, k, t, c, *more = shape + [1] * (7 - len(shape))
    if more != [1, 1] or (t > 1 and c > 1):
        raise ImageFileError(f"{path}: shape {tuple(shape)} has more than one axis beyond the three of space: split the file along one")
    return t * c, i, j, k


def _affine(raw: Any, path: Path) -> Affine:
    for name in ("sform_code", "qform_code"):
        if int(raw[name]) not in range(6):
            raise ImageFileError(f"{path}: {name} must be 0 to 5, not {int(raw[name])}: set it right in the header")
    # A file of fewer axes says nothing of the spacing along the others. The sizes are positive, whatever their sign (nibabel does so too).
    axes = min(int(raw["dim"][0]), 3)
    raw["pixdim"][1 : axes + 1] = np.abs(raw["pixdim"][1 : axes + 1])
    raw["pixdim"][axes + 1 : 4] = 1
    if raw["pixdim"][0] == 0:
        raw["pixdim"][0] = 1  # the standard's rule for qfac
    affine = checked_affine(raw.get_best_affine(), str(path))
    affine[:3] *= _MILLIMETRES.get(int(raw["xyzt_units"]) & 7, 1.0)
    return affine
