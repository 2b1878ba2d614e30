"""Random flips, affine maps, elastic deformations and coarse sampling: maps of where voxels come from."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from patchflow.augment.base import Context, ImageInfo, Parameters, SpatialTransform
from patchflow.augment.counts import voxel_axes
from patchflow.augment.ranges import Limits, RangeLike, RangesLike, axis_ranges, one_range
from patchflow.errors import ArgumentError
from patchflow.geometry.maps import CoarseStage, ElasticStage, SpatialMap, about
from patchflow.kernels.displacement import FOLD_BOUND
from patchflow.types import Affine


class RandomFlip(SpatialTransform):
    """Mirror the patch along each of some axes, about the patch's centre. Voxels are copied, not interpolated.

    Args:
        axes: voxel axes that may be mirrored: 0 (I), 1 (J), 2 (K), or several.
        p: probability of each axis by itself.
        keys: names of the images to change; None for all. Leaving an image out leaves it unaligned with the others.

    Raises:
        ArgumentError: for an axis other than 0, 1 and 2, an axis given twice, or a `p` outside 0 to 1.
    """

    def __init__(self, axes: int | Sequence[int] = (0, 1, 2), p: float = 0.5, *, keys: Sequence[str] | None = None) -> None:
        super().__init__(p=p, keys=keys)
        self.axes = voxel_axes(axes)

    def happens(self, rng: np.random.Generator) -> bool:
        """Always: `p` is the probability of each axis, drawn in `draw`."""
        return True

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters | None:
        axes = [axis for axis in self.axes if rng.random() < self.p]
        return {"axes": axes} if axes else None

    def map(self, parameters: Parameters, context: Context) -> Affine:
        return about(context.anchor, np.diag([-1.0 if axis in parameters["axes"] else 1.0 for axis in range(3)]))


class RandomAffine(SpatialTransform):
    """Rotate, shear, scale and shift about the patch's centre, in millimetres along the voxel axes, as TorchIO 1 does for images in RAS+.

    A point of the anatomy at p millimetres from the centre, along I, J and K, goes to S (R H p + t): it is sheared, rotated, shifted, then
    scaled. So a scale of 1.1 makes the anatomy 1.1 times larger. R = Rz Rx Ry, the order of ITK's `Euler3DTransform`: rotation about J,
    then I, then K, each right-handed (a positive angle about K turns the axis I towards J). H adds tan(shear) times the second coordinate
    of a plane to its first. Spacing is respected: a rotation of an anisotropic volume is a rotation of the anatomy.

    Args:
        scales: x for (1 - x, 1 + x), a pair (low, high), three numbers (one x per axis), six (a pair per axis), or distributions.
        degrees: d for (-d, d), a pair, three numbers, six, or distributions; about the axes I, J, K.
        translation: millimetres: t for (-t, t), a pair, three numbers, six, or distributions; along I, J, K.
        shear: degrees, within -80 and 80: as `degrees`; of the planes IJ, IK and JK.
        isotropic: draw one number for the scales of all axes: the same scale where their ranges are the same.
        p: probability.
        keys: names of the images to change; None for all. Leaving an image out leaves it unaligned with the others.

    Raises:
        ArgumentError: for a range the wrong way round, a scale that is not above 0, or a `p` outside 0 to 1.
    """

    def __init__(
        self,
        scales: RangesLike = 0.1,
        degrees: RangesLike = 10,
        translation: RangesLike = 0,
        shear: RangesLike = 0,
        isotropic: bool = False,
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
    ) -> None:
        super().__init__(p=p, keys=keys)
        self.scales = axis_ranges(scales, "scales", Limits(around=1.0, above=0.0))
        self.degrees = axis_ranges(degrees, "degrees")
        self.translation = axis_ranges(translation, "translation")
        self.shear = axis_ranges(shear, "shear", Limits(least=-80, most=80))
        self.isotropic = bool(isotropic)

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        shares = [float(rng.random())] * 3 if self.isotropic else [float(rng.random()) for _ in range(3)]
        return {
            "scales": [scale.at(share) for scale, share in zip(self.scales, shares, strict=True)],
            "degrees": [angle.draw(rng) for angle in self.degrees],
            "translation": [shift.draw(rng) for shift in self.translation],
            "shear": [angle.draw(rng) for angle in self.shear],
        }

    def map(self, parameters: Parameters, context: Context) -> Affine:
        return affine_map(context, parameters["degrees"], parameters["translation"], parameters["scales"], parameters["shear"])


class RandomElastic(SpatialTransform):
    """Deform smoothly: displacements drawn at control points of a coarse grid, a cubic B-spline between them.

    Imitates how anatomy varies, as TorchIO's `RandomElasticDeformation` and the free-form deformations of registration do (Rueckert et al.,
    IEEE TMI 18, 1999). The grid has no end and belongs to the volume, not to the patch, so that all patches of a volume see one
    deformation. It never folds: Choi and Lee ("Injectivity conditions of 2D and 3D uniform cubic B-spline functions", Graphical Models 62,
    2000) show that none does whose control points move by less than their spacing / 2.4795 along each axis, and more is refused.

    Args:
        control_spacing: millimetres between control points: a number, or three, along I, J, K.
        max_displacement: millimetres, the greatest displacement of a control point along each axis: a number, a pair (low, high) from which
            one is drawn for each patch, or three numbers, along I, J, K. Displacements are uniform up to it, either way.
        p: probability.
        keys: names of the images to change; None for all. Leaving an image out leaves it unaligned with the others.

    Raises:
        ArgumentError: for a displacement at which the map could fold, a negative one, a spacing that is not above 0, or a `p` outside 0
            to 1.
    """

    def __init__(
        self,
        control_spacing: float | Sequence[float] = 32,
        max_displacement: RangesLike = 7.5,
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
    ) -> None:
        super().__init__(p=p, keys=keys)
        spacings = [ends.high for ends in axis_ranges(control_spacing, "control_spacing", Limits(one_sided=True))]
        if min(spacings) <= 0:
            raise ArgumentError(f"control_spacing must be above 0 mm, not {control_spacing!r}")
        self.control_spacing = tuple(spacings)
        drawn = isinstance(max_displacement, (list, tuple)) and len(max_displacement) == 2
        self.max_displacement = axis_ranges(max_displacement, "max_displacement", Limits(one_sided=True, least=0.0))
        self.fixed = not drawn
        for ends, apart in zip(self.max_displacement, spacings, strict=True):
            if ends.high >= apart / FOLD_BOUND:
                raise ArgumentError(
                    f"max_displacement {max_displacement!r} may fold the anatomy: with control points {apart:g} mm apart it must stay "
                    f"below {apart / FOLD_BOUND:.4g} mm; move it down or control_spacing up"
                )

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        share = 1.0 if self.fixed else float(rng.random())
        most = [ends.at(share) for ends in self.max_displacement]
        return {"max_displacement": most, "key": int(rng.integers(0, 2**64, dtype=np.uint64))}

    def map(self, parameters: Parameters, context: Context) -> SpatialMap:
        apart = [length / size for length, size in zip(self.control_spacing, context.spacing, strict=True)]
        most = [length / size for length, size in zip(parameters["max_displacement"], context.spacing, strict=True)]
        stage = ElasticStage(parameters["key"], context.anchor, (apart[0], apart[1], apart[2]), (most[0], most[1], most[2]))
        return SpatialMap((stage,))


class RandomAnisotropy(SpatialTransform):
    """Sample more coarsely along one axis, and interpolate back: thick slices, brought to a fine grid.

    Imitates scans with a large spacing along one axis, as TorchIO's `RandomAnisotropy` does (Billot et al., "Partial volume segmentation of
    brain MRI scans of any resolution and contrast", MICCAI 2020). Label maps stay as they are unless `keys` names them; a voxel then takes
    the label of the nearest sample. Samples are read as the recipe interpolates images.

    Args:
        axes: voxel axes of which one is drawn: 0 (I), 1 (J), 2 (K), or several.
        downsampling: how many times further apart samples lie: m for (1, m), or a pair (low, high); at least 1.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.

    Raises:
        ArgumentError: for a factor below 1, a range the wrong way round, an axis other than 0, 1 and 2, or a `p` outside 0 to 1.
    """

    def __init__(
        self,
        axes: int | Sequence[int] = (0, 1, 2),
        downsampling: RangeLike = (1.5, 5),
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
    ) -> None:
        super().__init__(p=p, keys=keys)
        self.axes = voxel_axes(axes)
        given: Any = (1.0, downsampling) if isinstance(downsampling, (int, float)) and not isinstance(downsampling, bool) else downsampling
        self.downsampling = one_range(given, "downsampling", Limits(least=1.0))

    def takes(self, image: str, info: ImageInfo) -> bool:
        return info.kind == "scalar" if self.keys is None else image in self.keys

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        return {"axis": self.axes[int(rng.integers(len(self.axes)))], "downsampling": self.downsampling.draw(rng)}

    def map(self, parameters: Parameters, context: Context) -> SpatialMap:
        axis = parameters["axis"]
        return SpatialMap((CoarseStage(axis, parameters["downsampling"], context.anchor[axis]),))


def affine_map(
    context: Context,
    degrees: Sequence[float],
    translation: Sequence[float],
    scales: Sequence[float] = (1.0, 1.0, 1.0),
    shear: Sequence[float] = (0.0, 0.0, 0.0),
) -> Affine:
    """Output voxel to source voxel of an anatomy that is moved as `RandomAffine` says: 4x4, about the anchor, in millimetres."""
    spacing = np.asarray(context.spacing, np.float64)
    back = product(unsheared(shear), euler(degrees).T)  # output to source: p = H^-1 R^T (S^-1 p' - t)
    linear = (back / np.asarray(scales, np.float64)[None, :]) * spacing[None, :] / spacing[:, None]
    shift = -(back * np.asarray(translation, np.float64)[None, :]).sum(axis=1) / spacing
    return about(context.anchor, linear, shift)


def euler(degrees: Sequence[float]) -> npt.NDArray[np.float64]:
    """Rz Rx Ry (3x3) of angles in degrees about I, J and K."""
    (cx, sx), (cy, sy), (cz, sz) = ((math.cos(math.radians(angle)), math.sin(math.radians(angle))) for angle in degrees)
    return np.array(
        [
            [cz * cy - sz * sx * sy, -sz * cx, cz * sy + sz * sx * cy],
            [sz * cy + cz * sx * sy, cz * cx, sz * sy - cz * sx * cy],
            [-cx * sy, sx, cx * cy],
        ]
    )


def unsheared(degrees: Sequence[float]) -> npt.NDArray[np.float64]:
    """The inverse (3x3) of [[1, a, b], [0, 1, c], [0, 0, 1]], a, b, c being the tangents of angles in degrees."""
    a, b, c = (math.tan(math.radians(angle)) for angle in degrees)
    return np.array([[1.0, -a, a * c - b], [0.0, 1.0, -c], [0.0, 0.0, 1.0]])


def product(one: npt.NDArray[np.float64], two: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Matrix product, summed in a fixed order: BLAS differs between processors in the last bit."""
    result: npt.NDArray[np.float64] = (one[:, :, None] * two[None, :, :]).sum(axis=1)
    return result
