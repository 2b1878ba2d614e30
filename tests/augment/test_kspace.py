"""Gibbs ringing and motion: what the Fourier transform of the whole volume gives, on patches too."""

import itertools
import json

import fake_entry
import numpy as np
import pytest
import torch
from exactness import assert_patch_is_crop
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform

from patchflow import seeding
from patchflow.augment import RandomAffine, RandomBrightness, RandomGibbs, RandomMotion, RandomNoise, Recipe
from patchflow.augment.base import Context
from patchflow.augment.deferred import defer
from patchflow.augment.kspace import _rigid
from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation, whole

SHAPE = (16, 15, 24)
PLAIN = {"anchor": [0, 0, 0], "steps": []}


def applied(transform, entry, location, parameters):
    steps = {"anchor": [0, 0, 0], "steps": [{"transform": transform.name, "parameters": {"image": parameters}}]}
    return Recipe([transform]).apply(entry, location, json.loads(json.dumps(steps)))["image"]


def volume_of(entry):
    return Recipe([]).apply(entry, whole(entry.shape), PLAIN)["image"][0].numpy().astype(np.float64)


def lines(n, axis, chosen):
    """A mask over the lines of k-space along an axis, in the order in which they are scanned."""
    return np.fft.ifftshift(chosen(np.arange(n))).reshape([-1 if axis == other else 1 for other in range(3)])


