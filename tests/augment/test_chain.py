"""Transforms that look around a patch or elsewhere, and transforms of single channels."""

import numpy as np
import pytest
import torch
from exactness import assert_patch_is_crop

from patchflow import seeding
from patchflow.augment import IntensityTransform, RandomAffine, RandomBrightness, RandomNoise, Recipe
from patchflow.errors import TransformError
from patchflow.geometry.location import PatchLocation, whole

SHAPE = (14, 15, 16)


class Mean3(IntensityTransform):
    """Mean of a voxel and its two neighbours along one axis."""

    trusted = True

    def __init__(self, axis=0, **more):
        super().__init__(**more)
        self.axis = axis

    def draw(self, rng, context):
        return {"axis": self.axis}

    def reach(self, parameters, context):
        return tuple(int(axis == parameters["axis"]) for axis in range(3))

    def apply(self, patch, parameters, context):
        axis = parameters["axis"] + 1
        return (patch.roll(1, axis) + patch + patch.roll(-1, axis)) / 3  # wrong at the ends, which are thrown away


class Echo(IntensityTransform):
    """Adds the image from `shift` voxels further on along K."""

    def draw(self, rng, context):
        return {"shift": int(rng.integers(-20, 20))}

    def windows(self, parameters, context):
        i, j, k = context.location.start
        return [PatchLocation((i, j, k + parameters["shift"]), context.location.size)]

    def apply(self, patch, parameters, context):
        return patch + context.windows[0]


@pytest.mark.parametrize(
    "steps",
    [
        [Mean3()],
        [Mean3(0), Mean3(2), Mean3(0)],
        [Echo()],
        [RandomNoise(std=(1, 1)), Mean3(1), RandomBrightness(0.5)],
        [RandomAffine(0.2, 30), Mean3(2), Echo(), RandomNoise(std=1), Mean3(1)],
        [Mean3(per_channel=True), Echo(per_channel=True, p_per_channel=0.5), RandomNoise(std=(1, 1), per_channel=True)],
        [Echo(), Mean3(), Echo()],
    ],
)
@pytest.mark.parametrize("location", [PatchLocation((3, 4, 5), (6, 7, 8)), PatchLocation((-3, 10, 9), (5, 6, 11))])
def test_a_patch_is_the_crop_of_the_whole(make_entry, steps, location):
    entry, recipe = make_entry(SHAPE, channels=2), Recipe(steps, fill=1)
    for seed in range(4):
        assert_patch_is_crop(recipe, entry, location, seed, margin=12)


def test_the_mean_of_neighbours_is_right_at_the_patch_border(make_entry):
    entry, location = make_entry(SHAPE), PatchLocation((3, 4, 5), (6, 7, 8))
    recipe, plain = Recipe([Mean3(2)]), Recipe([])
    parameters = recipe.draw(seeding.generator(0), entry, location)
    image = plain.apply(entry, whole(SHAPE), plain.draw(seeding.generator(0), entry, location))["image"]
    expected = (image[:, 3:9, 4:11, 4:12] + image[:, 3:9, 4:11, 5:13] + image[:, 3:9, 4:11, 6:14]) / 3
    torch.testing.assert_close(recipe.apply(entry, location, parameters)["image"], expected)


def test_memory_of_larger_patches_is_kept_but_never_handed_out(make_entry):
    entry, recipe = make_entry(SHAPE), Recipe([Mean3(), Mean3(1)])
    location = PatchLocation((3, 4, 5), (6, 7, 8))
    parameters = recipe.draw(seeding.generator(0), entry, location)
    one = recipe.apply(entry, location, parameters)["image"]
    before = one.clone()
    recipe.apply(entry, PatchLocation((0, 0, 0), (6, 7, 8)), parameters)
    assert one.equal(before)


def test_channels_have_their_own_parameters_or_share_them(make_entry):
    entry, location = make_entry(SHAPE, channels=3), PatchLocation((3, 4, 5), (6, 7, 8))
    plain = Recipe([]).apply(entry, location, {"anchor": [0, 0, 0], "steps": []})["image"]
    own = Recipe([RandomBrightness((1, 3), per_channel=True)])
    parameters = own.draw(seeding.generator(0), entry, location)
    drawn = parameters["steps"][0]["parameters"]["image"]
    factors = [values["factor"] for values in drawn]
    assert len(set(factors)) == 3
    made = own.apply(entry, location, parameters)["image"]
    torch.testing.assert_close(made, plain * torch.tensor(factors)[:, None, None, None])

    some = Recipe([RandomBrightness((2, 2), p_per_channel=0.5)])
    counts = np.zeros(3)
    for seed in range(200):
        parameters = some.draw(seeding.generator(seed), entry, location)
        drawn = parameters["steps"][0]["parameters"]["image"]
        counts += [values is not None for values in drawn]
        if seed < 5:
            expected = torch.stack([channel * (1 if values is None else 2) for channel, values in zip(plain, drawn, strict=True)])
            torch.testing.assert_close(some.apply(entry, location, parameters)["image"], expected)
    assert (abs(counts - 100) < 4 * np.sqrt(50)).all()


def test_noise_of_channels_differs_whether_drawn_together_or_not(make_entry):
    entry, location = make_entry(SHAPE, channels=2), PatchLocation((3, 4, 5), (6, 7, 8))
    plain = Recipe([]).apply(entry, location, {"anchor": [0, 0, 0], "steps": []})["image"]
    for per_channel in (False, True):
        recipe = Recipe([RandomNoise(std=(1, 1), per_channel=per_channel)])
        noise = recipe.apply(entry, location, recipe.draw(seeding.generator(0), entry, location))["image"] - plain
        assert abs(np.corrcoef(noise.reshape(2, -1).numpy())[0, 1]) < 0.2


def test_what_is_returned_is_checked_with_its_reach(make_entry):
    class Short(Mean3):
        def apply(self, patch, parameters, context):
            return context.core(patch)

    entry, recipe, location = make_entry(SHAPE), Recipe([Short()]), PatchLocation((3, 4, 5), (6, 7, 8))
    parameters = recipe.draw(seeding.generator(0), entry, location)
    with pytest.raises(TransformError, match="a transform keeps shape and dtype"):
        recipe.apply(entry, location, parameters)


def test_windows_that_channels_share_are_read_once(make_entry, monkeypatch):
    class Twice(Echo):
        def draw(self, rng, context):
            return {"shift": 3}

    entry, location = make_entry(SHAPE, channels=3), PatchLocation((3, 4, 5), (6, 7, 8))
    recipe = Recipe([Twice(per_channel=True)])
    parameters = recipe.draw(seeding.generator(0), entry, location)
    plain, places, read = Recipe([]), [], entry.read
    there = plain.apply(entry, PatchLocation((3, 4, 8), (6, 7, 8)), {"anchor": [0, 0, 0], "steps": []})["image"]
    here = plain.apply(entry, location, {"anchor": [0, 0, 0], "steps": []})["image"]
    monkeypatch.setattr(entry, "read", lambda name, place, **more: (places.append((name, place.start)), read(name, place, **more))[1])
    torch.testing.assert_close(recipe.apply(entry, location, parameters)["image"], here + there)
    assert sorted(places) == [("image", (3, 4, 5)), ("image", (3, 4, 8)), ("label", (3, 4, 5))]
