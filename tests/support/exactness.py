"""Law 3 for one recipe and one place."""

import numpy as np

from patchflow import seeding
from patchflow.geometry.location import PatchLocation


def assert_patch_is_crop(recipe, entry, location, seed, margin=8):
    """The augmented patch equals the crop of the augmented volume, which is taken wide enough to hold it, border and all."""
    starts = [min(0, a) - margin for a in location.start]
    stops = [max(n, b) + margin for n, b in zip(entry.shape, location.stop, strict=True)]
    around = PatchLocation(tuple(starts), tuple(b - a for a, b in zip(starts, stops, strict=True)))
    parameters = recipe.draw(seeding.generator(seed), entry, location)
    volume = recipe.apply(entry, around, parameters)["image"]
    patch = recipe.apply(entry, location, parameters)["image"]
    crop = volume[(slice(None), *location.within(around))]
    np.testing.assert_allclose(patch.numpy(), crop.numpy(), rtol=0, atol=1e-4 * float(volume.max() - volume.min()))
