"""Bias field, spikes and ghosts: closed forms against the Fourier transform and TorchIO, and patches against the volume."""

import json

import fake_entry
import numpy as np
import pytest
import torch
from exactness import assert_patch_is_crop
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow import seeding
from patchflow.augment import RandomAffine, RandomBiasField, RandomGhosting, RandomNoise, RandomSpike, Recipe
from patchflow.augment.artefacts import _powers as powers
from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation, whole
from patchflow.kernels.lines import add_filtered, plain_add_filtered
from patchflow.kernels.polynomial import apply_field, plain_field
from patchflow.kernels.waves import Wave, add_waves, plain_add_waves

SHAPE = (16, 15, 24)
PLAIN = {"anchor": [0, 0, 0], "steps": []}


def image_of(entry, location):
    return Recipe([]).apply(entry, location, PLAIN)["image"]


def applied(transform, entry, location, parameters):
    steps = {"anchor": [0, 0, 0], "steps": [{"transform": transform.name, "parameters": {"image": parameters}}]}
    return Recipe([transform]).apply(entry, location, json.loads(json.dumps(steps)))["image"]


def cube(coefficients, order):
    table = np.zeros((order + 1,) * 3)
    for power, coefficient in zip(powers(order), coefficients, strict=True):
        table[power] = coefficient
    return table


def spectrum(volume):
    return np.fft.fftshift(np.fft.fftn(volume))


def image_from(spectrum):
    return np.fft.ifftn(np.fft.ifftshift(spectrum)).real


def test_a_bias_field_is_the_exponential_of_a_polynomial(make_entry):
    entry = make_entry(SHAPE)
    coefficients = seeding.generator(0).uniform(-0.5, 0.5, len(powers(2)))
    made = applied(RandomBiasField(), entry, whole(SHAPE), {"coefficients": coefficients.tolist(), "order": 2})
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    assert powers(2)[:4] == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)]
    field = np.exp(sum(c * x**a * y**b * z**d for c, (a, b, d) in zip(coefficients, powers(2), strict=True)))
    image, low = image_of(entry, whole(SHAPE)).numpy(), entry.images["image"].statistics.minimum
    np.testing.assert_allclose(made.numpy(), low + (image - low) * field, rtol=1e-5, atol=1e-5)


def test_a_bias_field_is_torchios(make_entry):
    torchio = pytest.importorskip("torchio")
    volume = torch.rand(1, 16, 14, 12, generator=torch.Generator().manual_seed(0))
    coefficients = seeding.generator(0).uniform(-0.5, 0.5, 20)
    theirs = torchio.transforms.augmentation.intensity.random_bias_field.BiasField(coefficients.tolist(), 3)
    expected = theirs(torchio.Subject(image=torchio.ScalarImage(tensor=volume)))["image"].data
    ours = plain_field(volume, (0, 0, 0), (16, 14, 12), cube(coefficients, 3), 0.0)
    np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=2e-4)


