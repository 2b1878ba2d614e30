"""FreeSurfer's MGH files (.mgh, and .mgz compressed by gzip): big-endian, with a header of 284 bytes.

Layout: https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat. nibabel makes the affine of the header.
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
from patchflow.images.voxels import read_voxels

_header_of: Any = nib.freesurfer.mghformat.MGHHeader  # its methods have no types
_OFFSET = 284
_DTYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_MOST_AFTER = 64 << 20  # what follows the voxels: scan parameters, and tags such as colour tables


def read_header(path: Path) -> Header:
    """Read the header alone; a fourth axis (frames) becomes channels.

    Raises:
        ImageFileError: for a file that is missing, empty, not MGH, or whose header cannot be used or claims more than the file holds.
    """
    with open_stream(path) as stream:
        return _header(stream, path)


def read(path: Path) -> Content:
    """Read a whole file to its very end, so that a gzip file's checksum is checked.

    Raises:
        ImageFileError: as `read_header` does, and for a file that is truncated or damaged.
    """
    digest = hashlib.sha256()
    with open_stream(path, digest) as stream:
        header = _header(stream, path)
        array = read_voxels(stream, header, path, _OFFSET)
        if not stream.run_out(_MOST_AFTER):
            raise ImageFileError(f"{path} goes on for more than {_MOST_AFTER >> 20} MiB after its voxels: write it again")
    return Content(array, header.affine, 1.0, 0.0, digest.hexdigest())


def _header(stream: ByteStream, path: Path) -> Header:
    block = bytearray(_OFFSET)
    stream.into(memoryview(block))
    with np.errstate(all="ignore"):  # what is not finite is refused below
        raw = _header_of(bytes(block), check=False)
        version, code = int(raw["version"]), int(raw["type"])
        if version != 1:
            raise ImageFileError(f"{path} is not an MGH file: it begins with version {version}, not 1")
        if code not in _DTYPES:
            raise ImageFileError(f"{path}: voxels of MGH's type {code} cannot be used: convert to one of uchar, short, int and float")
        i, j, k, c = (int(n) for n in raw["dims"])
        if min(i, j, k, c) < 1:
            raise ImageFileError(f"{path}: the header declares shape {(i, j, k, c)}: every axis needs at least one voxel")
        try:
            affine = checked_affine(raw.get_affine(), str(path))
        except ImageError as error:
            raise ImageFileError(f"{path}: the header cannot be used: {error}") from error
    header = Header((c, i, j, k), np.dtype(_DTYPES[code]), affine, offset=_OFFSET)
    header.check_fits(stream.limit, path)
    return header
