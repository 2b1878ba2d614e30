"""Voxels and index arrays as they lie in a mapped entry file, every block checked the first time that it is touched.

Bookkeeping of what has been checked is shared by threads without a lock: checking a block twice is harmless, and a block is marked only
after its check.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchflow.cache.frames import decompress
from patchflow.cache.layout import BLOCK, EntryFile, damaged
from patchflow.errors import CacheDamagedError
from patchflow.kernels.pointwise import IntensityMap, apply_map, copy_voxels
from patchflow.types import Array, Int3

Unchecked = dict[tuple[str, int], npt.NDArray[np.bool_]]
"""Which blocks of an entry file this process has not checked yet, by dataset and its number of blocks: a byte for every 64 KiB."""


@dataclass(frozen=True)
class Mapping:
    """An entry file in memory."""

    path: Path
    memory: mmap
    file: EntryFile
    verify: bool
    """Whether blocks are checked on first touch."""
    unchecked: Unchecked
    """May outlive the mapping, so that a file that is opened again is not checked again."""

    def array(self, key: str) -> Array:
        """A contiguous dataset: a read-only view of the mapping."""
        if key not in self.file.extents:
            raise damaged(self.path, f"{key} is missing")
        extent = self.file.extents[key]
        count = extent.nbytes // extent.dtype.itemsize
        flat: Array = np.frombuffer(self.memory, extent.dtype, count, extent.offset)
        if not flat.flags.aligned:  # only small parts: voxels lie on pages
            flat = flat.copy()
            flat.flags.writeable = False
        return flat.reshape(extent.shape)

    def pending(self, key: str, blocks: int) -> npt.NDArray[np.bool_]:
        """Which of the blocks (or chunks) of a dataset are still to be checked: kept up to date by who checks them."""
        return self.unchecked.setdefault((key, blocks), np.full(blocks, self.verify))

    def blocks(self, key: str) -> "Blocks":
        """The checksums of a contiguous dataset."""
        return Blocks(self, key, self.array(f"{key}_checksums"))


class Blocks:
    """Which blocks of a contiguous dataset have been checked."""

    def __init__(self, mapping: Mapping, key: str, checksums: Array) -> None:
        extent = mapping.file.extents[key]
        if len(checksums) != -(-extent.nbytes // BLOCK):
            raise damaged(mapping.path, f"{key} has {len(checksums)} checksums for {extent.nbytes} bytes")
        self._mapping, self._key, self._checksums, self._extent = mapping, key, checksums, extent
        self._pending = mapping.pending(key, len(checksums))
        self._count()

    def _count(self) -> None:
        self._counted = np.concatenate([[0], np.cumsum(self._pending)])
        self.done = not self._counted[-1]

    def check(self, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> None:
        """Check what is still unchecked of the blocks that hold the bytes from `first` to `last`, both counted in, pair by pair.

        Raises:
            CacheDamagedError: for a block that is not what was written.
        """
        if self.done:
            return
        low, high = first // BLOCK, last // BLOCK
        counted = self._counted
        for some in np.flatnonzero(counted[high + 1] > counted[low]):
            for block in range(int(low[some]), int(high[some]) + 1):
                self.check_one(block)
        self._count()

    def check_one(self, block: int) -> None:
        """Check one block, unless that has been done."""
        if self._pending[block]:
            if self.is_damaged(block):
                raise damaged(self._mapping.path, f"image {self._key.split('/')[0]!r}, {self.describe(block)}")
            self._pending[block] = False

    def is_damaged(self, block: int) -> bool:
        """Whether the block's bytes are not what was written."""
        start = self._extent.offset + block * BLOCK
        stop = min(start + BLOCK, self._extent.offset + self._extent.nbytes)
        return zlib.crc32(memoryview(self._mapping.memory)[start:stop]) != int(self._checksums[block])

    def describe(self, block: int) -> str:
        """Where the block lies, for an error."""
        part = self._key.split("/", 1)[1]
        first = block * BLOCK // self._extent.dtype.itemsize
        last = min((block + 1) * BLOCK, self._extent.nbytes) // self._extent.dtype.itemsize - 1
        places = [tuple(int(n) for n in np.unravel_index(place, self._extent.shape)) for place in (first, last)]
        return f"{part} {places[0]} to {places[1]} (block {block}) are not what was written"

    def damages(self) -> Iterator[str]:
        """A line for every damaged block."""
        yield from (self.describe(block) for block in range(len(self._checksums)) if self.is_damaged(block))


