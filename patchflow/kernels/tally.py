"""How often each value occurs in 8- or 16-bit integers that come in pieces: `histogram` for what is too long to be held.

Counters are looked up by 16 bits at a time, which is one voxel of 16 bits or two of 8 bits side by side, so that 8-bit voxels cost half an
addition each; the pairs are taken apart at the end. Where 32 bytes in a row are alike, as in a background, they are counted together.
"""

import numpy as np
import numpy.typing as npt

from patchflow.kernels.jit import kernel
from patchflow.types import Array

_UNITS = 1 << 16
_MOST = 1 << 32
"""What a counter of 32 bits, which the processor's cache holds twice as many of, cannot reach."""

_REPEAT = np.uint64(0x0001000100010001)
_UNIT = np.uint64(0xFFFF)
_ONE, _GROUP = np.uint32(1), np.uint32(16)


class Tally:
    """Counts values of uint8, int8, uint16 or int16. Releases the GIL; agrees with `histogram.plain_histogram` of all pieces together."""

    def __init__(self, dtype: np.dtype[np.generic]) -> None:
        info = np.iinfo(dtype)  # type: ignore[type-var]
        self._levels, self._first, self._narrow = info.max - info.min + 1, -info.min, dtype.itemsize == 1
        # Neighbours are often equal, and adding to the same counter twice in a row waits for the first: two tables take turns.
        self._units = np.zeros((2, _UNITS), np.uint32)
        self._pending = 0
        self._counts = np.zeros(self._levels, np.int64)

    def add(self, piece: Array) -> None:
        """Count the voxels of a C-contiguous array of any shape."""
        flat = piece.reshape(-1)
        for start in range(0, flat.size, _MOST // 2):
            self._add(flat[start : start + _MOST // 2])

    def _add(self, flat: Array) -> None:
        if self._pending + flat.size >= _MOST:
            self._settle()
        self._pending += flat.size
        stored = flat.view(np.uint8)
        units = stored[: stored.size // 2 * 2].view(np.uint16)
        _tally(units, stored[: stored.size // 32 * 32].view(np.uint64), self._units)
        if stored.size % 2:
            self._counts[stored[-1]] += 1

    def _settle(self) -> None:
        """Take the counters over and clear them."""
        units = self._units.sum(axis=0, dtype=np.int64)
        if self._narrow:
            pairs = units.reshape(self._levels, self._levels)
            units = pairs.sum(axis=0) + pairs.sum(axis=1)
        self._counts += units
        self._units[...] = 0
        self._pending = 0

    def counts(self) -> npt.NDArray[np.int64]:
        """int64 (256,) or (65536,): of all that came so far, the smallest value of the dtype first."""
        self._settle()
        return np.roll(self._counts, self._first)


@kernel
def _tally(units, words, counts):  # type: ignore[no-untyped-def]
    for group in range(words.size // 4):
        word, start = words[4 * group], 16 * group
        alike = word == words[4 * group + 1] and word == words[4 * group + 2] and word == words[4 * group + 3]
        if alike and (word & _UNIT) * _REPEAT == word:
            counts[0, units[start]] += _GROUP
        else:
            for unit in range(start, start + 16, 2):
                counts[0, units[unit]] += _ONE
                counts[1, units[unit + 1]] += _ONE
    for unit in range(words.size // 4 * 16, units.size):
        counts[0, units[unit]] += _ONE
