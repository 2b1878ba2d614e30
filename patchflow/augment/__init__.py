"""Random transforms, drawn and applied per patch."""

from patchflow.augment.artefacts import RandomBiasField, RandomGhosting, RandomSpike
from patchflow.augment.base import Context, IntensityTransform, SpatialTransform, Transform
from patchflow.augment.choice import OneOf, SomeOf
from patchflow.augment.config import load_recipe
from patchflow.augment.deferred import Deferred, DeferredBatch
from patchflow.augment.intensity import RandomBrightness, RandomContrast, RandomGamma, RandomHistogramShift
from patchflow.augment.kspace import RandomGibbs, RandomMotion
from patchflow.augment.noise import RandomNoise
from patchflow.augment.presets import ct, mri, nnunet
from patchflow.augment.ranges import Balanced, Reciprocal, Uniform
from patchflow.augment.recipe import Recipe
from patchflow.augment.regions import RandomCutout, RandomSwap
from patchflow.augment.sharpness import RandomBlur, RandomLowResolution, RandomSharpen
from patchflow.augment.spatial import RandomAffine, RandomAnisotropy, RandomElastic, RandomFlip

__all__ = [
    "Balanced",
    "Context",
    "Deferred",
    "DeferredBatch",
    "IntensityTransform",
    "OneOf",
    "RandomAffine",
    "RandomAnisotropy",
    "RandomBiasField",
    "RandomBlur",
    "RandomBrightness",
    "RandomContrast",
    "RandomCutout",
    "RandomElastic",
    "RandomFlip",
    "RandomGamma",
    "RandomGhosting",
    "RandomGibbs",
    "RandomHistogramShift",
    "RandomLowResolution",
    "RandomMotion",
    "RandomNoise",
    "RandomSharpen",
    "RandomSpike",
    "RandomSwap",
    "Recipe",
    "Reciprocal",
    "SomeOf",
    "SpatialTransform",
    "Transform",
    "Uniform",
    "ct",
    "load_recipe",
    "mri",
    "nnunet",
]
