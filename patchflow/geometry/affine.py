"""What a 4x4 affine says about the voxels it places."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

TOLERANCE = 0.1
"""Images are on one grid if no corner of one lies further than this from that of the other, in units of the smallest spacing."""


def spacing(affine: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Distance in millimetres between neighbouring voxels along I, J and K: float64 (3,), the norms of the affine's first three columns.

    Args:
        affine: 4x4, voxel index to RAS+ millimetres; rotated and sheared affines are fine.
    """
    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    norms: npt.NDArray[np.float64] = np.sqrt((columns * columns).sum(axis=0))
    return norms


def corners_apart(one: npt.ArrayLike, two: npt.ArrayLike, shape: Sequence[int]) -> float:
    """Millimetres between the two places of the corner voxel that two affines put furthest apart.

    Args:
        one: 4x4, voxel index to RAS+ millimetres.
        two: likewise.
        shape: voxels (I, J, K).
    """
    corners = np.array([(*corner, 1.0) for corner in product(*((0, n - 1) for n in shape))])
    moved = corners @ np.subtract(one, two, dtype=np.float64).T
    return float(np.linalg.norm(moved[:, :3], axis=1).max())
