"""How windows of one size tile a volume: the product of a list of starts per axis."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil, floor
from numbers import Real

import numpy as np
import numpy.typing as npt

from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation
from patchflow.types import Int3, SizeLike, int3

_AXES = "IJK"


@dataclass(frozen=True)
class Tiling:
    """Every window of a grid: all combinations of a start along I, one along J and one along K.

    The windows are numbered with I slowest and K fastest, so that all windows that reach a slab along I come before those that lie
    beyond it. Neighbours share at least `overlap` voxels along each axis. No more windows are made than that takes, and the slack is
    spread evenly over all of them (as in nnU-Net) instead of being left to the last two. Along an axis where the patch is as large as
    the volume or larger there is one window, in which the volume is centred.

    Attributes:
        shape: voxels of the volume (I, J, K).
        size: voxels of a window (I, J, K).
        overlap: the least voxels that neighbouring windows share (I, J, K).
        starts: ascending first voxels per axis; negative where the patch is larger than the volume.
    """

    shape: Int3
    size: Int3
    overlap: Int3
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @property
    def counts(self) -> Int3:
        """Windows along each axis."""
        i, j, k = (len(starts) for starts in self.starts)
        return i, j, k

    def __len__(self) -> int:
        i, j, k = self.counts
        return i * j * k

    def location(self, index: int) -> PatchLocation:
        """Where window `index` lies; 0 <= index < len."""
        a, b, c = np.unravel_index(index, self.counts)
        return PatchLocation((self.starts[0][a], self.starts[1][b], self.starts[2][c]), self.size)

    def locations(self) -> npt.NDArray[np.int64]:
        """All windows in order, start then stop: int64 (N, 6)."""
        axes = np.meshgrid(*(np.array(starts, dtype=np.int64) for starts in self.starts), indexing="ij")
        starts = np.stack([axis.reshape(-1) for axis in axes], axis=1)
        return np.concatenate([starts, starts + np.array(self.size, dtype=np.int64)], axis=1)

    def position(self, location: Sequence[int]) -> Int3 | None:
        """Which window along I, J and K six numbers (start then stop) are, or None if they are no window of this tiling."""
        if len(location) != 6 or any(stop - start != s for start, stop, s in zip(location[:3], location[3:], self.size, strict=True)):
            return None
        found = [ranks.get(start) for ranks, start in zip(self._ranks, location[:3], strict=True)]
        a, b, c = found
        return None if a is None or b is None or c is None else (a, b, c)

    def covering(self) -> int:
        """The most windows that reach any one voxel."""
        most = 1
        for n, size, starts in zip(self.shape, self.size, self.starts, strict=True):
            steps = np.zeros(n + 1, dtype=np.int64)
            np.add.at(steps, np.clip(starts, 0, n), 1)
            np.add.at(steps, np.clip(np.add(starts, size), 0, n), -1)
            most *= int(np.cumsum(steps).max())
        return most

    def scaled(self, scale: Sequence[Fraction]) -> "Tiling":
        """The same windows on a grid of `scale` times the voxels along each axis, in which starts and sizes must be whole.

        The volume has as many voxels as it takes to hold all of it: `shape * scale`, rounded up.
        """
        i, j, k = (tuple(int(start * factor) for start in starts) for starts, factor in zip(self.starts, scale, strict=True))
        shape, size, overlap = (
            tuple(n * factor for n, factor in zip(of, scale, strict=True)) for of in (self.shape, self.size, self.overlap)
        )
        if not all(number.denominator == 1 for number in size):
            raise ArgumentError(f"windows of {self.size} voxels times the scale {', '.join(map(str, scale))} are no whole voxels")
        return Tiling(_int3(map(ceil, shape)), _int3(size), _int3(overlap), (i, j, k))

    @cached_property
    def _ranks(self) -> tuple[dict[int, int], ...]:
        return tuple({start: rank for rank, start in enumerate(starts)} for starts in self.starts)


def tile(shape: Int3, patch_size: SizeLike, patch_overlap: SizeLike = 0, multiple: SizeLike = 1) -> Tiling:
    """Tile a volume.

    Args:
        shape: voxels of the volume (I, J, K).
        patch_size: voxels of a window, an int or three.
        patch_overlap: voxels that neighbouring windows share at least, an int or three, each smaller than the patch.
        multiple: windows start at multiples of this, an int or three. The last window may then hang over the volume by less than that.

    Raises:
        ArgumentError: for a float, a patch of no voxels, an overlap that is negative or as large as the patch, a patch that is no multiple
            of `multiple`, or an overlap that leaves no room for such steps.
    """
    shape, size = int3(shape, "shape"), int3(patch_size, "patch_size")
    overlap, multiple = _overlap(patch_overlap, size), int3(multiple, "multiple")
    axes = []
    for axis, n, s, o, m in zip(_AXES, shape, size, overlap, multiple, strict=True):
        if o >= s:
            raise ArgumentError(
                f"patch_overlap {overlap} must be smaller than patch_size {size} along every axis: "
                f"along {axis} at most {s - 1} {'voxel' if s == 2 else 'voxels'} can be shared"
            )
        if s % m or s - o < m:
            raise ArgumentError(
                f"windows start at multiples of {m} voxels along {axis}, so that patch_size must be a multiple of {m} and patch_overlap at "
                f"most {s // m * m - m}, not {s} and {o}"
            )
        axes.append(_axis_starts(n, s, o, m))
    i, j, k = axes
    return Tiling(shape, size, overlap, (i, j, k))


def _overlap(given: SizeLike, size: Int3) -> Int3:
    """An overlap in voxels; of a share of the patch, as other libraries take it, the error says how many that are."""
    parts = given if isinstance(given, (list, tuple)) else (given,) * 3
    if len(parts) == 3 and all(isinstance(part, Real) for part in parts) and any(0 < part < 1 for part in parts):
        meant = [floor(part * n) if 0 < part < 1 else part for part, n in zip(parts, size, strict=True)]
        written = f"{meant[0] if len(set(meant)) == 1 else tuple(meant)}"
        raise ArgumentError(
            f"patch_overlap is counted in voxels and is no share of the patch: for {given!r} of a patch of {size} write "
            f"patch_overlap={written}"
        )
    return int3(given, "patch_overlap", minimum=0)


def _axis_starts(n: int, size: int, overlap: int, multiple: int) -> tuple[int, ...]:
    if size >= n:
        return (-((size - n) // 2 // multiple * multiple),)
    last = -(-(n - size) // multiple)  # in steps of `multiple`, as all that follows
    longest = (size - overlap) // multiple
    steps = -(-last // longest)  # the fewest steps that reach the end
    # rank * last / steps rounded to the nearest, in integers; no step grows beyond the longest, which is itself an integer
    return tuple((2 * rank * last + steps) // (2 * steps) * multiple for rank in range(steps + 1))


def _int3(numbers: Iterable[Fraction | int]) -> Int3:
    i, j, k = (floor(number) for number in numbers)
    return i, j, k
