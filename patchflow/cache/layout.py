"""The entry file: the only place that knows HDF5 names.

    /                                   attributes "format" (int), "record" (JSON, as in the manifest)
    /images/NAME/voxels                 (C, I, J, K), contiguous and page-aligned, or chunks under filter 32026 (Blosc2)
    /images/NAME/frames                 compressed only: int64 (chunks, 2), where in the file each chunk's Blosc2 data lie, and their bytes;
                                        0 bytes for a chunk of one value
    /images/NAME/constants              compressed only: that value for each chunk, dtype of the voxels
    /images/NAME/index/ARRAY            the arrays of the label or weight index
    .../DATASET_checksums               uint32 beside every dataset above: crc32 of each block of 64 KiB; of the voxels of the compressed
                                        layout, crc32 of each chunk's Blosc2 data (0 for a chunk of one value)

All but compressed voxels are contiguous datasets, which readers map into memory at their offsets.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from patchflow.cache.frames import CHUNK, CHUNK_FILTER, FILTER_OPTIONS, Frame, compress_chunks
from patchflow.errors import CacheDamagedError, CacheError, CacheFormatError
from patchflow.types import Array

FORMAT = 1
BLOCK = 1 << 16
"""Bytes under one checksum: 20 microseconds to check, and a quarter of a thousandth of the data to store."""

Layout = Literal["contiguous", "compressed"]
_PAGE = 4096
_SLICE = 1 << 24


@dataclass(frozen=True)
class Extent:
    """A contiguous dataset: where its bytes lie in the file."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the dataset."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class ImageParts:
    """The arrays of one image: voxels (C, I, J, K), C-contiguous and of native byte order, and the arrays of its index.

    `checksums` are the voxels' `block_checksums`, which the contiguous layout needs; the compressed layout has its own.
    """

    voxels: Array
    index: Mapping[str, Array]
    checksums: Array | None


@dataclass(frozen=True)
class EntryFile:
    """What an entry file says of itself: its record, and the extents of its datasets by path below /images."""

    record: dict[str, Any]
    extents: dict[str, Extent]
    chunks: dict[str, tuple[int, ...]]
    """Chunk shapes of images in the compressed layout."""


def block_checksums(array: Array) -> npt.NDArray[np.uint32]:
    """crc32 of each block of a C-contiguous array's bytes."""
    data = _bytes(array)
    return np.array([zlib.crc32(data[start : start + BLOCK]) for start in range(0, len(data), BLOCK)], np.uint32)


def _bytes(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def write_entry(path: Path, record: Mapping[str, Any], images: Mapping[str, ImageParts], layout: Layout) -> None:
    """Write a whole entry file at `path`; the caller flushes it to disk.

    HDF5 lays the file out and writes the small parts; the voxels of the contiguous layout are written at their offsets afterwards, which
    is as fast as the disk and fails cleanly where the disk is full.
    """
    contiguous = layout == "contiguous"
    alignment = (
        {"alignment_threshold": 512, "alignment_interval": _PAGE} if contiguous else {"alignment_threshold": 1, "alignment_interval": 8}
    )
    deferred: list[tuple[int, Array]] = []
    with h5py.File(path, "w", locking=False, **alignment) as file:
        file.attrs["format"] = FORMAT
        file.attrs["record"] = json.dumps(record, allow_nan=False)
        for name, parts in images.items():
            group = file.create_group(f"images/{name}")
            if contiguous:
                deferred += _allocate(group, "voxels", parts.voxels, parts.checksums)
            else:
                deferred += _write_chunks(group, parts.voxels)
            for key, array in parts.index.items():
                deferred += _allocate(group, f"index/{key}", array)
    descriptor = os.open(path, os.O_RDWR)
    try:
        for piece, offset in _slices(deferred):  # one after another: file systems let one writer into a file at a time
            _write_all(descriptor, piece, offset)
    finally:
        os.close(descriptor)


def _slices(deferred: list[tuple[int, Array]]) -> Iterator[tuple[memoryview, int]]:
    for offset, array in deferred:
        data = _bytes(array)
        for start in range(0, len(data), _SLICE):
            yield data[start : start + _SLICE], offset + start


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _allocate(group: h5py.Group, name: str, array: Array, checksums: Array | None = None) -> Iterator[tuple[int, Array]]:
    """Room for a contiguous dataset and its checksums: pairs of a file offset and what is to be written there."""
    for key, values in ((name, array), (f"{name}_checksums", block_checksums(array) if checksums is None else checksums)):
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.CONTIGUOUS)
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        kind, space = h5py.h5t.py_create(values.dtype), h5py.h5s.create_simple(values.shape)
        yield h5py.h5d.create(group.id, key.encode(), kind, space, plan, links).get_offset(), values


