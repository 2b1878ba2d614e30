"""Filling boxes of a patch, and swapping pairs of them, in place."""

import numpy as np
import numpy.typing as npt
import torch

from patchflow.kernels.jit import kernel
from patchflow.types import Array, Int3


def fill_boxes(patch: Array, boxes: npt.NDArray[np.int64], value: float) -> None:
    """Give every voxel of some boxes a value, in place.

    Args:
        patch: float32 (C, i, j, k), C-contiguous.
        boxes: int64 (n, 6): indices in the patch of the first voxel of a box, and of one past its last; what lies beyond the patch is
            passed over.
        value: in units of the patch's values.
    """
    size = patch.shape[1:]
    inside = np.clip(boxes, 0, [*size, *size])
    for volume in patch:
        _fill(volume, inside, np.float32(value))


def plain_fill_boxes(patch: torch.Tensor, boxes: npt.NDArray[np.int64], value: float) -> None:
    """What `fill_boxes` does, on any device."""
    for i, j, k, i2, j2, k2 in np.maximum(boxes, 0).tolist():
        patch[:, i:i2, j:j2, k:k2] = value


def swap_boxes(patch: Array, pairs: npt.NDArray[np.int64], size: Int3) -> None:
    """Swap the voxels of each pair of boxes, in place.

    Args:
        patch: float32 (C, i, j, k), C-contiguous.
        pairs: int64 (n, 6): indices in the patch of the first voxels of both boxes. No box may overlap another.
        size: voxels of a box, all in the patch.
    """
    for volume in patch:
        _swap(volume, pairs, size)


def plain_swap_boxes(patch: torch.Tensor, pairs: npt.NDArray[np.int64], size: Int3) -> None:
    """What `swap_boxes` does, on any device."""
    for pair in pairs.tolist():
        one, two = (patch[:, i : i + size[0], j : j + size[1], k : k + size[2]] for i, j, k in (pair[:3], pair[3:]))
        kept = one.clone()
        one.copy_(two)
        two.copy_(kept)


@kernel
def _fill(volume, boxes, value):  # type: ignore[no-untyped-def]
    for n in range(boxes.shape[0]):
        for i in range(boxes[n, 0], boxes[n, 3]):
            for j in range(boxes[n, 1], boxes[n, 4]):
                row = volume[i, j, boxes[n, 2] : max(boxes[n, 2], boxes[n, 5])]
                for k in range(row.size):
                    row[k] = value


@kernel
def _swap(volume, pairs, size):  # type: ignore[no-untyped-def]
    for n in range(pairs.shape[0]):
        i, j, k, i2, j2, k2 = pairs[n, 0], pairs[n, 1], pairs[n, 2], pairs[n, 3], pairs[n, 4], pairs[n, 5]
        for di in range(size[0]):
            for dj in range(size[1]):
                one, two = volume[i + di, j + dj, k : k + size[2]], volume[i2 + di, j2 + dj, k2 : k2 + size[2]]
                for dk in range(size[2]):
                    one[dk], two[dk] = two[dk], one[dk]
