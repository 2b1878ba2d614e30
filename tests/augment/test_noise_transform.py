import json

import numpy as np
import pytest
import torch
from scipy import stats

from patchflow import seeding
from patchflow.augment import RandomNoise, Recipe
from patchflow.augment.base import Context
from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation
from patchflow.kernels.pointwise import IntensityMap

LOCATION = PatchLocation((1, 2, 3), (8, 9, 10))


def context_of(entry):
    return Context(entry.name, LOCATION, entry.shape, (1.0, 1.0, 1.0), entry.images, (4.5, 6.0, 7.5), patch=LOCATION, image="image")


def test_noise_has_the_drawn_mean_and_std(make_entry):
    patch, context = torch.zeros(1, 64, 64, 64), context_of(make_entry((12, 13, 14)))
    noise = RandomNoise().apply(patch, {"mean": 2.0, "std": 0.3, "key": 77}, context)
    assert abs(float(noise.mean()) - 2) < 4 * 0.3 / 512
    assert abs(float(noise.std()) - 0.3) < 4 * 0.3 / 512


@pytest.mark.parametrize("signal", [0.0, 0.4, 3.0])
def test_rician_noise_has_rices_distribution_above_the_minimum(make_entry, signal):
    entry = make_entry((12, 13, 14), intensities=IntensityMap(0.01, -3.0))
    low = entry.images["image"].statistics.minimum
    patch = torch.full((1, 64, 64, 64), low + signal)
    noisy = RandomNoise(kind="rician").apply(patch, {"mean": 0.0, "std": 0.5, "key": 123456789}, context_of(entry))
    magnitudes = (noisy.double().numpy() - low).ravel()
    assert stats.kstest(magnitudes[::4], stats.rice(signal / 0.5, scale=0.5).cdf).pvalue > 1e-3
    assert magnitudes.mean() == pytest.approx(stats.rice(signal / 0.5, scale=0.5).mean(), abs=4 * 0.5 / 512)


def test_rician_noise_of_no_width_folds_what_is_below_the_minimum(make_entry):
    entry = make_entry((12, 13, 14))
    low = entry.images["image"].statistics.minimum
    patch = torch.tensor([low - 1, low, low + 2]).reshape(1, 1, 1, 3)
    got = RandomNoise(kind="rician").apply(patch, {"mean": 0.0, "std": 0.0, "key": 1}, context_of(entry))
    np.testing.assert_allclose(got.ravel(), [low + 1, low, low + 2], atol=1e-6)


def test_parameters_are_plain_and_in_range(make_entry):
    rng, context = seeding.generator(2), context_of(make_entry((12, 13, 14)))
    drawn = [RandomNoise(0.5, (0.2, 0.4)).draw(rng, context) for _ in range(500)]
    assert json.loads(json.dumps(drawn)) == drawn
    for name, (low, high) in {"mean": (-0.5, 0.5), "std": (0.2, 0.4)}.items():
        values = [draw[name] for draw in drawn]
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
    assert max(draw["key"] for draw in drawn) > 2**63
    assert len({draw["key"] for draw in drawn}) == 500


def test_every_image_draws_its_own_parameters(make_entry):
    entry = make_entry((12, 13, 14))
    entry.images["other"] = entry.images["image"]
    step = Recipe([RandomNoise(std=(0, 1))]).draw(seeding.generator(0), entry, LOCATION)["steps"][0]["parameters"]
    assert step.keys() == {"image", "other"}
    assert step["image"]["key"] != step["other"]["key"]
    assert step["image"]["std"] != step["other"]["std"]


@pytest.mark.parametrize("how", [{}, {"per_channel": True}, {"p_per_channel": 0.999999}])
@pytest.mark.parametrize("kind", ["gaussian", "rician"])
def test_channels_get_noise_of_their_own(make_entry, how, kind):
    entry = make_entry((12, 13, 14), channels=2, intensities=IntensityMap(0.0001))
    recipe = Recipe([RandomNoise(std=(1, 2), kind=kind, **how)])
    got = recipe.apply(entry, LOCATION, recipe.draw(seeding.generator(0), entry, LOCATION))["image"].numpy()
    assert abs(np.corrcoef(got[0].ravel(), got[1].ravel())[0, 1]) < 0.2


def test_channels_share_the_strength_unless_told_otherwise(make_entry):
    context = context_of(make_entry((12, 13, 14), channels=4))
    drawn = RandomNoise(std=(0, 1), p_per_channel=0.5).draw_image(seeding.generator(1), context)
    chosen = [parameters for parameters in drawn if parameters is not None]
    assert 2 <= len(chosen) < 4
    assert len({parameters["std"] for parameters in chosen}) == 1
    assert len({parameters["key"] for parameters in chosen}) == len(chosen)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomNoise(std=(-0.1, 0.1)), "std must be at least 0"),
        (lambda: RandomNoise(std=-1), "std"),
        (lambda: RandomNoise(std=(0.2, 0.1)), "wrong way round"),
        (lambda: RandomNoise(p=-0.1), "p is a probability"),
        (lambda: RandomNoise(kind="poisson"), '"gaussian" or "rician", not \'poisson\''),
        (lambda: RandomNoise(1, kind="rician"), "mean must be 0"),
    ],
)
def test_bad_arguments_are_refused_when_the_transform_is_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