class CheckedVector:
    """A one-axis index array whose blocks are checked as they are touched; works with `bisect`."""

    def __init__(self, mapping: Mapping, key: str) -> None:
        self._array = mapping.array(key).reshape(-1)
        self._blocks = mapping.blocks(key)

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, position: int) -> Any:
        if not self._blocks.done:
            self._blocks.check_one(position * self._array.itemsize // BLOCK)
        return self._array.item(position)


def checked_table(mapping: Mapping, key: str) -> Array:
    """A small array, checked whole."""
    array = mapping.array(key)
    mapping.blocks(key).check(np.array([0]), np.array([array.nbytes - 1]))
    return array


class ContiguousVoxels:
    """Voxels of the contiguous layout: reading is slicing the mapping."""

    def __init__(self, mapping: Mapping, image: str) -> None:
        self._array = mapping.array(f"{image}/voxels")
        self._blocks = mapping.blocks(f"{image}/voxels")

    def region(self, start: Int3, stop: Int3) -> Array:
        """Stored voxels of a box that lies in the volume, (C, i, j, k): a read-only view of the mapping."""
        if not self._blocks.done:
            self._check(start, stop)
        return self._array[:, start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]]

    def copy(self, start: Int3, stop: Int3, out: Array, intensities: IntensityMap | None) -> None:
        """Fill `out` with the box, through the map if there is one."""
        region = self.region(start, stop)
        if intensities is None:
            copy_voxels(region, out)
        else:
            apply_map(region, intensities, out)

    def damages(self) -> Iterator[str]:
        """A line for every damaged block."""
        return self._blocks.damages()

    def _check(self, start: Int3, stop: Int3) -> None:
        channels, ni, nj, nk = self._array.shape  # each plane's rows are one range of bytes: a few blocks more than the box touches
        planes = (np.arange(channels)[:, None] * ni + np.arange(start[0], stop[0])).ravel() * (nj * nk)
        first, last = planes + start[1] * nk + start[2], planes + (stop[1] - 1) * nk + stop[2] - 1
        self._blocks.check(first * self._array.itemsize, last * self._array.itemsize)


class CompressedVoxels:
    """Voxels of the compressed layout: the chunks that a box touches are taken from the mapping and decompressed outside HDF5."""

    def __init__(self, mapping: Mapping, image: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._mapping, self._image = mapping, image
        self._shape, self._dtype, self._chunk = shape, dtype, mapping.file.chunks[image]
        self._counts = tuple(-(-n // step) for n, step in zip(shape, self._chunk, strict=True))
        self._frames, self._constants = (checked_table(mapping, f"{image}/{key}") for key in ("frames", "constants"))
        self._checksums = mapping.array(f"{image}/voxels_checksums")
        if len(self._frames) != np.prod(self._counts) or not len(self._frames) == len(self._constants) == len(self._checksums):
            raise damaged(mapping.path, f"image {image!r} has {len(self._frames)} chunks where {np.prod(self._counts)} belong")
        self._pending = mapping.pending(f"{image}/voxels", len(self._frames))

    def region(self, start: Int3, stop: Int3) -> Array:
        """Stored voxels of a box that lies in the volume, (C, i, j, k), read-only."""
        out = np.empty((self._shape[0], *(b - a for a, b in zip(start, stop, strict=True))), self._dtype)
        self.copy(start, stop, out, None)
        out.flags.writeable = False
        return out

    def copy(self, start: Int3, stop: Int3, out: Array, intensities: IntensityMap | None) -> None:
        """Fill `out` with the box, through the map if there is one; holds one chunk at a time."""
        buffer = np.empty(self._chunk[1:], self._dtype)
        ranges = [range(a // step, -(-b // step)) for a, b, step in zip(start, stop, self._chunk[1:], strict=True)]
        for channel, i, j, k in product(range(self._shape[0]), *ranges):
            bounds = [
                (max(n * step, a), min((n + 1) * step, b), n * step, a)
                for n, step, a, b in zip((i, j, k), self._chunk[1:], start, stop, strict=True)
            ]
            inner = tuple(slice(low - origin, high - origin) for low, high, origin, _ in bounds)
            target = out[(slice(channel, channel + 1), *(slice(low - a, high - a) for low, high, _, a in bounds))]
            number = int(np.ravel_multi_index((channel, i, j, k), self._counts))
            constant = self._decode(number, buffer)
            source = buffer[inner] if constant is None else np.broadcast_to(constant, target.shape[1:])
            if intensities is None:
                np.copyto(target, source[None])
            elif constant is None:
                apply_map(source[None], intensities, target)
            else:
                target[...] = apply_map(constant.reshape(1, 1, 1, 1), intensities)

    def damages(self) -> Iterator[str]:
        """A line for every damaged chunk."""
        buffer = np.empty(self._chunk[1:], self._dtype)
        for number in range(len(self._frames)):
            self._pending[number] = True
            try:
                self._decode(number, buffer)
            except CacheDamagedError:
                yield self._describe(number)

    def _decode(self, number: int, buffer: Array) -> Array | None:
        """Fill `buffer` with a chunk; or, where the chunk is of one value, return that."""
        offset, size = (int(n) for n in self._frames[number])
        if size == 0:
            constant: Array = self._constants[number : number + 1]
            return constant
        data = memoryview(self._mapping.memory)[offset : offset + size]
        if len(data) != size or (self._pending[number] and zlib.crc32(data) != int(self._checksums[number])):
            raise damaged(self._mapping.path, f"image {self._image!r}, {self._describe(number)}")
        self._pending[number] = False
        try:
            decompress(data, buffer)
        except (RuntimeError, ValueError) as error:
            raise damaged(self._mapping.path, f"image {self._image!r}, {self._describe(number)} ({error})") from error
        return None

    def _describe(self, number: int) -> str:
        first = [int(n) * step for n, step in zip(np.unravel_index(number, self._counts), self._chunk, strict=True)]
        last = [min(a + step, n) - 1 for a, step, n in zip(first, self._chunk, self._shape, strict=True)]
        return f"voxels {tuple(first)} to {tuple(last)} (chunk {number}) are not what was written"


Voxels = ContiguousVoxels | CompressedVoxels
