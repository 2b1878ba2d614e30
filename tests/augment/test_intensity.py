import json
import math

import numpy as np
import pytest
import torch

from patchflow import seeding
from patchflow.augment import Balanced, RandomAffine, RandomBrightness, RandomContrast, RandomGamma, RandomHistogramShift, Recipe
from patchflow.augment.base import Context
from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation, whole
from patchflow.kernels.pointwise import IntensityMap

LOCATION = PatchLocation((1, 2, 3), (8, 9, 10))


def context_of(entry):
    return Context(entry.name, LOCATION, entry.shape, (1.0, 1.0, 1.0), entry.images, (4.5, 6.0, 7.5), patch=LOCATION, image="image")


def patch_of(entry):
    return torch.from_numpy(entry.read("image", LOCATION))


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


def test_contrast_of_the_volume(make_entry):
    entry = make_entry((12, 13, 14))
    known, values = entry.images["image"].statistics, patch_of(entry)
    got = RandomContrast(preserve_range=False).apply(values.clone(), {"factor": 1.7}, context_of(entry))
    expected = known.mean + 1.7 * (values.double() - known.mean)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)
    kept = RandomContrast().apply(values.clone(), {"factor": 1.7}, context_of(entry))
    torch.testing.assert_close(kept.double(), expected.clamp(known.minimum, known.maximum), rtol=0, atol=1e-5)
    assert kept.max() == np.float32(known.maximum)
    assert expected.max() > known.maximum + 1


