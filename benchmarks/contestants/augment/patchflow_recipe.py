"""patchflow: what its queue does for a patch, drawing and applying a recipe of one transform, from a contiguous cache into given tensors.

`build` times the recipe of the row, `build_read` a recipe without transforms: what reading alone costs. The region is read once before each
call, so that it is as near to the processor as the copies that peers are handed.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import patchflow as pf
from benchmarks.contestants.augment import rows
from benchmarks.contestants.augment.rows import Call, Material, Row

NEEDS = ("patchflow",)


def build(row: Row, material: Material) -> Call:
    return _call(RECIPES[row.name](material.size / 128), row, material)


def build_read(row: Row, material: Material) -> Call:
    return _call(pf.Recipe([]), row, material)


def _call(steps: pf.Recipe, row: Row, material: Material) -> Call:
    entry, location, rng = material.entry(row), material.location, np.random.default_rng(0)
    out = {name: torch.empty((1, *location.size), dtype=torch.float32 if name == "image" else torch.uint8) for name in row.images}

    def fresh() -> None:
        for name in row.images:
            entry.read(name, location, out=out[name].numpy())

    def run(_: None) -> dict[str, torch.Tensor]:
        return steps.apply(entry, location, steps.draw(rng, entry, location), out=out, keys=row.images)

    return Call(fresh, run)


def recipe(name: str, /, *, of_recipe: dict[str, Any] | None = None, **settings: Any) -> Callable[[float], pf.Recipe]:
    """A recipe of one transform, looked up by name when it is made; lengths in voxels are given for a patch of 128 and scaled."""

    def make(scale: float) -> pf.Recipe:
        scaled = {key: int(value * scale) if key in LENGTHS else value for key, value in settings.items()}
        return pf.Recipe([getattr(pf.augment, name)(p=1, **scaled)], **(of_recipe or {}))

    return make


LENGTHS = ("size", "patch_size")
FIXED = (rows.FACTOR,) * 2
GAMMA = (math.log(rows.GAMMA),) * 2
AFFINE = {"scales": (rows.SCALE,) * 2, "degrees": (rows.DEGREES,) * 2, "isotropic": True}
OF_PATCH = {"statistics": "patch"}  # as peers do; those of the volume, the default, cost no pass over the patch
ARG_MAX = {"label_interpolation": "linear"}
RECIPES: dict[str, Callable[[float], pf.Recipe]] = {
    "flip, image and label": recipe("RandomFlip", axes=(0, 1, 2)),
    "affine, linear, image": recipe("RandomAffine", **AFFINE),
    "affine, nearest, label": recipe("RandomAffine", **AFFINE),
    "affine, linear image, nearest label": recipe("RandomAffine", **AFFINE),
    "affine, linear image, arg-max of 2 labels": recipe("RandomAffine", of_recipe=ARG_MAX, **AFFINE),
    "affine, linear image, arg-max of 8 labels": recipe("RandomAffine", of_recipe=ARG_MAX, **AFFINE),
    "affine, cubic, image": recipe("RandomAffine", of_recipe={"image_interpolation": "cubic"}, **AFFINE),
    "elastic, linear image, nearest label": recipe(
        "RandomElastic", control_spacing=rows.CONTROL_SPACING, max_displacement=rows.MAX_DISPLACEMENT
    ),
    "anisotropy": recipe("RandomAnisotropy", axes=(2,), downsampling=(rows.DOWNSAMPLING,) * 2),
    "noise, Gaussian": recipe("RandomNoise", std=(rows.STD,) * 2),
    "noise, Rician": recipe("RandomNoise", std=(rows.STD,) * 2, kind="rician"),
    "blur": recipe("RandomBlur", std=(rows.SIGMA,) * 2),
    "sharpen": recipe("RandomSharpen", amount=(1.0, 1.0), std=(rows.SIGMA,) * 2),
    "brightness": recipe("RandomBrightness", factor=FIXED),
    "contrast": recipe("RandomContrast", factor=FIXED, preserve_range=False, **OF_PATCH),
    "contrast, range kept": recipe("RandomContrast", factor=FIXED, preserve_range=True, **OF_PATCH),
    "gamma": recipe("RandomGamma", log_gamma=GAMMA, **OF_PATCH),
    "gamma, inverted, statistics kept": recipe("RandomGamma", log_gamma=GAMMA, invert=True, retain_stats=True, **OF_PATCH),
    "low resolution": recipe("RandomLowResolution", zoom=(rows.ZOOM,) * 2),
    "histogram shift": recipe("RandomHistogramShift", num_control_points=10),
    "cutout": recipe("RandomCutout", size=rows.HOLE, count=rows.HOLES, fill=0.0),
    "swap": recipe("RandomSwap", patch_size=rows.SWAPPED, num_iterations=rows.SWAPS),
    "bias field": recipe("RandomBiasField", coefficients=0.5, order=3),
    "motion": recipe("RandomMotion", degrees=(5.0, 5.0), translation=(3.0, 3.0), num_transforms=2),
    "ghosting": recipe("RandomGhosting", num_ghosts=4, axes=(1,), intensity=(0.7, 0.7)),
    "spike": recipe("RandomSpike", num_spikes=1, intensity=(2.0, 2.0)),
    "Gibbs": recipe("RandomGibbs", alpha=(0.5, 0.5)),
    "affine, linear, against torch": recipe("RandomAffine", **AFFINE),
    "affine, nearest, against torch": recipe("RandomAffine", of_recipe={"image_interpolation": "nearest"}, **AFFINE),
}