def _write_chunks(group: h5py.Group, voxels: Array) -> Iterator[tuple[int, Array]]:
    chunk = (1, *(min(a, b) for a, b in zip(CHUNK, voxels.shape[1:], strict=True)))
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk(chunk)
    plan.set_filter(CHUNK_FILTER, h5py.h5z.FLAG_OPTIONAL, FILTER_OPTIONS)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind, space = h5py.h5t.py_create(voxels.dtype), h5py.h5s.create_simple(voxels.shape)
    dataset = h5py.h5d.create(group.id, b"voxels", kind, space, plan)
    frames: dict[tuple[int, ...], Frame] = {}
    for start, frame in compress_chunks(voxels, chunk):
        dataset.write_direct_chunk(start, frame.data, 0)
        frames[start] = frame._replace(data=b"")
    offsets: dict[tuple[int, ...], int] = {}
    dataset.chunk_iter(lambda info: offsets.__setitem__(tuple(info.chunk_offset), info.byte_offset))
    starts = list(frames)
    table = np.array([[offsets[start] + frames[start].skip, frames[start].size] for start in starts], np.int64)
    yield from _allocate(group, "frames", table)
    yield from _allocate(group, "constants", np.array([frames[start].constant for start in starts], voxels.dtype))
    checksums = np.array([frames[start].checksum for start in starts], np.uint32)
    yield next(iter(_allocate(group, "voxels_checksums", checksums)))


def read_entry_file(path: Path) -> EntryFile:
    """What the file at `path` holds and where; reads no voxels. Raises what `map_entry_file` raises."""
    return map_entry_file(path)[0]


def map_entry_file(path: Path) -> tuple[EntryFile, mmap]:
    """What the file at `path` holds and where, and that very file in memory, whatever else is renamed to `path` meanwhile.

    Raises:
        CacheError: if there is no such file, or it cannot be mapped.
        CacheFormatError: if it is of another format version.
        CacheDamagedError: if it is no entry file, is shorter than it says, or refers to data outside itself.
    """
    try:
        # HDF5 is given an open file, not the name: then it minds neither locks nor who else has the file open in this process
        with open(path, "rb", buffering=0) as stream:
            with h5py.File(stream, "r") as file:
                version = int(file.attrs["format"])
                if version != FORMAT:
                    raise CacheFormatError(
                        f"{path} is of cache format {version}, but this version reads format {FORMAT}: build the cache again"
                    )
                entry = _read_open_file(path, file, os.fstat(stream.fileno()).st_size)
            try:
                return entry, mmap(stream.fileno(), 0, access=ACCESS_READ)
            except (OSError, ValueError) as error:
                raise CacheError(f"{path} cannot be mapped into memory: {error}") from error
    except FileNotFoundError:
        raise CacheError(f"the entry file {path} is missing: build the cache again, other entries are used as they are") from None
    except CacheError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise damaged(path, f"it cannot be read as an entry file ({error})") from error


def _read_open_file(path: Path, file: h5py.File, size: int) -> EntryFile:
    entry = EntryFile(json.loads(file.attrs["record"]), {}, {})
    images = _member(path, file.id, "images", h5py.h5g.GroupID)  # low-level calls: opening is three times faster
    for name in entry.record["images"]:
        group = _member(path, images, name, h5py.h5g.GroupID)
        for key in [key.decode() for key in group if key != b"index"]:
            _read_dataset(path, entry, f"{name}/{key}", _member(path, group, key, h5py.h5d.DatasetID), size)
        if b"index" in group:
            index = _member(path, group, "index", h5py.h5g.GroupID)
            for key in [key.decode() for key in index]:
                _read_dataset(path, entry, f"{name}/index/{key}", _member(path, index, key, h5py.h5d.DatasetID), size)
    return entry


def _member(path: Path, group: Any, name: str, kind: type) -> Any:
    """A member that lies in this very file: soft and external links could lead anywhere."""
    if group.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise damaged(path, f"{name} is a link, which entry files never hold")
    member = h5py.h5o.open(group, name.encode())
    if not isinstance(member, kind):
        raise damaged(path, f"{name} is not a {'group' if kind is h5py.h5g.GroupID else 'dataset'}")
    return member


def _read_dataset(path: Path, entry: EntryFile, key: str, dataset: h5py.h5d.DatasetID, size: int) -> None:
    plan, dtype, shape = dataset.get_create_plist(), dataset.dtype, dataset.shape
    filters = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
    layout = plan.get_layout()
    if plan.get_external_count() or layout == h5py.h5d.VIRTUAL:
        raise damaged(path, f"{key} keeps its data in other files, which entry files never do")
    if dtype.kind not in "iuf" or not dtype.isnative:
        raise damaged(path, f"{key} is of dtype {dtype}")
    if layout == h5py.h5d.CHUNKED and key.endswith("/voxels") and filters == [CHUNK_FILTER]:
        entry.chunks[key.removesuffix("/voxels")] = plan.get_chunk()
        return
    if layout != h5py.h5d.CONTIGUOUS or filters:
        raise damaged(path, f"{key} is stored in a way that entry files never use (layout {layout}, filters {filters})")
    extent = Extent(dataset.get_offset() or 0, dtype, shape)
    if not 0 < extent.offset <= size - extent.nbytes:
        raise damaged(path, f"{key} should end at byte {extent.offset + extent.nbytes}, but the file has {size} bytes")
    entry.extents[key] = extent


def damaged(path: Path, what: str) -> CacheDamagedError:
    """The error for a damaged entry file, with the mend."""
    return CacheDamagedError(
        f"subject {path.stem!r}: {path} is damaged: {what}. Delete that file and build the cache again; other entries are used as they are"
    )
