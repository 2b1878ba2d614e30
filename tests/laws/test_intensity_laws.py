"""Laws 3 and 6 of the intensity transforms: a patch is the crop of the augmented volume, and kernels agree with their plain twins."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_entry import make_entry
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow import seeding
from patchflow.augment import Balanced, Recipe
from patchflow.augment.base import Context
from patchflow.augment.intensity import RandomBrightness, RandomContrast, RandomGamma, RandomHistogramShift
from patchflow.augment.noise import RandomNoise
from patchflow.augment.regions import RandomCutout, RandomSwap
from patchflow.augment.sharpness import RandomBlur, RandomLowResolution, RandomSharpen
from patchflow.geometry.location import PatchLocation

ENTRIES = [
    make_entry((15, 18, 21)),
    make_entry((12, 23, 9), seed=1, dtype="float32", channels=2, spacing=(0.7, 0.9, 5.0)),
    make_entry((17, 1, 19), seed=2, dtype="uint8", channels=3, spacing=(3.0, 1.0, 1.2)),
]
MARGIN = 6
SWAP = (5, 6, 7)  # the smallest patch that is drawn for holds two boxes

EXACT = [
    RandomNoise(0.1, (0.2, 0.5)),
    RandomNoise(std=(0.2, 0.5), kind="rician", per_channel=True),
    RandomNoise(std=0.3, p_per_channel=0.5),
    RandomBlur((0, 1.5)),
    RandomBlur((0.5, 1), "voxel", per_channel=True, p_per_channel=0.5),
    RandomBlur((0, 0, 0.3, 1, 0, 2), "voxel"),
    RandomSharpen(2, (0.3, 1.2), "voxel", isotropic=True),
    RandomLowResolution((0.2, 1)),
    RandomLowResolution((0.3, 0.9), isotropic=False, axes=(0, 2), per_channel=True),
    RandomBrightness((0.5, 1.5), 0.3, per_channel=True),
    RandomContrast((0.5, 1.5)),
    RandomContrast(Balanced(0.5, 2.0), preserve_range=False),
    RandomGamma((-0.7, 0.7)),
    RandomGamma(gamma=Balanced(0.7, 1.5), invert=True, per_channel=True),
    RandomHistogramShift((3, 8)),
    RandomCutout((1, 5), (1, 3)),
    RandomCutout(4, 2, "noise", per_channel=True),
    RandomSwap((2, 3, 3), 1),
    RandomSwap(2, 3, p_per_channel=0.5),
]
OF_THE_PATCH = [
    RandomContrast(0.5, statistics="patch"),
    RandomContrast(0.5, preserve_range=False, statistics="patch"),
    RandomGamma(gamma=(0.7, 1.5), statistics="patch"),
    RandomGamma(gamma=(0.7, 1.5), statistics="patch", retain_stats=True),
    RandomGamma(gamma=(0.7, 1.5), statistics="patch", retain_stats=True, invert=True),
]
starts = st.tuples(*[st.integers(-MARGIN, 16)] * 3)
drawn_sizes = st.tuples(*[st.integers(n, 12) for n in SWAP])
sizes = st.tuples(*[st.integers(1, 12)] * 3)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2), st.lists(st.sampled_from(EXACT), min_size=1, max_size=3), starts, drawn_sizes, starts, sizes, st.integers(0, 2**32)
)
def test_patch_is_crop_of_the_augmented_volume(number, steps, drawn_start, drawn_size, start, size, seed):
    entry, recipe = ENTRIES[number], Recipe(steps, fill={"image": -2.0})
    parameters = recipe.draw(seeding.generator(seed), entry, PatchLocation(drawn_start, drawn_size))
    around = PatchLocation((-MARGIN,) * 3, tuple(max(n, a + s) + 2 * MARGIN for n, a, s in zip(entry.shape, start, size, strict=True)))
    volume = recipe.apply(entry, around, parameters)["image"].numpy()
    patch = recipe.apply(entry, PatchLocation(start, size), json.loads(json.dumps(parameters)))["image"].numpy()
    crop = volume[(slice(None), *(slice(a + MARGIN, a + MARGIN + s) for a, s in zip(start, size, strict=True)))]
    np.testing.assert_allclose(patch, crop, rtol=0, atol=2e-6 * float(volume.max() - volume.min()) + 1e-6)


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(-2, 12)] * 3), sizes, st.integers(0, 2**32))
def test_swapped_boxes_come_from_beyond_the_patch(start, size, seed):
    entry, drawn_for = ENTRIES[1], PatchLocation((-1, 2, -2), (12, 13, 11))
    recipe = Recipe([RandomNoise(std=0.1), RandomSwap(3, 24), RandomBlur(0.8, "voxel"), RandomSwap((2, 4, 3), 10)], fill={"image": -2.0})
    parameters = recipe.draw(seeding.generator(seed), entry, drawn_for)
    around = PatchLocation((-4, -4, -4), (32, 32, 32))
    volume = recipe.apply(entry, around, parameters)["image"].numpy()
    patch = recipe.apply(entry, PatchLocation(start, size), parameters)["image"].numpy()
    np.testing.assert_allclose(patch, volume[(slice(None), *PatchLocation(start, size).within(around))], rtol=0, atol=2e-5)


@pytest.mark.parametrize("transform", EXACT, ids=repr)
def test_exact_transforms_say_so(transform):
    assert transform.exact
    assert type(transform).trusted


@pytest.mark.parametrize("transform", OF_THE_PATCH, ids=repr)
def test_those_that_look_at_the_patch_say_so(transform):
    assert not transform.exact


def at_hand(transform, entry, location, seed):
    """Parameters, and a context and voxels as the transform is given them, windows included."""
    i, j, k = entry.spacing
    context = Context(entry.name, location, entry.shape, (i, j, k), entry.images, (0.0, 0.0, 0.0), patch=location, image="image")
    parameters = transform.draw(seeding.generator(seed), context)
    grown = replace(context, location=location.grown(transform.reach(parameters, context)))
    windows = tuple(torch.from_numpy(entry.read("image", place)) for place in transform.windows(parameters, grown))
    return parameters, replace(grown, windows=windows), torch.from_numpy(entry.read("image", grown.location, fill=-2.0))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2), st.sampled_from([*EXACT, *OF_THE_PATCH]), starts, drawn_sizes, st.integers(0, 2**32))
def test_tensors_of_other_dtypes_and_strides_get_the_same(number, transform, start, size, seed):
    """The path of other devices: float64, and a strided tensor."""
    parameters, context, patch = at_hand(transform, ENTRIES[number], PatchLocation(start, size), seed)
    scale = float(patch.max() - patch.min()) + 1
    fast = context.core(transform.apply(patch.clone(), parameters, context)).double()
    strided = torch.empty(patch.shape[::-1]).permute(3, 2, 1, 0)
    strided.copy_(patch)
    for other in (strided, patch.double()):
        wide = replace(context, windows=tuple(window.to(other.dtype) for window in context.windows))
        got = transform.apply(other, parameters, wide)
        assert got.dtype == other.dtype
        assert got.shape == other.shape
        torch.testing.assert_close(context.core(got).double(), fast, rtol=0, atol=4e-6 * scale)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2), st.sampled_from(OF_THE_PATCH), starts, sizes, st.integers(0, 2**32))
def test_the_patch_alone_gives_its_statistics_not_what_is_around_it(number, transform, start, size, seed):
    location = PatchLocation(start, size)
    parameters, context, patch = at_hand(transform, ENTRIES[number], location, seed)
    grown = replace(context, location=location.grown((1, 2, 3)))
    larger = torch.from_numpy(ENTRIES[number].read("image", grown.location, fill=-2.0))
    larger[0, 0, 0, 0] = 1000.0
    expected = transform.apply(patch.clone(), parameters, context)
    for given_patch in (larger.clone(), larger.double()):
        got = grown.core(transform.apply(given_patch, parameters, grown))
        torch.testing.assert_close(got.float(), expected, rtol=0, atol=1e-4)
