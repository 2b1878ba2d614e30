"""The slices that windows still reach, in memory or, where they are too many, in a scratch file."""

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from patchflow.errors import InferenceError
from patchflow.notices import say, size
from patchflow.types import Array, Int3

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

    Raises:
        InferenceError: when the scratch file does not fit the disk.
    """

    def __init__(self, channels: int, depth: int, shape: Int3, dtype: Any, scratch: Path | None = None) -> None:
        self.depth = depth
        self._map: mmap.mmap | None = None
        dimensions = (channels, depth, *shape[1:])
        if scratch is None:
            self.values = np.zeros(dimensions, dtype)
            return
        nbytes = int(np.prod(dimensions, dtype=np.int64)) * np.dtype(dtype).itemsize
        with _reserved(nbytes, scratch) as file:
            self._map = mmap.mmap(file.fileno(), nbytes)  # keeps the file
        self.values = np.frombuffer(self._map, dtype).reshape(dimensions)

    def pieces(self, first: int, stop: int) -> Iterator[tuple[int, Array]]:
        """Slices `first` to `stop` as views (C, t, J, K) of at most about 32 MiB: the first slice of each, and its voxels."""
        per_slice = self.values[:, 0].nbytes
        most = max(1, PIECE_BYTES // per_slice)
        while first < stop:
            place = first % self.depth
            count = min(most, stop - first, self.depth - place)
            yield first, self.values[:, place : place + count]
            first += count

    def clear(self, first: int, stop: int) -> None:
        """Set slices to 0, to be used again."""
        for _, piece in self.pieces(first, stop):
            piece[...] = 0
            self.let_go()

    def let_go(self) -> None:
        """Tell the system that what was touched of a scratch file need not stay in memory."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
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
