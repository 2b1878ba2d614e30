"""batchgeneratorsv2, nnU-Net's transforms: with one channel, on tensors, the label map int16 as nnU-Net hands it over.

MirrorTransform, which draws axes, is told to take all of them after that. The mode that finds out how best to blur is on, as in nnU-Net.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.contestants.augment import rows
from benchmarks.contestants.augment.rows import Call, Material, Row

NEEDS = ("batchgeneratorsv2",)


def build(row: Row, material: Material) -> Call | None:
    if row.name not in TRANSFORMS:
        return None

    def fresh() -> dict[str, torch.Tensor]:
        sample = {{"image": "image", "label": "segmentation"}[name]: tensor for name, tensor in material.fresh(row).items()}
        if "segmentation" in sample:
            sample["segmentation"] = sample["segmentation"].to(torch.int16)
        return sample

    return Call(fresh, TRANSFORMS[row.name](material.size))


def _called(transform: Any) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda sample: transform(**sample)


def _intensity(module: str, name: str, **settings: Any) -> Callable[[int], Callable[[Any], Any]]:
    def make(size: int) -> Callable[[Any], Any]:
        from importlib import import_module

        return _called(getattr(import_module(f"batchgeneratorsv2.transforms.{module}"), name)(**settings))

    return make


def _spatial(size: int, **settings: Any) -> Any:
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    return SpatialTransform((size,) * 3, patch_center_dist_from_border=0, random_crop=False, **settings)


def _affine_transform(size: int, mode_seg: str) -> Any:
    angle, scale = math.radians(rows.DEGREES), 1 / rows.SCALE
    settings = {"rotation": (angle, angle), "scaling": (scale, scale), "p_synchronize_scaling_across_axes": 1, "mode_seg": mode_seg}
    return _spatial(size, p_rotation=1, p_scaling=1, **settings)


def _affine(size: int, mode_seg: str = "nearest") -> Callable[[Any], Any]:
    return _called(_affine_transform(size, mode_seg))


def _affine_of_label(size: int) -> Callable[[Any], Any]:
    transform = _affine_transform(size, "nearest")
    image = torch.empty((1, size, size, size))  # it draws by an image's shape

    def run(sample: dict[str, torch.Tensor]) -> torch.Tensor:
        return transform._apply_to_segmentation(sample["segmentation"], **transform.get_parameters(image=image))

    return run


def _elastic(size: int) -> Callable[[Any], Any]:
    scale = rows.CONTROL_SPACING / 2 / size
    settings = {"elastic_deform_scale": (scale, scale), "elastic_deform_magnitude": (rows.MAX_DISPLACEMENT,) * 2, "mode_seg": "nearest"}
    return _called(_spatial(size, p_elastic_deform=1, **settings))


def _flip(size: int) -> Callable[[Any], Any]:
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform

    transform = MirrorTransform((0, 1, 2))
    return lambda sample: transform.apply(sample, **{**transform.get_parameters(**sample), "axes": [0, 1, 2]})


def _cutout(size: int) -> Callable[[Any], Any]:
    edge = rows.HOLE * size // 128
    return _intensity("noise.blank_rectangle", "BlankRectangleTransform", rectangle_size=edge, rectangle_value=0, num_rectangles=8)(size)


EVERY = {"synchronize_channels": False, "p_per_channel": 1}
TWICE = {"factor": (rows.FACTOR,) * 2, "gamma": (rows.GAMMA,) * 2}
TRANSFORMS: dict[str, Callable[[int], Callable[[Any], Any]]] = {
    "flip, image and label": _flip,
    "affine, linear, image": _affine,
    "affine, nearest, label": _affine_of_label,
    "affine, linear image, nearest label": _affine,
    "affine, linear image, arg-max of 2 labels": partial(_affine, mode_seg="bilinear"),
    "affine, linear image, arg-max of 8 labels": partial(_affine, mode_seg="bilinear"),
    "elastic, linear image, nearest label": _elastic,
    "noise, Gaussian": _intensity("intensity.gaussian_noise", "GaussianNoiseTransform", noise_variance=(rows.STD,) * 2, **EVERY),
    "noise, Rician": _intensity("noise.rician", "RicianNoiseTransform", noise_variance=(rows.STD,) * 2),
    "blur": _intensity("noise.gaussian_blur", "GaussianBlurTransform", blur_sigma=(rows.SIGMA,) * 2, benchmark=True, **EVERY),
    "sharpen": _intensity("noise.sharpen", "SharpeningTransform", strength=(0.2, 0.2)),
    "brightness": _intensity("intensity.brightness", "MultiplicativeBrightnessTransform", multiplier_range=TWICE["factor"], **EVERY),
    "contrast": _intensity("intensity.contrast", "ContrastTransform", contrast_range=TWICE["factor"], preserve_range=False, **EVERY),
    "contrast, range kept": _intensity(
        "intensity.contrast", "ContrastTransform", contrast_range=TWICE["factor"], preserve_range=True, **EVERY
    ),
    "gamma": _intensity("intensity.gamma", "GammaTransform", gamma=TWICE["gamma"], p_invert_image=0, p_retain_stats=0, **EVERY),
    "gamma, inverted, statistics kept": _intensity(
        "intensity.gamma", "GammaTransform", gamma=TWICE["gamma"], p_invert_image=1, p_retain_stats=1, **EVERY
    ),
    "low resolution": _intensity(
        "spatial.low_resolution",
        "SimulateLowResolutionTransform",
        scale=(rows.ZOOM,) * 2,
        synchronize_axes=True,
        ignore_axes=None,
        **EVERY,
    ),
    "cutout": _cutout,
}
