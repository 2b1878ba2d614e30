"""Where the voxels of a patch come from: a map from output voxel to source voxel, in voxel coordinates of the volume.

A map is a sequence of stages that a point goes through, from the output to the source. Transforms compose by putting their stages in a
row; neighbouring affine stages become one. Nothing here touches voxels: the kernels carry maps out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchflow.geometry.location import PatchLocation
from patchflow.types import Affine, Array

Float3 = tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class AffineStage:
    """point -> matrix point.

    Attributes:
        matrix: 4x4 float64, finite, last row 0 0 0 1.
    """

    matrix: Affine

    def bounds(self, low: Array, high: Array) -> tuple[Array, Array]:
        """The box that holds the image of a box; the sum's order is that of the kernels, every step of which is monotone."""
        linear = self.matrix[:3, :3]
        least, most = (np.where(linear >= 0, a[None, :], b[None, :]) for a, b in ((low, high), (high, low)))
        ends = [((linear[:, 0] * p[:, 0] + linear[:, 1] * p[:, 1]) + self.matrix[:3, 3]) + linear[:, 2] * p[:, 2] for p in (least, most)]
        return ends[0], ends[1]


@dataclass(frozen=True, slots=True)
class ElasticStage:
    """point -> point + displacement(point): a uniform cubic B-spline over a lattice of control points that has no end.

    The displacement of a control point is a function of the key and of its place in the lattice, uniform in [-amplitude, amplitude] along
    each axis, so that all of a volume's patches see the same field. The spline is a convex combination of control points: no displacement
    exceeds the amplitude.

    Attributes:
        key: 0 <= key < 2^64.
        origin: where control point (0, 0, 0) lies, in voxels.
        spacing: voxels between control points along each axis, above 0.
        amplitude: the greatest displacement along each axis, in voxels.
    """

    key: int
    origin: Float3
    spacing: Float3
    amplitude: Float3

    def bounds(self, low: Array, high: Array) -> tuple[Array, Array]:
        """The box that holds the image of a box."""
        amplitude = np.asarray(self.amplitude) * (1 + 1e-12)  # rounding may carry a sum of weights that add up to 1 beyond it
        return low - amplitude, high + amplitude


@dataclass(frozen=True, slots=True)
class CoarseStage:
    """Samples lie `step` voxels apart along one axis; a point between two takes both, weighted linearly (nearest: the nearer one).

    Attributes:
        axis: 0 (I), 1 (J) or 2 (K).
        step: voxels between samples, at least 1.
        origin: where one sample lies along the axis, in voxels.
    """

    axis: int
    step: float
    origin: float

    def bounds(self, low: Array, high: Array) -> tuple[Array, Array]:
        """The box that holds the samples of a box."""
        low, high = low.copy(), high.copy()
        low[self.axis] = self.origin + self.step * np.floor((low[self.axis] - self.origin) / self.step)
        high[self.axis] = self.origin + self.step * (np.floor((high[self.axis] - self.origin) / self.step) + 1)
        return low, high


Stage = AffineStage | ElasticStage | CoarseStage


class Copy(NamedTuple):
    """A map that moves whole voxels: read `location`, reversed along each axis where `mirrored` is set."""

    location: PatchLocation
    mirrored: tuple[bool, bool, bool]


@dataclass(frozen=True, slots=True, eq=False)
class SpatialMap:
    """Output voxel to source voxel.

    Attributes:
        stages: in the order in which a point goes through them, from the output to the source; no two neighbours are affine.
    """

    stages: tuple[Stage, ...]

    @classmethod
    def affine(cls, matrix: npt.ArrayLike) -> "SpatialMap":
        """The map of a 4x4 matrix, output voxel to source voxel."""
        return cls((AffineStage(np.asarray(matrix, np.float64)),))

    @property
    def matrix(self) -> Affine | None:
        """4x4 float64 where the map is affine, None where it is more."""
        if not self.stages:
            return np.eye(4)
        stage = self.stages[0]
        return stage.matrix if len(self.stages) == 1 and isinstance(stage, AffineStage) else None

    def then(self, following: "SpatialMap") -> "SpatialMap":
        """The map of doing this transform first and `following` on its result: an output voxel goes back through `following`, then this."""
        stages = [*following.stages]
        for stage in self.stages:
            if stages and isinstance(stages[-1], AffineStage) and isinstance(stage, AffineStage):
                products = stage.matrix[:, :, None] * stages[-1].matrix[None, :, :]  # no BLAS call: those differ in the last bit
                stages[-1] = AffineStage(products.sum(axis=1))
            else:
                stages.append(stage)
        return SpatialMap(tuple(stages))

    def bounds(self, location: PatchLocation) -> tuple[Array, Array]:
        """The least and the greatest source coordinates of the voxels of `location`: float64 (3,) each, never too tight."""
        low = np.array(location.start, np.float64)
        high = np.array(location.stop, np.float64) - 1
        with np.errstate(invalid="ignore", over="ignore"):  # the caller sees bounds that are not finite
            for stage in self.stages:
                low, high = stage.bounds(low, high)
        return low, high

    def as_copy(self, location: PatchLocation) -> Copy | None:
        """How to copy `location` instead of interpolating: where the map shifts and mirrors by whole voxels; None where it does more."""
        matrix = self.matrix
        if matrix is None:
            return None
        start, mirrored = [], []
        for axis, row in enumerate(matrix[:3].tolist()):
            sign, shift = row[axis], row[3]
            if abs(sign) != 1 or shift != round(shift) or any(row[other] for other in range(3) if other != axis):
                return None
            end = location.start[axis] if sign > 0 else location.stop[axis] - 1
            start.append(int(sign) * end + int(shift))
            mirrored.append(sign < 0)
        return Copy(PatchLocation((start[0], start[1], start[2]), location.size), (mirrored[0], mirrored[1], mirrored[2]))


def about(anchor: Sequence[float], linear: npt.ArrayLike, shift: npt.ArrayLike = (0.0, 0.0, 0.0)) -> Affine:
    """4x4 of x -> anchor + linear (x - anchor) + shift, in voxels; exact where `linear` only mirrors."""
    centre, matrix = np.asarray(anchor, np.float64), np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = (centre - (matrix[:3, :3] * centre).sum(axis=1)) + np.asarray(shift, np.float64)
    return matrix
