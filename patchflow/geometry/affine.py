"""What a 4x4 affine says about the voxels it places."""

import numpy as np
import numpy.typing as npt


def spacing(affine: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Distance in millimetres between neighbouring voxels along I, J and K: float64 (3,), the norms of the affine's first three columns.

    Args:
        affine: 4x4, voxel index to RAS+ millimetres; rotated and sheared affines are fine.
    """
    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    norms: npt.NDArray[np.float64] = np.sqrt((columns * columns).sum(axis=0))
    return norms
