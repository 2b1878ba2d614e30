"""Slabs put together to the voxels of a file, in bounded memory: each at its place, or by way of a scratch file.

A file holds the voxels of a channel slice by slice along its slowest axis (K in NIfTI, I in HDF5). Slabs along that axis lie in one piece,
and are written where they belong. Slabs along another axis are scattered over the whole file in short runs; these go to a scratch file as
they come, and at the end are read back a few of the file's slices at a time, from each slab one contiguous piece.
"""

import errno
import io
import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from patchflow.images.write import Data, atomic_file, slices_of_piece, write_all, write_pieces
from patchflow.types import Array


@dataclass(frozen=True)
class FilePlan:
    """What a file will hold.

    Attributes:
        path: its final name; packed by gzip if that ends in .gz.
        header: the bytes before the voxels.
        shape: of the voxels as they lie in the file, slowest axis first: the channels and three axes.
        itemsize: bytes per voxel, 1, 2, 4 or 8; they are moved as they are.
        axis: 0, 1 or 2: along which of the three axes slabs come.
        tail: the bytes after the voxels.
    """

    path: Path
    header: bytes
    shape: tuple[int, int, int, int]
    itemsize: int
    axis: int
    tail: bytes = b""


class Assembly(Protocol):
    """Takes slabs and makes a file of them. After an error only `drop` may be called."""

    def put(self, first: int, count: int, channels: Iterable[Iterable[Data]]) -> None:
        """Take slices `first` to `first + count`: for each channel the voxels of the slab in the file's order, in pieces.

        Raises:
            OSError: when the disk is full.
        """

    def finish(self) -> None:
        """Let the file appear under its final name, whole and flushed.

        Raises:
            OSError: when the disk is full.
        """

    def drop(self) -> None:
        """Leave nothing behind but a file that is finished."""


def assembly(plan: FilePlan) -> Assembly:
    """What is right for the plan's axis.

    Raises:
        OSError: when the folder cannot be written to.
    """
    straight = plan.axis == 0 and not plan.path.name.lower().endswith(".gz")
    return InPlace(plan) if straight else Scratch(plan)


class _Dropped(Exception):  # noqa: N818, it never leaves this file
    """Unwinds what is open, as an error would."""


class InPlace:
    """Slabs along the slowest axis of a file that is not packed, written beside the final name where they belong."""

    def __init__(self, plan: FilePlan) -> None:
        self._plan = plan
        self._open = ExitStack()
        self._file = self._open.enter_context(atomic_file(plan.path))

    def put(self, first: int, count: int, channels: Iterable[Iterable[Data]]) -> None:
        """As `Assembly` says."""
        del count  # as many as there are bytes
        slices, *plane = self._plan.shape[1:]
        for channel, pieces in enumerate(channels):
            start = (channel * slices + first) * math.prod(plane) * self._plan.itemsize
            self._file.seek(len(self._plan.header) + start)
            for piece in pieces:
                write_all(self._file, piece)

    def finish(self) -> None:
        """As `Assembly` says."""
        self._file.seek(0, os.SEEK_END)
        write_all(self._file, self._plan.tail)
        self._file.seek(0)
        write_all(self._file, self._plan.header)
        self._open.close()

    def drop(self) -> None:
        """As `Assembly` says."""
        with suppress(_Dropped), self._open:
            raise _Dropped


class _Part(NamedTuple):
    """A slab in the scratch file: slices `first` to `first + slices`, and where its bytes begin."""

    first: int
    slices: int
    start: int


class Scratch:
    """Slabs along any axis, kept in a scratch file until all are there.

    The scratch file lies in the folder of the final one, and is as large as the volume. It has no name where the system allows that
    (Linux does), so that not even a process that is killed leaves it behind.
    """

    def __init__(self, plan: FilePlan) -> None:
        self._plan = plan
        self._file = tempfile.TemporaryFile(buffering=0, dir=plan.path.parent)  # noqa: SIM115, closed by finish or drop
        self._parts: list[_Part] = []
        self._end = 0

    def put(self, first: int, count: int, channels: Iterable[Iterable[Data]]) -> None:
        """As `Assembly` says."""
        self._parts.append(_Part(first, count, self._end))
        for piece in chain.from_iterable(channels):
            write_all(self._file, piece)
            self._end += len(piece)

    def finish(self) -> None:
        """As `Assembly` says."""
        write_pieces(self._plan.path, self._plan.header, chain(self._pieces(), [self._plan.tail]))
        self.drop()

    def drop(self) -> None:
        """As `Assembly` says."""
        self._file.close()

    def _pieces(self) -> Iterator[memoryview]:
        """The voxels in the file's order, some slices at a time, always in the same memory."""
        channels, slices, *plane = self._plan.shape
        depth = min(slices, slices_of_piece(math.prod(plane) * self._plan.itemsize))
        whole = np.empty((depth, *plane), f"u{self._plan.itemsize}")
        for channel in range(channels):
            for first in range(0, slices, depth):
                piece = whole[: slices - first]
                for part in self._parts:
                    self._fill(piece, first, channel, part)
                yield piece.data.cast("B")

    def _fill(self, piece: Array, first: int, channel: int, part: _Part) -> None:
        """Copy to slices `first`, ... of the file what a slab holds of them."""
        axis, shape = self._plan.axis, list(self._plan.shape[1:])
        shape[axis] = part.slices
        begin = part.first if axis == 0 else 0  # the slab's first slice in the file
        low, high = max(first, begin), min(first + len(piece), begin + shape[0])
        if low >= high:
            return
        plane = shape[1] * shape[2] * self._plan.itemsize
        self._file.seek(part.start + (channel * shape[0] + low - begin) * plane)
        held = np.empty((high - low, *shape[1:]), piece.dtype)
        _read_all(self._file, held.data.cast("B"))
        target = [slice(low - first, high - first), slice(None), slice(None)]
        if axis > 0:
            target[axis] = slice(part.first, part.first + part.slices)
        piece[tuple(target)] = held


def _read_all(file: io.FileIO, buffer: memoryview) -> None:
    rest = buffer
    while rest:
        count = file.readinto(rest)
        if not count:
            raise OSError(errno.EIO, "the scratch file beside it lost what was written to it")
        rest = rest[count:]
