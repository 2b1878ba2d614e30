"""Predictions for augmented patches are brought back to the volume."""

import numpy as np
import pytest
import torch

from patchflow import seeding
from patchflow.augment import RandomAffine, RandomAnisotropy, RandomElastic, RandomFlip, Recipe, SpatialTransform
from patchflow.augment.base import Context
from patchflow.augment.inverse import inverted
from patchflow.errors import ArgumentError, TransformError
from patchflow.geometry.location import PatchLocation
from patchflow.geometry.maps import SpatialMap
from patchflow.kernels.resample import source_points

SHAPE, LOCATION = (32, 30, 28), PatchLocation((2, 1, 3), (28, 27, 25))


def smooth_entry(make_entry):
    """An entry whose image changes slowly, so that interpolation errors are small."""
    entry = make_entry(SHAPE, dtype="float32", spacing=(1, 1.5, 2))
    i, j, k = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    entry._stored["image"] = (100 * np.sin(i / 9) * np.cos(j / 8) + 3 * k).astype(np.float32)[None]
    return entry


@pytest.mark.parametrize(
    "steps",
    [
        [RandomFlip((0, 2), p=1)],
        [RandomAffine(0.2, 25, 2, shear=10)],
        [RandomElastic(16, 4)],
        [RandomElastic((12, 20, 24), (1, 4)), RandomAffine(0.1, 20), RandomFlip(1, p=1)],
        [RandomAffine(0.1, 20), RandomElastic(20, 8)],
        [RandomAffine(0.1, 20), RandomAnisotropy(2, (2, 2))],
    ],
)
def test_the_image_comes_back_where_the_patch_shows_it(make_entry, steps):
    entry, recipe = smooth_entry(make_entry), Recipe(steps, outside="border")
    for seed in range(3):
        parameters = recipe.draw(seeding.generator(seed), entry, LOCATION)
        augmented = recipe.apply(entry, LOCATION, parameters)
        back = recipe.invert(augmented["image"], entry, LOCATION, parameters, fill=float("nan"))
        plain = Recipe([]).apply(entry, LOCATION, {"anchor": [0, 0, 0], "steps": []})["image"]
        shown = ~back.isnan()
        assert shown.float().mean() > 0.5
        wrong, width = (back - plain)[shown].abs(), float(plain.max() - plain.min())
        assert wrong.mean() < 0.004 * width
        assert wrong.max() < 0.03 * width  # at the border half a voxel goes on as the border


def test_points_and_their_inverses():
    """A patch's source points, inverted, are the patch's voxels: to 1e-3 voxels, where they are voxels at all."""
    location = PatchLocation((-3, 2, 0), (9, 8, 7))
    recipe = Recipe([RandomElastic(9, 3.5), RandomAffine(0.3, 70, 5)])
    context = Context("s", location, (20, 20, 20), (1.0, 1.0, 1.0), {}, (1.0, 5.0, 3.0))
    for seed in range(20):
        rng = seeding.generator(seed)
        elastic, affine = (step.draw(rng, context) for step in recipe.leaves)
        source = recipe.leaves[0].map(elastic, context).then(SpatialMap.affine(recipe.leaves[1].map(affine, context)))
        outputs = inverted(source, location)
        # Through the map, stage by stage, at points that are no voxels: a location of one voxel moved there.
        for voxel in [(0, 0, 0), (8, 7, 6), (4, 3, 2)]:
            point = outputs[(slice(None), *voxel)]
            shift = SpatialMap.affine(np.block([[np.eye(3), point.numpy()[:, None]], [np.zeros(3), 1]]))
            there = source_points(source.then(shift), PatchLocation((0, 0, 0), (1, 1, 1)))
            np.testing.assert_allclose(there.ravel().numpy(), np.add(location.start, voxel), atol=1e-3)


def test_labels_come_back_as_labels(make_entry):
    entry, recipe = make_entry(SHAPE), Recipe([RandomFlip(p=1)])
    parameters = recipe.draw(seeding.generator(0), entry, LOCATION)
    augmented = recipe.apply(entry, LOCATION, parameters)["label"]
    back = recipe.invert(augmented, entry, LOCATION, parameters, image="label", interpolation="nearest", fill=255)
    assert back.dtype == augmented.dtype
    assert back.equal(Recipe([]).apply(entry, LOCATION, {"anchor": [0, 0, 0], "steps": []})["label"])


def test_what_cannot_be_inverted_is_refused(make_entry):
    class Flat(SpatialTransform):
        def draw(self, rng, context):
            return {}

        def map(self, parameters, context):
            return np.diag([1.0, 1, 0, 1])

    entry, recipe = make_entry(SHAPE), Recipe([Flat()])
    parameters = recipe.draw(seeding.generator(0), entry, LOCATION)
    with pytest.raises(TransformError, match="cannot be inverted"):
        recipe.invert(torch.zeros(1, *LOCATION.size), entry, LOCATION, parameters)
    with pytest.raises(ArgumentError, match="must be"):
        recipe.invert(torch.zeros(1, 2, 3, 4), entry, LOCATION, parameters)
