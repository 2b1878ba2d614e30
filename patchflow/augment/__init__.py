"""Random transforms, drawn and applied per patch."""

from patchflow.augment.base import Context, IntensityTransform, SpatialTransform, Transform
from patchflow.augment.intensity import RandomBrightness, RandomGamma, RandomNoise
from patchflow.augment.recipe import Recipe
from patchflow.augment.spatial import RandomAffine, RandomFlip

__all__ = [
    "Context",
    "IntensityTransform",
    "RandomAffine",
    "RandomBrightness",
    "RandomFlip",
    "RandomGamma",
    "RandomNoise",
    "Recipe",
    "SpatialTransform",
    "Transform",
]
