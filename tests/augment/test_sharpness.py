import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from patchflow import seeding
from patchflow.augment import Balanced, Recipe, Uniform
from patchflow.augment.base import Context
from patchflow.augment.sharpness import RandomBlur, RandomLowResolution, RandomSharpen
from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation, whole

LOCATION = PatchLocation((9, 10, 11), (6, 5, 4))


def context_of(entry):
    i, j, k = entry.spacing
    return Context(entry.name, LOCATION, entry.shape, (i, j, k), entry.images, (11.5, 12.0, 12.5), patch=LOCATION, image="image")


def applied(transform, parameters, entry):
    """What the transform makes of the patch at LOCATION."""
    context = context_of(entry)
    grown = replace(context, location=LOCATION.grown(transform.reach(parameters, context)))
    return grown.core(transform.apply(torch.from_numpy(entry.read("image", grown.location)), parameters, grown))


def voxels(array):
    return array[(slice(None), *(slice(a, b) for a, b in zip(LOCATION.start, LOCATION.stop, strict=True)))]


@pytest.mark.parametrize(("unit", "std"), [("mm", (1.2, 0.8, 2.4)), ("voxel", (0.6, 1.0, 0.8))])
def test_blur_is_scipys_gaussian(make_entry, unit, std):
    entry = make_entry((26, 26, 26), spacing=(2.0, 0.8, 3.0), channels=2)
    values = entry.read("image", whole(entry.shape)).astype(np.float64)
    in_voxels = np.divide(std, entry.spacing) if unit == "mm" else std
    got = applied(RandomBlur(unit=unit), {"std": list(std)}, entry)
    expected = np.stack([gaussian_filter(channel, in_voxels, truncate=8) for channel in values])
    np.testing.assert_allclose(got.numpy(), voxels(expected), atol=10 * 1e-4)  # values span 10


def test_sharpening_is_an_unsharp_mask(make_entry):
    entry = make_entry((26, 26, 26))
    values = entry.read("image", whole(entry.shape)).astype(np.float64)
    got = applied(RandomSharpen(), {"amount": 1.5, "std": [0.7, 0.9, 1.0]}, entry)
    expected = values + 1.5 * (values - gaussian_filter(values[0], (0.7, 0.9, 1.0), truncate=8)[None])
    np.testing.assert_allclose(got.numpy(), voxels(expected), atol=10 * 1.5e-4)


def test_the_reach_is_as_far_as_the_filter_counts(make_entry):
    context = context_of(make_entry((26, 26, 26), spacing=(1.0, 2.0, 0.5)))
    assert RandomBlur().reach({"std": [1.0, 1.0, 1.0]}, context) == (4, 2, 8)
    assert RandomBlur(unit="voxel").reach({"std": [0.5, 0.75, 0.0]}, context) == (2, 3, 0)
    assert RandomSharpen(unit="voxel").reach({"amount": 1, "std": [0.5, 0.75, 0.0]}, context) == (2, 3, 0)
    assert RandomLowResolution().reach({"zoom": [1.0, 0.5, 0.7]}, context) == (0, 2, 1)


def test_low_resolution_of_half_the_voxels_by_hand(make_entry):
    """Cells of two voxels are shown by their second one; voxel 2c lies a quarter of a cell before the middle of cell c, 2c + 1 after it."""
    entry = make_entry((26, 26, 26))
    row = entry.read("image", PatchLocation((9, 10, 0), (1, 1, 26)))[0, 0, 0]
    got = applied(RandomLowResolution(), {"zoom": [1.0, 1.0, 0.5]}, entry)
    cells = row[1::2]
    expected = [0.25 * cells[6] + 0.75 * cells[5], 0.25 * cells[5] + 0.75 * cells[6], 0.25 * cells[7] + 0.75 * cells[6]]
    np.testing.assert_allclose(got[0, 0, 0, :3], expected, atol=1e-5)


