"""Where a patch lies in a volume, and all arithmetic on such windows."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from patchflow.types import Int3, SizeLike, int3


class Overlap(NamedTuple):
    """The part of a patch that lies in the volume: the same voxels counted in the volume and in the patch."""

    volume: tuple[slice, slice, slice]
    patch: tuple[slice, slice, slice]


@dataclass(frozen=True)
class PatchLocation:
    """A box of voxels of a volume; parts of it may hang over the volume's border.

    Attributes:
        start: first voxel (I, J, K); may be negative.
        size: voxels along each axis (I, J, K), each at least 1.
        target: the label that the sampler aimed at, if it aimed at one; not part of what makes two locations equal.
    """

    start: Int3
    size: Int3
    target: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", int3(self.start, "start", minimum=-(2**62)))
        object.__setattr__(self, "size", int3(self.size, "size"))

    @property
    def stop(self) -> Int3:
        """One past the last voxel (I, J, K)."""
        (i, j, k), (di, dj, dk) = self.start, self.size
        return i + di, j + dj, k + dk

    def as_array(self) -> npt.NDArray[np.int64]:
        """Start then stop, int64 (6,): the order of a batch's "location"."""
        return np.array(self.start + self.stop, dtype=np.int64)

    @classmethod
    def from_array(cls, array: npt.ArrayLike) -> "PatchLocation":
        """The location of six numbers, start then stop."""
        numbers = [int(number) for number in np.asarray(array).reshape(6)]
        i, j, k, i1, j1, k1 = numbers
        return cls((i, j, k), (i1 - i, j1 - j, k1 - k))

    def is_inside(self, shape: Int3) -> bool:
        """Whether no part hangs over the border of a volume of `shape`."""
        return all(start >= 0 and stop <= n for start, stop, n in zip(self.start, self.stop, shape, strict=True))

    def overlap(self, shape: Int3) -> Overlap | None:
        """The part that lies in a volume of `shape`, or None if none does."""
        lows = [max(start, 0) for start in self.start]
        highs = [min(stop, n) for stop, n in zip(self.stop, shape, strict=True)]
        if any(low >= high for low, high in zip(lows, highs, strict=True)):
            return None
        volume = [slice(low, high) for low, high in zip(lows, highs, strict=True)]
        patch = [slice(low - start, high - start) for low, high, start in zip(lows, highs, self.start, strict=True)]
        return Overlap((volume[0], volume[1], volume[2]), (patch[0], patch[1], patch[2]))

    def grown(self, reach: Int3) -> "PatchLocation":
        """The box that reaches `reach` voxels further on both sides of each axis."""
        (i, j, k), (di, dj, dk), (ri, rj, rk) = self.start, self.size, reach
        return PatchLocation((i - ri, j - rj, k - rk), (di + 2 * ri, dj + 2 * rj, dk + 2 * rk), self.target)

    def within(self, other: "PatchLocation") -> tuple[slice, slice, slice]:
        """Where this box lies in a patch of `other`, which must hold it."""
        i, j, k = (slice(a - b, a - b + n) for a, b, n in zip(self.start, other.start, self.size, strict=True))
        return i, j, k

    def holds(self, other: "PatchLocation") -> bool:
        """Whether all of another box lies in this one."""
        return all(a <= b and d <= c for a, b, c, d in zip(self.start, other.start, self.stop, other.stop, strict=True))

    def common(self, other: "PatchLocation") -> "PatchLocation | None":
        """The voxels of both boxes; None where there are none."""
        starts = [max(a, b) for a, b in zip(self.start, other.start, strict=True)]
        i, j, k = (min(a, b) - start for a, b, start in zip(self.stop, other.stop, starts, strict=True))
        return PatchLocation((starts[0], starts[1], starts[2]), (i, j, k)) if min(i, j, k) > 0 else None


Outside = Literal["constant", "border", "reflect"]
"""What lies outside a volume: one value, the nearest voxel inside, or the mirror image (d c b | a b c d | c b a)."""


def voxels_inside(start: int, size: int, n: int, outside: Outside) -> npt.NDArray[np.int64]:
    """The voxel of an axis of `n` that stands for each voxel from `start` on: int64 (size,), from 0 to n - 1; "border" or "reflect"."""
    voxels = np.arange(start, start + size)
    if outside == "border" or n == 1:
        return voxels.clip(0, n - 1)
    turned: npt.NDArray[np.int64] = (n - 1) - np.abs(voxels % (2 * n - 2) - (n - 1))
    return turned


def whole(shape: Int3) -> PatchLocation:
    """The location of a whole volume."""
    return PatchLocation((0, 0, 0), shape)


def centred_on(voxel: Int3, size: Int3, shape: Int3, target: int | None = None) -> PatchLocation:
    """The patch around `voxel`, moved as little as needed to lie in the volume.

    The voxel is at index `size // 2` of the patch unless the border is near. Along an axis where the patch is larger than the volume, the
    volume is centred in the patch, so that the overhang is shared between both sides.
    """
    start = [_start(v - s // 2, s, n) for v, s, n in zip(voxel, size, shape, strict=True)]
    return PatchLocation((start[0], start[1], start[2]), size, target)


def last_start(size: Int3, shape: Int3) -> Int3:
    """The largest start along each axis at which the patch lies in the volume; 0 where the patch is larger."""
    i, j, k = (max(n - s, 0) for s, n in zip(size, shape, strict=True))
    return i, j, k


def clamped(start: Int3, size: SizeLike, shape: Int3) -> PatchLocation:
    """The patch at `start`, moved as little as needed to lie in the volume (centred on it where it is larger)."""
    size = int3(size, "size")
    i, j, k = (_start(a, s, n) for a, s, n in zip(start, size, shape, strict=True))
    return PatchLocation((i, j, k), size)


def _start(wanted: int, size: int, n: int) -> int:
    if size >= n:
        return -((size - n) // 2)
    return min(max(wanted, 0), n - size)