@pytest.mark.parametrize("frequency", [(3, -2, 5), (-8, 7, -12), (0, 0, 0), (0, 0, 1)])
def test_a_spike_is_what_the_fourier_transform_gives(make_entry, frequency):
    entry = make_entry(SHAPE)
    spikes = {"spikes": [{"frequency": list(frequency), "intensity": 2.0, "phase": 0.7}]}
    made = applied(RandomSpike(), entry, whole(SHAPE), spikes)[0].numpy()
    volume = image_of(entry, whole(SHAPE))[0].numpy().astype(np.float64)
    low = volume.min()
    k_space = spectrum(volume - low)
    size = np.abs(k_space).max()  # of the mean, as nothing is below 0
    k_space[tuple(n // 2 + f for n, f in zip(SHAPE, frequency, strict=True))] += 2 * size * np.exp(0.7j)
    np.testing.assert_allclose(made, image_from(k_space) + low, atol=1e-4)


def test_a_spike_is_torchios(make_entry):
    torchio = pytest.importorskip("torchio")
    entry = make_entry(SHAPE)
    volume = image_of(entry, whole(SHAPE)) - entry.images["image"].statistics.minimum
    position = [(n // 2 + f) / n + 1e-6 for n, f in zip(SHAPE, (3, -2, 5), strict=True)]
    theirs = torchio.transforms.augmentation.intensity.random_spike.Spike(np.array([position]), 1.5)
    expected = theirs(torchio.Subject(image=torchio.ScalarImage(tensor=volume)))["image"].data
    spikes = {"spikes": [{"frequency": [3, -2, 5], "intensity": 1.5, "phase": 0.0}]}
    made = applied(RandomSpike(), entry, whole(SHAPE), spikes) - entry.images["image"].statistics.minimum
    np.testing.assert_allclose(made.numpy(), expected.numpy(), atol=1e-3)


@pytest.mark.parametrize(("axis", "number", "restore"), [(0, 4, 0.02), (0, 5, 0.3), (1, 3, 0), (1, 7, 0.5), (2, 2, 0.02), (2, 9, 0.1)])
def test_ghosts_are_what_weighted_lines_of_k_space_give(make_entry, axis, number, restore):
    entry, n = make_entry(SHAPE), SHAPE[axis]
    drawn = {"num_ghosts": number, "axis": axis, "intensity": 0.8, "restore": restore}
    made = applied(RandomGhosting(), entry, whole(SHAPE), drawn)[0].numpy()
    volume = image_of(entry, whole(SHAPE))[0].numpy().astype(np.float64)
    k_space = np.moveaxis(spectrum(volume), axis, 0)
    for line in range(0, n, number):
        if abs(line - n // 2) > restore * n / 2:
            k_space[line] *= 1 - 0.8
    np.testing.assert_allclose(made, image_from(np.moveaxis(k_space, 0, axis)), atol=1e-4)
    assert abs(made.mean() - volume.mean()) < 1e-4


def test_ghosts_are_torchios(make_entry):
    torchio = pytest.importorskip("torchio")
    shape = (16, 50, 24)
    entry = make_entry(shape)
    volume = image_of(entry, whole(shape))
    theirs = torchio.transforms.augmentation.intensity.random_ghosting.Ghosting(4, 1, 0.7, None)
    expected = theirs(torchio.Subject(image=torchio.ScalarImage(tensor=volume)))["image"].data
    made = applied(RandomGhosting(), entry, whole(shape), {"num_ghosts": 4, "axis": 1, "intensity": 0.7, "restore": 0.0})
    np.testing.assert_allclose(made.numpy(), expected.numpy(), atol=1e-4)


transforms = st.sampled_from(
    [
        RandomBiasField(0.5, 3),
        RandomBiasField(0.5, 0, per_channel=True),
        RandomSpike((1, 3)),
        RandomSpike(2, (0.5, 1), p_per_channel=0.5),
        RandomGhosting(),
        RandomGhosting(3, 2, 0.5, per_channel=True),
        RandomGhosting((2, 40), (0, 1)),
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(transforms, min_size=1, max_size=3), st.tuples(*[st.integers(-5, 20)] * 3), st.integers(0, 2**32), st.booleans())
def test_a_patch_is_the_crop_of_the_volume(steps, start, seed, moved):
    entry, location = fake_entry.make_entry((13, 1, 17), channels=2, spacing=(1, 2, 3)), PatchLocation(start, (6, 5, 7))
    recipe = Recipe([*([RandomAffine(degrees=30)] if moved else []), *steps, RandomNoise(std=(0.1, 0.1))], fill={"image": -3})
    assert recipe.exact
    assert_patch_is_crop(recipe, entry, location, seed)


places = st.tuples(*[st.integers(-9, 30)] * 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), places, st.tuples(*[st.integers(1, 20)] * 3), st.integers(0, 4))
def test_fields_and_waves_agree_with_their_plain_twins(seed, start, shape, order):
    rng = seeding.generator(seed)
    patch = rng.normal(0, 1, (2, 4, 5, 6)).astype(np.float32)
    coefficients = cube(rng.uniform(-0.5, 0.5, len(powers(order))), order)
    waves = [Wave((3, -2, 1), 2.0, 1.0), Wave((0, 5, -7), -0.5, 4.0)]
    expected = plain_field(torch.from_numpy(patch), start, shape, coefficients, -0.5).numpy()
    waved = plain_add_waves(torch.from_numpy(patch.copy()), start, shape, waves).numpy()
    other = patch.copy()
    apply_field(patch, start, shape, coefficients, -0.5)
    add_waves(other, start, shape, waves)
    np.testing.assert_allclose(patch, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(other, waved, atol=1e-5)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_filters_along_lines_agree_with_their_plain_twin(data):
    axis, n = data.draw(st.integers(0, 2)), data.draw(st.integers(1, 41))
    rng = seeding.generator(data.draw(st.integers(0, 2**32)))
    first = data.draw(st.integers(0, n - 1))
    place = [data.draw(st.integers(0, 3)) for _ in range(3)]
    cross = [data.draw(st.integers(1, 20)) for _ in range(3)]
    count = data.draw(st.integers(1, n - first))
    slab = rng.normal(0, 1, (2, *(n if other == axis else cross[other] for other in range(3)))).astype(np.float32)
    # Along the axis the part to be changed ends with the patch; elsewhere the patch goes on.
    size = [place[other] + (count if other == axis else cross[other] + 2) for other in range(3)]
    patch = rng.normal(0, 1, (2, *size)).astype(np.float32)
    gains = rng.uniform(-1, 1, n // 2 + 1)
    expected = torch.from_numpy(patch.copy())
    plain_add_filtered(expected, torch.from_numpy(slab), tuple(place), first, axis, gains)
    add_filtered(patch, slab, tuple(place), first, axis, gains)
    np.testing.assert_allclose(patch, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("transform", [RandomSpike(intensity=(0, 0)), RandomSpike(0), RandomGhosting(intensity=(0, 0)), RandomBiasField(0)])
def test_nothing_at_zero_intensity(make_entry, transform):
    entry, location = make_entry(SHAPE), PatchLocation((2, 3, 4), (8, 7, 6))
    recipe = Recipe([transform])
    made = recipe.apply(entry, location, recipe.draw(seeding.generator(0), entry, location))["image"]
    np.testing.assert_allclose(made.numpy(), image_of(entry, location).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomBiasField((0.5, -0.5)), "wrong way round"),
        (lambda: RandomBiasField(5), "beyond float32"),
        (lambda: RandomBiasField(0.5, 1.5), "order must be an int of at least 0"),
        (lambda: RandomSpike(-1), "num_spikes"),
        (lambda: RandomSpike((3, 1)), "wrong way round"),
        (lambda: RandomGhosting(1), "at least 2"),
        (lambda: RandomGhosting(4, 3), "axes"),
        (lambda: RandomGhosting(4, 0, (-1, 1)), "at least 0"),
        (lambda: RandomGhosting(p=1.2), "0 to 1"),
        (lambda: RandomGhosting(restore=2), "at most 1"),
    ],
)
def test_bad_arguments_are_refused_when_the_transform_is_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