@pytest.mark.parametrize(("axis", "alpha"), [(0, 0.5), (1, 0.3), (2, 0.8), (2, 1.0), (0, 0.0)])
def test_gibbs_is_k_space_that_ends_too_early(axis, alpha):
    entry, n = fake_entry.make_entry(SHAPE), SHAPE[axis]
    volume = volume_of(entry)
    kept = lines(n, axis, lambda line: np.abs(line - n // 2) <= (1 - alpha) * n / 2)
    expected = np.fft.ifft(np.fft.fft(volume, axis=axis) * kept, axis=axis).real
    made = applied(RandomGibbs(), entry, whole(SHAPE), {"axis": axis, "alpha": alpha})[0].numpy()
    np.testing.assert_allclose(made, expected, atol=1e-4)


def test_gibbs_rings_beside_an_edge():
    step = np.zeros((96, 8, 8), np.float32)
    step[24:72] = 100
    entry = fake_entry.FakeEntry({"image": step[None]}, {"label": step.astype(np.uint8)[None]})
    line = applied(RandomGibbs(), entry, PatchLocation((10, 2, 2), (40, 3, 3)), {"axis": 0, "alpha": 0.6})[0, :, 1, 1].numpy()
    assert 106 < line.max() < 111  # the overshoot of 9 % that does not go away
    assert -11 < line.min() < -6
    assert np.diff(np.sign(np.diff(line[16:34]))).astype(bool).sum() >= 3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_motion_is_k_space_of_several_poses(axis):
    """By FFT of the whole volume, with another library's interpolation."""
    spacing = (2.0, 1.0, 1.5)
    entry, n = fake_entry.make_entry(SHAPE, spacing=spacing), SHAPE[axis]
    volume, context = volume_of(entry), Context("s", whole(SHAPE), SHAPE, spacing, {}, (0.0, 0.0, 0.0))
    times = (0.2, 0.63, 0.9)
    rng = seeding.generator(axis)
    moves = [{"time": time, "degrees": rng.uniform(-20, 20, 3).tolist(), "translation": rng.uniform(-4, 4, 3).tolist()} for time in times]
    ends, left, expected = [0, *(int(n * time) for time in times), n], iter(moves), 0.0
    for first, stop in itertools.pairwise(ends):
        image = volume
        if not first <= n // 2 < stop:
            matrix = _rigid(next(left), context).matrix
            image = affine_transform(volume, matrix, order=1, mode="grid-constant", cval=volume.min())
        part = lines(n, axis, lambda line, first=first, stop=stop: (line >= first) & (line < stop))
        expected = expected + np.fft.ifft(np.fft.fft(image, axis=axis) * part, axis=axis).real
    made = applied(RandomMotion(), entry, whole(SHAPE), {"axis": axis, "movements": moves})[0].numpy()
    np.testing.assert_allclose(made, expected, atol=2e-4)


def test_movements_are_rigid_in_millimetres_about_the_volumes_centre():
    context = Context("s", whole((21, 11, 5)), (21, 11, 5), (1.0, 2.0, 4.0), {}, (0.0, 0.0, 0.0))
    matrix = _rigid({"degrees": [0, 0, 90], "translation": [0, 0, 8]}, context).matrix
    # Turned by 90 degrees about K, the point 8 mm along I from the centre (10, 5, 2) comes to lie 8 mm, 4 voxels, along J; and 2 slices up.
    np.testing.assert_allclose(np.linalg.solve(matrix, [18, 5, 2, 1])[:3], [10, 9, 4], atol=1e-9)


transforms = st.sampled_from(
    [RandomGibbs(), RandomGibbs(0.5, 1, per_channel=True), RandomMotion(), RandomMotion(30, 5, 4, (0, 2), p_per_channel=0.5)]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(transforms, min_size=1, max_size=2), st.tuples(*[st.integers(-5, 20)] * 3), st.integers(0, 2**32), st.booleans())
def test_a_patch_is_the_crop_of_the_volume(steps, start, seed, moved):
    entry, location = fake_entry.make_entry((13, 1, 17), channels=2, spacing=(1, 2, 3)), PatchLocation(start, (6, 5, 7))
    recipe = Recipe([*([RandomAffine(degrees=30)] if moved else []), *steps, RandomNoise(std=(0.1, 0.1))], fill={"image": -3})
    assert recipe.exact
    assert_patch_is_crop(recipe, entry, location, seed)


@pytest.mark.parametrize(
    "transform", [RandomGibbs(), RandomGibbs(axes=1, per_channel=True), RandomMotion(), RandomMotion(num_transforms=4)]
)
def test_parameters_survive_json_and_the_device_agrees(transform):
    entry = fake_entry.make_entry((40, 36, 38), channels=2, spacing=(1, 1.5, 2))
    location, recipe = PatchLocation((-3, 10, 12), (16, 15, 14)), Recipe([transform, RandomBrightness(), transform])
    for seed in range(3):
        parameters = recipe.draw(seeding.generator(seed), entry, location)
        made = recipe.apply(entry, location, parameters)
        again = recipe.apply(entry, location, json.loads(json.dumps(parameters)))
        assert torch.equal(made["image"], again["image"])
        width = float(made["image"].max() - made["image"].min())
        assert (defer(recipe, entry, location, parameters).make()["image"] - made["image"]).abs().max() < 1e-3 * width


def test_an_axis_of_one_voxel_is_never_drawn():
    entry = fake_entry.make_entry((1, 30, 1))
    location = PatchLocation((0, 3, 0), (1, 9, 1))
    for transform in (RandomGibbs(), RandomMotion()):
        drawn = [Recipe([transform]).draw(seeding.generator(seed), entry, location)["steps"][0]["parameters"]["image"] for seed in range(9)]
        assert {parameters["axis"] for parameters in drawn} == {1}
        assert Recipe([type(transform)(axes=(0, 2))]).draw(seeding.generator(0), entry, location)["steps"][0]["parameters"]["image"] is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomGibbs((0.6, 0.2)), "wrong way round"),
        (lambda: RandomGibbs(1.1), "at most 1"),
        (lambda: RandomGibbs((-0.1, 0.2)), "at least 0"),
        (lambda: RandomGibbs(axes=()), "axes"),
        (lambda: RandomMotion((5, -5)), "wrong way round"),
        (lambda: RandomMotion(num_transforms=0), "at least 1"),
        (lambda: RandomMotion(p=-1), "0 to 1"),
    ],
)
def test_bad_arguments_are_refused_when_the_transform_is_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
