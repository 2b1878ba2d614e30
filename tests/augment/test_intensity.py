import json
import math

import numpy as np
import pytest
import torch

from patchflow import seeding
from patchflow.augment import RandomAffine, RandomBrightness, RandomGamma, RandomNoise, Recipe
from patchflow.augment.base import Context
from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation, whole
from patchflow.kernels.pointwise import IntensityMap

LOCATION = PatchLocation((1, 2, 3), (8, 9, 10))
BUILT_IN = [RandomNoise(0.5, (0.2, 0.4)), RandomGamma(), RandomBrightness((0.5, 0.9), (1, 2))]


def context_of(entry):
    return Context(entry.name, LOCATION, entry.shape, (1.0, 1.0, 1.0), entry.images, (4.5, 6.0, 7.5), "image")


def test_gamma_is_a_power_of_the_value_between_the_volumes_minimum_and_maximum(make_entry):
    entry = make_entry((12, 13, 14), intensities=IntensityMap(0.01, -3.0))
    low, high = (getattr(entry.images["image"].statistics, name) for name in ("minimum", "maximum"))
    values = torch.from_numpy(entry.read("image", LOCATION))
    expected = low + (high - low) * ((values.double() - low) / (high - low)) ** 0.7
    got = RandomGamma().apply(values.clone(), {"gamma": 0.7}, context_of(entry))
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)
    assert got.min() >= low - 1e-5
    assert got.max() <= high + 1e-5


def test_gamma_leaves_a_volume_of_one_value(make_entry):
    entry = make_entry((12, 13, 14))
    entry.images["image"].statistics.maximum = entry.images["image"].statistics.minimum = 2.0
    patch = torch.full((1, 8, 9, 10), 2.0)
    assert RandomGamma().apply(patch, {"gamma": 3.0}, context_of(entry)).eq(2).all()


def test_brightness_multiplies_and_adds(make_entry):
    got = RandomBrightness().apply(torch.tensor([[[[1.0, -2.0]]]]), {"factor": 1.5, "shift": 0.25}, context_of(make_entry((12, 13, 14))))
    assert got.tolist() == [[[[1.75, -2.75]]]]


def test_noise_has_the_drawn_mean_and_std(make_entry):
    patch, context = torch.zeros(1, 64, 64, 64), context_of(make_entry((12, 13, 14)))
    noise = RandomNoise().apply(patch, {"mean": 2.0, "std": 0.3, "key": 77}, context)
    assert abs(float(noise.mean()) - 2) < 4 * 0.3 / 512
    assert abs(float(noise.std()) - 0.3) < 4 * 0.3 / 512


@pytest.mark.parametrize("transform", BUILT_IN, ids=lambda transform: transform.name)
def test_tensors_that_kernels_do_not_take_get_the_same(make_entry, transform):
    """The path of other devices and dtypes: a strided tensor, and a float64 one."""
    entry = make_entry((12, 13, 14), channels=2)
    patch = torch.from_numpy(entry.read("image", LOCATION))
    parameters = transform.draw(seeding.generator(1), context_of(entry))
    fast = transform.apply(patch.clone(), parameters, context_of(entry))
    strided = torch.empty(2, 10, 9, 8).permute(0, 3, 2, 1)
    strided.copy_(patch)
    for other in (strided, patch.double()):
        got = transform.apply(other, parameters, context_of(entry))
        assert got.dtype == other.dtype
        torch.testing.assert_close(got.double(), fast.double(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("transform", BUILT_IN, ids=lambda transform: transform.name)
def test_parameters_are_plain_and_in_range(make_entry, transform):
    rng, context = seeding.generator(2), context_of(make_entry((12, 13, 14)))
    drawn = [transform.draw(rng, context) for _ in range(500)]
    assert json.loads(json.dumps(drawn)) == drawn
    ranges = {"mean": (-0.5, 0.5), "std": (0.2, 0.4), "gamma": (math.exp(-0.3), math.exp(0.3)), "factor": (0.5, 0.9), "shift": (1, 2)}
    for name in drawn[0].keys() & ranges.keys():
        values, (low, high) = [draw[name] for draw in drawn], ranges[name]
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
    if "key" in drawn[0]:
        assert max(draw["key"] for draw in drawn) > 2**63
        assert len({draw["key"] for draw in drawn}) == 500


def test_every_image_draws_its_own_parameters(make_entry):
    entry = make_entry((12, 13, 14))
    entry.images["other"] = entry.images["image"]
    step = Recipe([RandomNoise(std=(0, 1))]).draw(seeding.generator(0), entry, LOCATION)["steps"][0]["parameters"]
    assert step.keys() == {"image", "other"}
    assert step["image"]["key"] != step["other"]["key"]
    assert step["image"]["std"] != step["other"]["std"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomNoise(std=(-0.1, 0.1)), "std must be at least 0"),
        (lambda: RandomNoise(std=-1), "std"),
        (lambda: RandomNoise(std=(0.2, 0.1)), "wrong way round"),
        (lambda: RandomNoise(p=-0.1), "p is a probability"),
        (lambda: RandomGamma((0.3, -0.3)), "wrong way round"),
        (lambda: RandomGamma(p=2), "p is a probability"),
        (lambda: RandomBrightness((-0.5, 1)), "factor must be at least 0"),
        (lambda: RandomBrightness(shift=(1, 0)), "wrong way round"),
        (lambda: RandomBrightness(keys=[1]), "image names"),
    ],
)
def test_bad_arguments_are_refused_when_the_transform_is_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_what_lies_outside_the_volume_is_filled_before_intensities_change(make_entry):
    entry = make_entry((6, 6, 6))
    recipe = Recipe([RandomAffine(scales=(0.5, 0.5), degrees=0), RandomBrightness((2, 2))], fill={"image": -5, "label": 9})
    sample = recipe.apply(entry, whole(entry.shape), recipe.draw(seeding.generator(0), entry, whole(entry.shape)))
    assert sample["image"][0, 0, 0, 0] == -10
    assert sample["label"][0, 0, 0, 0] == 9
    np.testing.assert_array_equal(sample["image"][0, 1:5, 1:5, 1:5].numpy() == -10, False)
