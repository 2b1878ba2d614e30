"""MONAI: its array transforms on tensors; its dictionary transforms where image and label map change together."""

import math
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.contestants.augment import rows
from benchmarks.contestants.augment.rows import Call, Material, Row

NEEDS = ("monai",)


def build(row: Row, material: Material) -> Call | None:
    if row.name not in TRANSFORMS:
        return None
    transform = TRANSFORMS[row.name](material.size)
    if len(row.images) > 1:
        return Call(lambda: material.fresh(row), transform)
    return Call(lambda: material.fresh(row)[row.images[0]], transform)


def _array(name: str, **settings: Any) -> Callable[[int], Callable[[torch.Tensor], Any]]:
    """A transform of MONAI that always happens."""

    def make(size: int) -> Callable[[torch.Tensor], Any]:
        import monai.transforms

        return getattr(monai.transforms, name)(prob=1, **settings)

    return make


def _affine(name: str, mode: Any, **settings: Any) -> Callable[[int], Callable[[Any], Any]]:
    """The grid of coordinates is cached, which its documentation says is faster where the size is always the same."""
    angle, scale = math.radians(rows.DEGREES), 1 / rows.SCALE - 1
    ranges = {"rotate_range": [(angle, angle)] * 3, "scale_range": [(scale, scale)] * 3, "padding_mode": "zeros"}
    return lambda size: _array(name, mode=mode, spatial_size=(size,) * 3, cache_grid=True, **{**ranges, **settings})(size)


def _elastic(size: int) -> Callable[[Any], Any]:
    sigma = rows.CONTROL_SPACING / 4  # within the range of its own examples; a wider one costs more
    magnitude = (rows.MAX_DISPLACEMENT * 15,) * 2  # it multiplies noise that smoothing has taken most of
    modes = ("bilinear", "nearest")
    return _array("Rand3DElasticd", keys=rows.BOTH, sigma_range=(sigma,) * 2, magnitude_range=magnitude, mode=modes, padding_mode="zeros")(
        size
    )


def _cutout(size: int) -> Callable[[Any], Any]:
    return _array("RandCoarseDropout", holes=rows.HOLES, spatial_size=rows.HOLE * size // 128, fill_value=0.0)(size)


SIGMAS = {f"sigma_{axis}": (rows.SIGMA,) * 2 for axis in "xyz"}
SHARPEN = {f"sigma1_{axis}": (rows.SIGMA,) * 2 for axis in "xyz"}
GAMMA = (rows.GAMMA,) * 2
FACTORS = (rows.FACTOR - 1,) * 2
TRANSFORMS: dict[str, Callable[[int], Callable[[Any], Any]]] = {
    "flip, image and label": _array("RandFlipd", keys=rows.BOTH, spatial_axis=(0, 1, 2)),
    "affine, linear, image": _affine("RandAffine", "bilinear"),
    "affine, nearest, label": _affine("RandAffine", "nearest"),
    "affine, linear image, nearest label": _affine("RandAffined", ("bilinear", "nearest"), keys=rows.BOTH),
    "affine, cubic, image": _affine("RandAffine", 3, padding_mode="constant"),
    "elastic, linear image, nearest label": _elastic,
    "noise, Gaussian": _array("RandGaussianNoise", std=rows.STD, sample_std=False),
    "noise, Rician": _array("RandRicianNoise", std=rows.STD, sample_std=False),
    "blur": _array("RandGaussianSmooth", **SIGMAS),
    "sharpen": _array("RandGaussianSharpen", alpha=(10.0, 10.0), **SHARPEN),
    "brightness": _array("RandScaleIntensity", factors=FACTORS),
    "contrast": _array("RandScaleIntensityFixedMean", factors=FACTORS),
    "contrast, range kept": _array("RandScaleIntensityFixedMean", factors=FACTORS, preserve_range=True),
    "gamma": _array("RandAdjustContrast", gamma=GAMMA),
    "gamma, inverted, statistics kept": _array("RandAdjustContrast", gamma=GAMMA, invert_image=True, retain_stats=True),
    "low resolution": _array("RandSimulateLowResolution", zoom_range=(rows.ZOOM,) * 2),
    "histogram shift": _array("RandHistogramShift", num_control_points=10),
    "cutout": _cutout,
    "bias field": _array("RandBiasField", degree=3, coeff_range=(0.1, 0.1)),
    "spike": _array("RandKSpaceSpikeNoise", intensity_range=(14.0, 14.0)),
    "Gibbs": _array("RandGibbsNoise", alpha=(0.5, 0.5)),
}
