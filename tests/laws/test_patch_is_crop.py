"""Law 3: augmenting a patch equals cropping the augmented volume."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patchflow as pf
from patchflow import seeding
from patchflow.augment import (
    RandomAffine,
    RandomAnisotropy,
    RandomBrightness,
    RandomElastic,
    RandomFlip,
    RandomGamma,
    RandomNoise,
    Recipe,
)
from patchflow.geometry.location import PatchLocation

SUBJECTS = [  # shape, spacing in millimetres, dtype, channels
    ((15, 18, 21), (1.0, 1.0, 1.0), "int16", 1),
    ((12, 23, 9), (0.7, 0.9, 5.0), "float32", 2),
    ((17, 1, 19), (3.0, 1.0, 1.2), "uint8", 1),
]
MARGIN = 6  # voxels beyond the volume on every side that the "whole volume" takes in, so that overhanging patches are crops of it too


def make_subject(number):
    shape, spacing, dtype, channels = SUBJECTS[number]
    rng, affine = seeding.generator(number), np.diag([*spacing, 1.0])
    image = rng.uniform(0, 250, (channels, *shape)).astype(dtype)
    label = rng.integers(0, 4, shape).astype(np.uint8)
    return pf.Subject(f"s{number}", image=pf.ScalarImage(image, affine=affine), label=pf.LabelMap(label, affine=affine))


STEPS = {
    "gain and bias": [pf.preprocess.ZNormalize()],
    "curve": [pf.preprocess.HistogramStandardize((-2, 0, 0.2, 2), (1, 40, 50, 99))],
}


@pytest.fixture(
    scope="module", params=[("contiguous", "gain and bias"), ("compressed", "gain and bias"), ("contiguous", "curve")], ids=" ".join
)
def cache(request, tmp_path_factory):
    layout, steps = request.param
    preprocess = pf.Pipeline([*STEPS[steps], pf.preprocess.Clamp(-1.2, 1.5)])
    subjects = [make_subject(number) for number in range(len(SUBJECTS))]
    return pf.build_cache(subjects, tmp_path_factory.mktemp(layout), preprocess=preprocess, layout=layout, progress=False)


transforms = st.sampled_from(
    [
        RandomFlip(),
        RandomFlip((1,), p=1),
        RandomAffine(0.3, 60, 8),
        RandomAffine(0.2, 0, isotropic=True),
        RandomAffine(0, (0, 0, 0, 0, 90, 90)),
        RandomAffine(0, 25, shear=20, p=0.5),
        RandomElastic(6, (0, 2)),
        RandomElastic((5, 8, 20), 1.9),
        RandomAnisotropy(downsampling=(1, 4)),
        RandomAnisotropy(1, 3.5, keys=["image", "label"]),
        RandomNoise(0.1, (0.2, 0.5)),
        RandomGamma((-0.7, 0.7)),
        RandomBrightness((0.5, 1.5), 0.3),
    ]
)
readings = st.fixed_dictionaries(
    {
        "outside": st.sampled_from(["constant", "border", "reflect"]),
        "image_interpolation": st.sampled_from(["linear", "linear", "nearest", "cubic"]),
        "label_interpolation": st.sampled_from(["nearest", "linear"]),
    }
)
starts = st.tuples(*[st.integers(-MARGIN, 20)] * 3)
sizes = st.tuples(*[st.integers(1, 12)] * 3)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(SUBJECTS) - 1), st.lists(transforms, max_size=5), starts, sizes, starts, sizes, st.integers(0, 2**32), readings)
def test_patch_is_crop_of_the_augmented_volume(cache, number, steps, drawn_start, drawn_size, start, size, seed, how):
    entry, recipe = cache[number], Recipe(steps, fill={"image": -2.0, "label": 5}, **how)
    parameters = recipe.draw(seeding.generator(seed), entry, PatchLocation(drawn_start, drawn_size))
    around = PatchLocation((-MARGIN,) * 3, tuple(max(n, a + s) + 2 * MARGIN for n, a, s in zip(entry.shape, start, size, strict=True)))
    volume = recipe.apply(entry, around, parameters)
    patch = recipe.apply(entry, PatchLocation(start, size), json.loads(json.dumps(parameters)))
    crop = (slice(None), *(slice(a + MARGIN, a + MARGIN + s) for a, s in zip(start, size, strict=True)))
    values = volume["image"].numpy()
    tolerance = 1e-4 * float(values.max() - values.min())
    np.testing.assert_allclose(patch["image"].numpy(), values[crop], rtol=0, atol=tolerance)
    np.testing.assert_array_equal(patch["label"].numpy(), volume["label"].numpy()[crop])


def test_an_affine_map_alone_is_the_volume_resampled_by_an_independent_library(cache):
    """What the crops are crops of: scipy's interpolation of the whole preprocessed volume."""
    from scipy.ndimage import affine_transform

    entry = cache[0]
    recipe, location = Recipe([RandomAffine(0.2, 30)], fill={"image": -2}), PatchLocation((4, 5, 6), (8, 9, 10))
    parameters = recipe.draw(seeding.generator(1), entry, location)
    matrix = RandomAffine().map(parameters["steps"][0]["parameters"], _Anchored(entry.spacing, parameters["anchor"]))
    whole = PatchLocation((0, 0, 0), entry.shape)
    got = recipe.apply(entry, whole, parameters)
    expected = affine_transform(entry.read("image", whole)[0].astype(np.float64), matrix, order=1, mode="grid-constant", cval=-2)
    np.testing.assert_allclose(got["image"][0].numpy(), expected, atol=1e-5)


class _Anchored:
    def __init__(self, spacing, anchor):
        self.spacing, self.anchor = spacing, anchor
