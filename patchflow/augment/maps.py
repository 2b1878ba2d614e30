"""The map of a patch: where each output voxel is read from, composed of the spatial transforms of a recipe."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchflow.geometry.location import PatchLocation
from patchflow.types import Affine


class Copy(NamedTuple):
    """A map that moves whole voxels: read `location`, reversed along each axis where `mirrored` is set."""

    location: PatchLocation
    mirrored: tuple[bool, bool, bool]


@dataclass(frozen=True, slots=True)
class SpatialMap:
    """Output voxel to source voxel, in voxel coordinates of the volume.

    Attributes:
        matrix: 4x4 float64, affine.
    """

    matrix: Affine

    def then(self, following: "SpatialMap") -> "SpatialMap":
        """The map of doing this transform first and `following` on its result.

        An output voxel goes back through `following` and then through this map, so the matrices multiply in list order.
        """
        products = (
            self.matrix[:, :, None] * following.matrix[None, :, :]
        )  # not a BLAS call: those differ between processors in the last bit
        return SpatialMap(products.sum(axis=1))

    def as_copy(self, location: PatchLocation) -> Copy | None:
        """How to copy `location` instead of interpolating: where the map shifts and mirrors by whole voxels; None where it does more."""
        rows = self.matrix[:3].tolist()
        start, mirrored = [], []
        for axis, row in enumerate(rows):
            sign, shift = row[axis], row[3]
            if abs(sign) != 1 or shift != round(shift) or any(row[other] for other in range(3) if other != axis):
                return None
            end = location.start[axis] if sign > 0 else location.stop[axis] - 1
            start.append(int(sign) * end + int(shift))
            mirrored.append(sign < 0)
        return Copy(PatchLocation((start[0], start[1], start[2]), location.size), (mirrored[0], mirrored[1], mirrored[2]))


def about(anchor: tuple[float, float, float], linear: npt.ArrayLike, shift: npt.ArrayLike = (0.0, 0.0, 0.0)) -> Affine:
    """4x4 of x -> anchor + linear (x - anchor) + shift, in voxels; exact where `linear` only mirrors."""
    centre, matrix = np.asarray(anchor, np.float64), np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = (centre - (matrix[:3, :3] * centre).sum(axis=1)) + np.asarray(shift, np.float64)
    return matrix
