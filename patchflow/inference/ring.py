"""The slices that windows still reach, in memory or, where they are too many, in a scratch file."""

import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from patchflow.errors import InferenceError
from patchflow.notices import say, size
from patchflow.types import Array, Int3

_LEAST_RUN = 4 * mmap.PAGESIZE
"""Shorter runs of bytes are overwritten: giving a few pages back costs more than it saves."""

PIECE_BYTES = 32 << 20
"""About how many bytes of a channel stack leave at a time, which bounds what later steps hold."""


class Ring:
    """Slices of a volume of `channels` channels: slice i stands at i modulo `depth`, so that memory is used again.

    Args:
        channels: channels.
        depth: slices held at a time.
        shape: voxels of the whole volume (I, J, K).
        dtype: of the voxels.
        scratch: a folder for a file that holds the slices instead of memory; the file has no name and is gone with the process. None for
            memory.
        gives_back: whether memory that was cleared goes back to the system until it is used again, which costs time.

    Attributes:
        values: (C, depth, J, K), zeros at first.

    Raises:
        InferenceError: when the scratch file does not fit the disk.
    """

    def __init__(self, channels: int, depth: int, shape: Int3, dtype: Any, scratch: Path | None = None, gives_back: bool = False) -> None:
        self.depth = depth
        dimensions = (channels, depth, *shape[1:])
        nbytes = prod(dimensions) * np.dtype(dtype).itemsize
        self._in_file = scratch is not None
        self._map: mmap.mmap | None = None
        if scratch is not None:
            with _reserved(nbytes, scratch) as file:
                self._map = mmap.mmap(file.fileno(), nbytes)  # keeps the file
        elif gives_back and sys.platform == "linux":
            self._map = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if self._map is None:
            self.values = np.empty(dimensions, dtype)  # not np.zeros, for which NumPy does not ask for large pages
            self.values.fill(0)
        else:
            self.values = np.frombuffer(self._map, dtype).reshape(dimensions)

    def pieces(self, first: int, stop: int, low: int = 0, high: int | None = None) -> Iterator[tuple[int, Array]]:
        """Slices `first` to `stop`, of each what lies from `low` to `high` along J: views (C, t, j, K) of about 32 MiB at most.

        Yields the first slice of each piece, and its voxels.
        """
        per_slice = max(self.values[:, 0, low:high].nbytes, 1)
        most = max(1, PIECE_BYTES // per_slice)
        while first < stop:
            place = first % self.depth
            count = min(most, stop - first, self.depth - place)
            yield first, self.values[:, place : place + count, low:high]
            first += count

    def clear(self, first: int, stop: int, low: int, high: int) -> None:
        """Set voxels to 0, to be used again."""
        for _, piece in self.pieces(first, stop, low, high):
            whole = (low, high) == (0, self.values.shape[2])
            for channel in piece:
                for run in [channel] if whole else channel:
                    self._zero(run)
            self.let_go()

    def _zero(self, run: Array) -> None:
        """Set voxels that lie in one run to 0: whole pages by giving them back; the system gives empty ones when they are used."""
        if self._in_file or self._map is None or run.nbytes < _LEAST_RUN:
            run[...] = 0
            return
        flat = run.reshape(-1).view(np.uint8)
        start = flat.ctypes.data - self.values.ctypes.data
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, (start + run.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        flat[: first - start] = 0
        flat[last - start :] = 0
        self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def let_go(self) -> None:
        """Tell the system that what was touched of a scratch file need not stay in memory."""
        if self._in_file and self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)  # of a shared mapping: the file keeps what was written


def _reserved(nbytes: int, folder: Path) -> IO[bytes]:
    """A file without a name, with all its blocks set aside: a full disk is an error now, and not a signal at some later write."""
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # it lives as long as the ring
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, nbytes)
        else:
            file.truncate(nbytes)
    except OSError as error:
        file.close()
        reason = error.strerror or str(error)
        raise InferenceError(
            f"the slices in work take {size(nbytes)}, which {folder} has no room for ({reason}): name another folder by scratch_dir, or "
            "raise memory_budget"
        ) from error
    say(f"{size(nbytes)} of slices in work go to a scratch file in {folder}, as they exceed the memory budget")
    return file
