"""Volumes in HDF5 files: the predictions of `slabs.py`, and any dataset of three or four axes.

HDF5's own bookkeeping is parsed in a child process (`guard.py`). Voxels that lie in the file as they are, which those of predictions do,
are then read as bytes; packed ones come from the child, piece by piece.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from patchflow.errors import ImageError, ImageFileError
from patchflow.images.content import Content, Header, Source, widened
from patchflow.images.guard import ask
from patchflow.images.stream import MAX_EXPANSION, file_digest, open_image_file, open_stream
from patchflow.images.volume import checked_affine
from patchflow.images.voxels import allocate, read_voxels
from patchflow.types import Array

_PIECE_BYTES = 32 << 20
_GZIP_LIKE = {1, 2, 3, 32000}  # deflate, shuffle, checksum, LZF
_OTHERS = 1 << 16  # how far other filters shrink a block of equal voxels
_MOST_PARSED = 64 << 20


class _Found(NamedTuple):
    header: Header
    name: str
    is_raw: bool
    slices: int


def read_header(source: Source) -> Header:
    """What the file says of a dataset (I, J, K) or (C, I, J, K) of real numbers: `source.inner`, else "volume", else the only one.

    Its affine is the dataset's attribute "affine", or None.

    Raises:
        ImageFileError: for a file that is missing, damaged, not HDF5, or claims more voxels than it holds; for several datasets of which
            none is chosen.
    """
    return _find(source).header


def read(source: Source) -> Content:
    """All voxels of a dataset, and the digest of the whole file.

    Raises:
        ImageFileError: as `read_header` does, and for voxels that cannot be unpacked.
    """
    found, path = _find(source), source.path
    if not found.is_raw:
        return Content(widened(_unpacked(found, path)), found.header.affine, 1.0, 0.0, file_digest(path))
    digest = hashlib.sha256()
    with open_stream(path, digest) as stream:
        array = read_voxels(stream, found.header, path)
        stream.run_out(stream.limit)
    return Content(widened(array), found.header.affine, 1.0, 0.0, digest.hexdigest())


def _find(source: Source) -> _Found:
    path = source.path
    with open_image_file(path) as file:
        size = file.seek(0, 2)
    said = ask(path, "hdf5", min(size, _MOST_PARSED), inner=source.inner)
    shape, where = said["shape"], f"{path}: the dataset {said['name']}"
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise ImageFileError(f"{where} must be (I, J, K) or (C, I, J, K) with no empty axis, not of shape {tuple(shape)}: choose another")
    dtype = _dtype(said["dtype"], where)
    affine: Any = said["affine"]
    if affine is not None:
        try:
            affine = checked_affine(affine, where)
        except ImageError as error:
            raise ImageFileError(f"{error}") from error
    c, i, j, k = shape if len(shape) == 4 else (1, *shape)
    is_raw = said["offset"] is not None
    header = Header((c, i, j, k), dtype, affine, offset=said["offset"] or 0, order="array")
    expansion = 1 if not said["filters"] else MAX_EXPANSION if set(said["filters"]) <= _GZIP_LIKE else _OTHERS
    header.check_fits(size if is_raw else min(said["stored"], size) * expansion, path)
    return _Found(header, said["name"], is_raw, said["slices"])


def _dtype(name: str, where: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(name)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ImageFileError(f"{where} must hold integers or floats of at most 64 bits, not {name}: choose another")
    return dtype


def _unpacked(found: _Found, path: Path) -> Array:
    array = allocate(found.header, path)
    channels, slices = array.shape[:2]
    bytes_of_slice = array[0, 0].nbytes
    depth = max(_PIECE_BYTES // bytes_of_slice // found.slices, 1) * found.slices  # whole chunks, so that each is unpacked once
    for c in range(channels):
        for first in range(0, slices, depth):
            part = array[c, first : first + depth]
            justified = 4 * part.nbytes + 2 * min(found.slices, slices) * bytes_of_slice
            into = part.reshape(-1).view(np.uint8).data
            ask(path, "hdf5 voxels", justified, into, inner=found.name, channel=c, first=first, count=len(part))
    return array
