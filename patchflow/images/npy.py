"""NumPy's .npy files, which hold an array and nothing of where its voxels lie (format: `numpy.lib.format`)."""

import hashlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from patchflow.errors import ImageFileError
from patchflow.images.content import Content, Header, Order, widened
from patchflow.images.stream import ByteStream, open_stream
from patchflow.images.voxels import check_end, read_voxels

_MAGIC = b"\x93NUMPY"
_PARSERS: dict[int, tuple[int, Any]] = {1: (2, np.lib.format.read_array_header_1_0), 2: (4, np.lib.format.read_array_header_2_0)}
_MOST_TEXT = 10_000  # what NumPy itself trusts


def read_header(path: Path) -> Header:
    """Read the header alone: an array (I, J, K) or (C, I, J, K) of real numbers, in C or Fortran order. Its affine is None.

    Raises:
        ImageFileError: for a file that is missing, empty, not .npy, or whose header cannot be used or claims more than the file holds.
    """
    with open_stream(path) as stream:
        return _header(stream, path)


def read(path: Path) -> Content:
    """Read a whole file.

    Raises:
        ImageFileError: as `read_header` does, and for a file that is longer than its header says.
    """
    digest = hashlib.sha256()
    with open_stream(path, digest) as stream:
        header = _header(stream, path)
        array = read_voxels(stream, header, path, header.offset)
        check_end(stream, header, path)
    return Content(widened(array), None, 1.0, 0.0, digest.hexdigest())


def _header(stream: ByteStream, path: Path) -> Header:
    start = bytearray(8)
    stream.into(memoryview(start))
    if start[:6] != _MAGIC or start[6] not in _PARSERS or start[7] != 0:
        raise ImageFileError(f"{path} is not a .npy file of version 1.0 or 2.0: it begins with {bytes(start)!r}; write it with numpy.save")
    width, parse = _PARSERS[start[6]]
    length = bytearray(width)
    stream.into(memoryview(length))
    size = int.from_bytes(length, "little")
    if size > _MOST_TEXT:
        raise ImageFileError(f"{path}: the header claims {size} bytes of text, and an array's has at most {_MOST_TEXT}: write it again")
    text = bytearray(size)
    stream.into(memoryview(text))
    try:
        shape, turned, dtype = parse(io.BytesIO(bytes(length + text)), max_header_size=_MOST_TEXT)
    except Exception as error:  # text is evaluated as a literal, which raises errors of many kinds
        raise ImageFileError(f"{path}: the header cannot be used: {str(error)[:200]}; write it again with numpy.save") from error
    header = _checked(shape, turned, dtype, path, 8 + width + size)
    header.check_fits(stream.limit, path)
    return header


def _checked(shape: Any, turned: bool, dtype: np.dtype[Any], path: Path, offset: int) -> Header:
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or dtype.hasobject:
        raise ImageFileError(f"{path}: voxels must be integers or floats of at most 64 bits, not {dtype}")
    if len(shape) not in (3, 4) or math.prod(shape) < 1 or min(shape) < 1:
        raise ImageFileError(f"{path}: an array must be (I, J, K) or (C, I, J, K) with no empty axis, not of shape {shape}")
    c, i, j, k = shape if len(shape) == 4 else (1, *shape)
    order: Order = "array" if not turned else "interleaved" if len(shape) == 4 else "planes"
    return Header((c, i, j, k), dtype, None, offset=offset, order=order)