def test_draws(make_entry):
    rng, context = seeding.generator(0), context_of(make_entry((26, 26, 26)))
    drawn = [RandomBlur((0, 1, 1, 2, 3, 3)).draw(rng, context) for _ in range(300)]
    assert json.loads(json.dumps(drawn)) == drawn
    std = np.array([draw["std"] for draw in drawn])
    np.testing.assert_allclose(std.min(axis=0), [0, 1, 3], atol=0.02)
    np.testing.assert_allclose(std.max(axis=0), [1, 2, 3], atol=0.02)
    assert len(set(RandomBlur(2, isotropic=True).draw(rng, context)["std"])) == 1
    assert len(set(RandomBlur(2).draw(rng, context)["std"])) == 3
    amounts = [RandomSharpen((1, 2)).draw(rng, context)["amount"] for _ in range(300)]
    assert 1 <= min(amounts) < 1.02
    assert 1.98 < max(amounts) <= 2


def test_zooms(make_entry):
    rng, context = seeding.generator(0), context_of(make_entry((26, 26, 26)))
    i, j, k = RandomLowResolution(axes=(1, 2)).draw(rng, context)["zoom"]
    assert i == 1
    assert 0.5 <= j == k < 1
    assert len(set(RandomLowResolution(isotropic=False).draw(rng, context)["zoom"])) == 3
    assert RandomLowResolution(0.25).zoom == (Uniform(0.25, 1.0),) * 3
    assert RandomLowResolution((0.2, 0.5, 1), isotropic=False).zoom == (Uniform(0.2, 1.0), Uniform(0.5, 1.0), Uniform(1.0, 1.0))
    assert RandomLowResolution(Uniform(0.5, 0.8)).zoom == (Uniform(0.5, 0.8),) * 3
    assert RandomLowResolution(Balanced(0.2, 1.0, 0.5)).zoom == (Balanced(0.2, 1.0, 0.5),) * 3
    each = [Uniform(0.5, 0.8), Uniform(0.5, 0.9), Balanced(0.2, 1.0, 0.5)]
    assert RandomLowResolution(each, isotropic=False).zoom == tuple(each)


def test_in_a_recipe_each_channel_is_blurred_by_itself(make_entry):
    entry = make_entry((26, 26, 26), channels=2)
    recipe = Recipe([RandomBlur((0.5, 1), "voxel", per_channel=True)])
    parameters = recipe.draw(seeding.generator(0), entry, LOCATION)
    got = recipe.apply(entry, LOCATION, parameters)["image"].numpy()
    values = entry.read("image", whole(entry.shape)).astype(np.float64)
    for channel, drawn in enumerate(parameters["steps"][0]["parameters"]["image"]):
        expected = gaussian_filter(values[channel], drawn["std"], truncate=8)[None]
        np.testing.assert_allclose(got[channel : channel + 1], voxels(expected), atol=10 * 1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomBlur(-1), "std"),
        (lambda: RandomBlur((-1, 1)), "std must be at least 0"),
        (lambda: RandomBlur((2, 1)), "wrong way round"),
        (lambda: RandomBlur(unit="voxels"), '"mm" or "voxel"'),
        (lambda: RandomBlur((1, 2, 3), isotropic=True), "isotropic"),
        (lambda: RandomBlur(p=2), "probability"),
        (lambda: RandomSharpen((-1, 1)), "amount must be at least 0"),
        (lambda: RandomSharpen(std=(1, 0)), "wrong way round"),
        (lambda: RandomSharpen(unit=None), '"mm" or "voxel"'),
        (lambda: RandomLowResolution((0, 1)), "zoom must be above 0"),
        (lambda: RandomLowResolution((0.5, 1.1)), "zoom must be at most 1"),
        (lambda: RandomLowResolution((1, 0.5)), "wrong way round"),
        (lambda: RandomLowResolution(0), "above 0"),
        (lambda: RandomLowResolution(-0.5), "above 0"),
        (lambda: RandomLowResolution(2), "wrong way round"),
        (lambda: RandomLowResolution(True), "finite numbers"),
        (lambda: RandomLowResolution("half"), "finite numbers"),
        (lambda: RandomLowResolution((0.5, 0.6, 0.7)), "isotropic"),
        (lambda: RandomLowResolution(axes=(0, 3)), "axes must be some of 0, 1, 2"),
        (lambda: RandomLowResolution(axes=(0, 0)), "each once"),
        (lambda: RandomLowResolution(axes=()), "axes"),
        (lambda: RandomLowResolution(axes="IJ"), "axes"),
    ],
)
def test_bad_arguments_are_refused_when_the_transform_is_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
