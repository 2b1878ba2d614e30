"""The voxels of a stream to an array (C, I, J, K), slab by slab: decompressed by one thread and put in order by another meanwhile."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from patchflow.errors import ImageFileError
from patchflow.images.content import Header
from patchflow.images.stream import ByteStream
from patchflow.kernels.transpose import TILE_SLICES, slab_to_volume
from patchflow.types import Array

_SLAB_BYTES = 16 << 20


def read_voxels(stream: ByteStream, header: Header, path: Path, done: int = 0) -> Array:
    """The voxels of a file whose header was checked against its size.

    Args:
        stream: the content, of which `done` bytes were taken.
        header: where the voxels begin and how they lie.
        path: the file, for errors.
        done: bytes taken of the stream.

    Returns:
        (C, I, J, K), C-contiguous, in the machine's byte order.

    Raises:
        ImageFileError: for a file that is truncated or damaged, or voxels that do not fit into memory.
    """
    skip(stream, header.offset - done)
    array = allocate(header, path)
    if header.order == "array":
        stream.into(array.reshape(-1).view(np.uint8).data)
        if not header.dtype.isnative:
            array.byteswap(inplace=True)
    elif header.order == "planes":
        _fill_planes(array, stream.into, header.dtype)
    else:
        _fill_interleaved(array, stream, header.dtype)
    return array


def allocate(header: Header, path: Path) -> Array:
    """An empty array for the voxels; raises `ImageFileError` when memory is too small."""
    try:
        return np.empty(header.shape, header.dtype.newbyteorder("="))
    except MemoryError as error:
        raise ImageFileError(f"{path} holds {header.nbytes / 2**30:.1f} GiB of voxels, which do not fit into memory") from error


def check_end(stream: ByteStream, header: Header, path: Path) -> None:
    """Raise `ImageFileError` unless the stream ends with the voxels; a gzip file's checksum has been checked then."""
    if not stream.at_end():
        raise ImageFileError(f"{path} goes on after the {header.nbytes} bytes of voxels that its header declares: write it again")


def skip(stream: ByteStream, count: int) -> None:
    """Pass over `count` bytes."""
    scratch = memoryview(bytearray(min(count, 1 << 16)))
    while count:
        part = min(count, len(scratch))
        stream.into(scratch[:part])
        count -= part


def slab_depth(slices: int, slice_bytes: int) -> int:
    """How many of `slices` slices are read together, which bounds the memory."""
    depth = min(slices, max(_SLAB_BYTES // slice_bytes, 1))
    return depth - depth % TILE_SLICES if depth > TILE_SLICES else depth


def _fill_planes(array: Array, into: Callable[[memoryview], None], dtype: np.dtype[Any]) -> None:
    """Read slabs of slices in turn into two buffers, while a thread puts the last one in its place in `array`."""
    channels, ni, nj, nk = array.shape
    slice_bytes = ni * nj * dtype.itemsize
    depth = slab_depth(nk, slice_bytes)
    slabs = [(c, k, min(depth, nk - k)) for c in range(channels) for k in range(0, nk, depth)]
    buffers = [np.empty(depth * slice_bytes, np.uint8) for _ in slabs[:2]]

    def place(buffer: Array, c: int, k: int, count: int) -> None:
        slab = buffer[: count * slice_bytes].view(dtype)
        if not dtype.isnative:
            slab = slab.byteswap(inplace=True).view(array.dtype)
        slab_to_volume(slab.reshape(count, nj, ni), array[c], k)

    if len(slabs) == 1:
        into(buffers[0].data)
        place(buffers[0], *slabs[0])
        return
    with ThreadPoolExecutor(1, thread_name_prefix="patchflow-voxels") as pool:
        placing: list[Future[None] | None] = [None, None]
        for number, (c, k, count) in enumerate(slabs):
            buffer, last = buffers[number % 2], placing[number % 2]
            if last is not None:
                last.result()  # the buffer is free again
            into(buffer.data[: count * slice_bytes])
            placing[number % 2] = pool.submit(place, buffer, c, k, count)
        for future in placing:
            if future is not None:
                future.result()


def _fill_interleaved(array: Array, stream: ByteStream, dtype: np.dtype[Any]) -> None:
    channels, ni, nj, nk = array.shape
    depth = slab_depth(nk, channels * ni * nj * dtype.itemsize)
    for k in range(0, nk, depth):
        slab = np.empty((min(depth, nk - k), nj, ni, channels), dtype)
        stream.into(slab.reshape(-1).view(np.uint8).data)
        array[..., k : k + depth] = slab.transpose(3, 2, 1, 0)
