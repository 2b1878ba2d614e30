"""Random flips and affine maps."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from patchflow.augment.base import Context, Interpolation, Parameters, SpatialTransform
from patchflow.augment.maps import about
from patchflow.augment.ranges import RangesLike, axis_ranges, uniform
from patchflow.errors import ArgumentError
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
        given: tuple[Any, ...] = tuple(axes) if isinstance(axes, (Sequence, np.ndarray)) else (axes,)
        if not given or any(isinstance(axis, bool) or axis not in (0, 1, 2) for axis in given) or len(set(given)) < len(given):
            raise ArgumentError(f"axes must be voxel axes from 0, 1 and 2, each once, not {axes!r}")
        self.axes = tuple(int(axis) for axis in given)

    def happens(self, rng: np.random.Generator) -> bool:
        """Always: `p` is the probability of each axis, drawn in `draw`."""
        return True

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters | None:
        axes = [axis for axis in self.axes if rng.random() < self.p]
        return {"axes": axes} if axes else None

    def matrix(self, parameters: Parameters, context: Context) -> Affine:
        return about(context.anchor, np.diag([-1.0 if axis in parameters["axes"] else 1.0 for axis in range(3)]))


class RandomAffine(SpatialTransform):
    """Rotate, scale and shift about the patch's centre, in millimetres along the voxel axes, as TorchIO 1 does for images in RAS+.

    A point of the anatomy at p millimetres from the centre, along I, J and K, goes to S (R p + t): it is rotated, shifted, then scaled.
    So a scale of 1.1 makes the anatomy 1.1 times larger. R = Rz Rx Ry, the order of ITK's `Euler3DTransform`: rotation about J, then I,
    then K, each right-handed (a positive angle about K turns the axis I towards J).

    Args:
        scales: x for (1 - x, 1 + x), a pair (low, high), three numbers (one x per axis), or six (a pair per axis).
        degrees: d for (-d, d), a pair, three numbers, or six; about the axes I, J, K.
        translation: millimetres: t for (-t, t), a pair, three numbers, or six; along I, J, K.
        isotropic: draw one scale for all axes; `scales` is then a number or a pair.
        image_interpolation: of `ScalarImage`s: "linear" or "nearest".
        label_interpolation: of `LabelMap`s: "nearest".
        p: probability.
        keys: names of the images to change; None for all. Leaving an image out leaves it unaligned with the others.

    Raises:
        ArgumentError: for a range the wrong way round, a scale that is not above 0, an unknown interpolation, or a `p` outside 0 to 1.
    """

    def __init__(
        self,
        scales: RangesLike = 0.1,
        degrees: RangesLike = 10,
        translation: RangesLike = 0,
        isotropic: bool = False,
        *,
        image_interpolation: Interpolation = "linear",
        label_interpolation: Interpolation = "nearest",
        p: float = 1.0,
        keys: Sequence[str] | None = None,
    ) -> None:
        super().__init__(p=p, keys=keys)
        self.scales = axis_ranges(scales, "scales", around=1.0, above=0.0)
        self.degrees = axis_ranges(degrees, "degrees")
        self.translation = axis_ranges(translation, "translation")
        self.isotropic = bool(isotropic)
        if isotropic and not self.scales[0] == self.scales[1] == self.scales[2]:
            raise ArgumentError(f"with isotropic=True one scale is drawn for all axes: give scales as a number or a pair, not {scales!r}")
        if image_interpolation not in ("linear", "nearest"):
            raise ArgumentError(f'image_interpolation must be "linear" or "nearest", not {image_interpolation!r}')
        if label_interpolation != "nearest":
            raise ArgumentError(f'label_interpolation must be "nearest", not {label_interpolation!r}')
        self.interpolation = {"scalar": image_interpolation, "label": label_interpolation}

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        scales = [uniform(rng, ends) for ends in self.scales[: 1 if self.isotropic else 3]]
        return {
            "scales": scales * (3 if self.isotropic else 1),
            "degrees": [uniform(rng, ends) for ends in self.degrees],
            "translation": [uniform(rng, ends) for ends in self.translation],
        }

    def matrix(self, parameters: Parameters, context: Context) -> Affine:
        spacing = np.asarray(context.spacing, np.float64)
        back = euler(parameters["degrees"]).T  # output to source is the inverse: p = R^T (S^-1 p' - t)
        linear = (back / np.asarray(parameters["scales"], np.float64)[None, :]) * spacing[None, :] / spacing[:, None]
        shift = -(back * np.asarray(parameters["translation"], np.float64)[None, :]).sum(axis=1) / spacing
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
