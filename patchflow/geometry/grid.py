"""How windows of one size tile a volume: the product of a list of starts per axis."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation, clamped
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
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        for axis, size, overlap in zip(_AXES, self.size, self.overlap, strict=True):
            if overlap >= size:
                raise ArgumentError(
                    f"patch_overlap {self.overlap} must be smaller than patch_size {self.size} along every axis: "
                    f"along {axis} at most {size - 1} {'voxel' if size == 2 else 'voxels'} can be shared"
                )
        i, j, k = (_axis_starts(n, s, o) for n, s, o in zip(self.shape, self.size, self.overlap, strict=True))
        object.__setattr__(self, "starts", (i, j, k))

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

    @cached_property
    def _ranks(self) -> tuple[dict[int, int], ...]:
        return tuple({start: rank for rank, start in enumerate(starts)} for starts in self.starts)


def tile(shape: Int3, patch_size: SizeLike, patch_overlap: SizeLike = 0) -> Tiling:
    """Tile a volume.

    Args:
        shape: voxels of the volume (I, J, K).
        patch_size: voxels of a window, an int or three.
        patch_overlap: voxels that neighbouring windows share at least, an int or three, each smaller than the patch.

    Raises:
        ArgumentError: for a float, a patch of no voxels, an overlap that is negative or as large as the patch.
    """
    return Tiling(int3(shape, "shape"), int3(patch_size, "patch_size"), int3(patch_overlap, "patch_overlap", minimum=0))


def _axis_starts(n: int, size: int, overlap: int) -> tuple[int, ...]:
    if size >= n:
        return (clamped((0, 0, 0), size, (n, n, n)).start[0],)
    last = n - size
    steps = -(-last // (size - overlap))  # the fewest steps of at most size - overlap voxels that reach the end
    # rank * last / steps rounded to the nearest voxel, in integers; no step grows beyond size - overlap, which is itself an integer
    return tuple((2 * rank * last + steps) // (2 * steps) for rank in range(steps + 1))
