"""From the order of voxels in files (I fastest, K slowest) to the order of arrays (K fastest), a slab of slices at a time.

NumPy's copy of a transposed array takes one cache miss per voxel (1.2 s for 512x512x240 int16); moving tiles that fit the first level
cache takes 0.1 s.
"""

import numpy as np

from patchflow.kernels.jit import kernel
from patchflow.types import Array, Int3

TILE_SLICES = 64
"""Most slices of a slab that a tile holds: as many neighbours along K are written in one run."""

_TILE_BYTES = 256


def slab_to_volume(slab: Array, volume: Array, first: int) -> None:
    """Copy a slab of slices, as a file holds them, into a volume.

    Args:
        slab: C-contiguous (k, J, I): slices `first` to `first + k` of the volume, I fastest.
        volume: C-contiguous (I, J, K) of the same dtype (1, 2, 4 or 8 bytes per voxel); written in place.
        first: the slab's first slice along K.
    """
    i, j, k = volume.shape
    size = volume.dtype.itemsize
    unsigned = f"u{size}"  # the bytes are moved as they are, so that all dtypes of a size share one kernel
    source, target = slab.reshape(-1).view(unsigned), volume.reshape(-1).view(unsigned)
    _move(source, target, (i, j, k), first, slab.shape[0], _TILE_BYTES // size)


def plain_slab_to_volume(slab: Array, volume: Array, first: int) -> None:
    """The plain twin of `slab_to_volume`."""
    volume[:, :, first : first + slab.shape[0]] = slab.transpose(2, 1, 0)


@kernel
def _move(slab: Array, volume: Array, shape: Int3, first: int, count: int, block: int) -> None:
    # Positions are unsigned: signed ones are tested for counting from the end, which doubles the time.
    zero, step, depth_of_tile = np.uint64(0), np.uint64(block), np.uint64(TILE_SLICES)
    ni, nj, nk, begin, slices = np.uint64(shape[0]), np.uint64(shape[1]), np.uint64(shape[2]), np.uint64(first), np.uint64(count)
    tile = np.empty(block * TILE_SLICES, slab.dtype)
    for k0 in range(zero, slices, depth_of_tile):
        depth = min(depth_of_tile, slices - k0)
        for j in range(zero, nj):
            for i0 in range(zero, ni, step):
                width = min(step, ni - i0)
                for k in range(zero, depth):
                    source = ((k0 + k) * nj + j) * ni + i0
                    for i in range(zero, width):
                        tile[i * depth_of_tile + k] = slab[source + i]
                for i in range(zero, width):
                    target = ((i0 + i) * nj + j) * nk + begin + k0
                    for k in range(zero, depth):
                        volume[target + k] = tile[i * depth_of_tile + k]