@pytest.mark.parametrize("preserve_range", [True, False])
def test_contrast_of_the_patch_is_nnunets(make_entry, preserve_range):
    entry = make_entry((12, 13, 14), channels=2)
    values = patch_of(entry)
    got = RandomContrast(preserve_range=preserve_range, statistics="patch").apply(values.clone(), {"factor": 1.4}, context_of(entry))
    for channel, changed in zip(values.double(), got.double(), strict=True):
        expected = channel.mean() + 1.4 * (channel - channel.mean())
        if preserve_range:
            expected = expected.clamp(channel.min(), channel.max())
        torch.testing.assert_close(changed, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("retain_stats", [False, True])
def test_gamma_of_the_patch_is_nnunets(make_entry, invert, retain_stats):
    entry = make_entry((12, 13, 14), channels=2)
    values, gamma = patch_of(entry), 1.3
    transform = RandomGamma(gamma=(1, 2), invert=invert, retain_stats=retain_stats, statistics="patch")
    got = transform.apply(values.clone(), {"gamma": gamma}, context_of(entry))
    for channel, changed in zip(values.double(), got.double(), strict=True):
        x = -channel if invert else channel
        expected = x.min() + (x.max() - x.min()) * ((x - x.min()) / (x.max() - x.min())) ** gamma
        if retain_stats:
            expected = (expected - expected.mean()) / expected.std() * x.std() + x.mean()
            assert abs(float(changed.mean() - channel.mean())) < 1e-6
            assert abs(float(changed.std() / channel.std()) - 1) < 1e-6
        torch.testing.assert_close(changed, -expected if invert else expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("retain_stats", [False, True])
def test_a_patch_of_one_value_stays(make_entry, retain_stats):
    patch = torch.full((1, 8, 9, 10), 2.0)
    transform = RandomGamma(statistics="patch", retain_stats=retain_stats)
    for given in (patch, patch.double()):
        assert transform.apply(given.clone(), {"gamma": 0.5}, context_of(make_entry((12, 13, 14)))).eq(2).all()
    contrast = RandomContrast(statistics="patch").apply(patch.clone(), {"factor": 1.2}, context_of(make_entry((12, 13, 14))))
    torch.testing.assert_close(contrast, patch)


def test_inverted_gamma_stretches_the_other_end(make_entry):
    entry = make_entry((12, 13, 14))
    known, values = entry.images["image"].statistics, patch_of(entry)
    got = RandomGamma(invert=True).apply(values.clone(), {"gamma": 2.0}, context_of(entry))
    expected = known.maximum - (known.maximum - values.double()) ** 2 / (known.maximum - known.minimum)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)


def test_gamma_is_drawn_as_torchio_or_as_nnunet_draws_it(make_entry):
    rng, context = seeding.generator(0), context_of(make_entry((12, 13, 14)))
    logs = [math.log(RandomGamma(0.5).draw(rng, context)["gamma"]) for _ in range(1000)]
    assert -0.5 <= min(logs) < -0.48
    assert 0.48 < max(logs) <= 0.5
    gammas = [RandomGamma(gamma=Balanced(0.7, 1.5)).draw(rng, context)["gamma"] for _ in range(4000)]
    assert 0.7 <= min(gammas) < 0.71
    assert 1.49 < max(gammas) <= 1.5
    assert abs(sum(gamma < 1 for gamma in gammas) - 2000) < 4 * math.sqrt(1000)


def test_histogram_shift_interpolates_between_its_points(make_entry):
    entry = make_entry((12, 13, 14))
    known, values = entry.images["image"].statistics, patch_of(entry)
    values[0, 0, 0, :2] = torch.tensor([known.minimum - 1, known.maximum + 2])
    points = [0.0, 0.1, 0.7, 1.0]
    got = RandomHistogramShift().apply(values.clone(), {"points": points}, context_of(entry)).numpy()
    width = known.maximum - known.minimum
    expected = known.minimum + width * np.interp((values.numpy() - known.minimum) / width, np.linspace(0, 1, 4), points)
    np.testing.assert_allclose(got.ravel()[2:], expected.ravel()[2:], atol=1e-5)
    np.testing.assert_array_equal(got[0, 0, 0, :2], values[0, 0, 0, :2].numpy())


def test_histogram_shift_is_monotone_and_keeps_the_ends(make_entry):
    rng, context = seeding.generator(0), context_of(make_entry((12, 13, 14)))
    drawn = [RandomHistogramShift((3, 6)).draw(rng, context)["points"] for _ in range(400)]
    assert {len(points) for points in drawn} == {3, 4, 5, 6}
    for points in drawn:
        assert points[0] == 0
        assert points[-1] == 1
        assert points == sorted(points)
    middle = [points[1] for points in drawn if len(points) == 3]
    assert min(middle) < 0.05
    assert max(middle) > 0.95


@pytest.mark.parametrize(
    ("transform", "ranges"),
    [
        (RandomGamma(), {"gamma": (math.exp(-0.3), math.exp(0.3))}),
        (RandomContrast((0.5, 0.9)), {"factor": (0.5, 0.9)}),
        (RandomBrightness((0.5, 0.9), (1, 2)), {"factor": (0.5, 0.9), "shift": (1, 2)}),
        (RandomBrightness(0.2), {"factor": (0.8, 1.2)}),
    ],
    ids=repr,
)
def test_parameters_are_plain_and_in_range(make_entry, transform, ranges):
    rng, context = seeding.generator(2), context_of(make_entry((12, 13, 14)))
    drawn = [transform.draw(rng, context) for _ in range(500)]
    assert json.loads(json.dumps(drawn)) == drawn
    for name, (low, high) in ranges.items():
        values = [draw[name] for draw in drawn]
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high


def test_channels_draw_their_own_parameters_or_share_them(make_entry):
    entry = make_entry((12, 13, 14), channels=3)
    values = patch_of(entry)
    for per_channel in (False, True):
        recipe = Recipe([RandomBrightness((0.5, 2), per_channel=per_channel)])
        got = recipe.apply(entry, LOCATION, recipe.draw(seeding.generator(0), entry, LOCATION))["image"]
        factors = [float(changed[0, 0, 0] / value[0, 0, 0]) for changed, value in zip(got, values, strict=True)]
        assert len({round(factor, 4) for factor in factors}) == (3 if per_channel else 1)
        expected = values * torch.tensor(factors).reshape(3, 1, 1, 1)
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomGamma(gamma=(0, 1)), "gamma must be above 0"),
        (lambda: RandomGamma(gamma=(1.5, 0.7)), "wrong way round"),
        (lambda: RandomGamma(0.3, gamma=(0.7, 1.5)), "not both"),
        (lambda: RandomGamma(retain_stats=True), 'retain_stats needs statistics="patch"'),
        (lambda: RandomGamma(statistics="image"), '"volume" or "patch"'),
        (lambda: RandomContrast(statistics=None), '"volume" or "patch"'),
        (lambda: RandomContrast((-1, 1)), "factor must be at least 0"),
        (lambda: RandomContrast((1.5, 0.5)), "wrong way round"),
        (lambda: RandomContrast(p_per_channel=1.5), "p_per_channel is a probability"),
        (lambda: RandomHistogramShift(2), "num_control_points must be at least 3"),
        (lambda: RandomHistogramShift((8, 4)), "wrong way round"),
        (lambda: RandomHistogramShift(4.0), "whole numbers"),
        (lambda: RandomHistogramShift((3, 4, 5)), "pair"),
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
