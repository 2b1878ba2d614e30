import json
import pickle
import random
import time

import numpy as np
import pytest
import torch

from patchflow import seeding
from patchflow.augment import (
    IntensityTransform,
    RandomAffine,
    RandomBrightness,
    RandomFlip,
    RandomGamma,
    RandomNoise,
    Recipe,
    SpatialTransform,
)
from patchflow.errors import ArgumentError, TransformError, UnknownNameError
from patchflow.geometry.location import PatchLocation, whole

SHAPE, LOCATION = (16, 17, 18), PatchLocation((2, -1, 3), (8, 9, 10))
WHERE = r"s1.* at \(2, -1, 3\) to \(10, 8, 13\)"


class Offset(IntensityTransform):
    def draw(self, rng, context):
        return {"offset": float(rng.normal())}

    def apply(self, patch, parameters, context):
        return patch + parameters["offset"]


class Returns(IntensityTransform):
    """Returns what it is told to make of a patch."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def draw(self, rng, context):
        return {}

    def apply(self, patch, parameters, context):
        return self.function(patch)


def everything(**more):
    return Recipe([RandomFlip(), RandomAffine(degrees=30, translation=2), RandomNoise(std=0.5), RandomGamma(), RandomBrightness()], **more)


def made(recipe, entry, seed=0, location=LOCATION, **more):
    return recipe.apply(entry, location, recipe.draw(seeding.generator(seed), entry, location), **more)


def test_parameters_survive_json_and_give_the_patch_bit_for_bit(make_entry):
    entry = make_entry(SHAPE, channels=2, spacing=(1, 1.5, 3))
    recipe = Recipe([*everything().transforms, Offset(), lambda sample, rng: {**sample, "image": sample["image"] * rng.random()}])
    for seed in range(5):
        parameters = recipe.draw(seeding.generator(seed), entry, LOCATION)
        text = json.dumps(parameters, allow_nan=False)
        assert json.loads(text) == parameters
        one, two = recipe.apply(entry, LOCATION, parameters), recipe.apply(entry, LOCATION, json.loads(text))
        assert one["image"].numpy().tobytes() == two["image"].numpy().tobytes()
        assert one["label"].numpy().tobytes() == two["label"].numpy().tobytes()
    assert [step["transform"] for step in parameters["steps"]][:2] == ["RandomFlip", "RandomAffine"]
    assert parameters["anchor"] == [5.5, 3.0, 7.5]


def test_the_generator_alone_decides(make_entry):
    entry, recipe = make_entry(SHAPE), everything()
    assert made(recipe, entry, 3)["image"].equal(made(pickle.loads(pickle.dumps(recipe)), entry, 3)["image"])
    assert not made(recipe, entry, 3)["image"].equal(made(recipe, entry, 4)["image"])


def test_without_transforms_a_patch_is_what_is_read(make_entry):
    entry = make_entry(SHAPE)
    sample = made(Recipe([], fill=7), entry)
    np.testing.assert_array_equal(sample["image"].numpy(), entry.read("image", LOCATION, fill=7))
    np.testing.assert_array_equal(sample["label"].numpy(), entry.read("label", LOCATION, fill=7))
    assert sample["image"].dtype == torch.float32
    assert sample["label"].dtype == torch.uint8


def test_out_is_filled_wherever_it_lies(make_entry):
    entry, recipe = make_entry(SHAPE, channels=2), Recipe([*everything().transforms, Offset(), lambda s, rng: {**s, "image": -s["image"]}])
    expected = made(recipe, entry)
    batch = {"image": torch.full((3, 2, 8, 9, 10), 5.0), "label": torch.full((3, 1, 8, 9, 10), 5, dtype=torch.uint8)}
    sample = made(recipe, entry, out={name: tensor[1] for name, tensor in batch.items()})
    for name in ("image", "label"):
        assert sample[name].data_ptr() == batch[name][1].data_ptr()
        assert batch[name][1].equal(expected[name])
        assert batch[name][0].eq(5).all()
        assert batch[name][2].eq(5).all()
    strided = {"image": torch.empty(2, 10, 9, 8).permute(0, 3, 2, 1), "label": torch.empty(1, 8, 9, 20, dtype=torch.uint8)[..., ::2]}
    sample = made(recipe, entry, out=strided)
    torch.testing.assert_close(sample["image"], expected["image"], rtol=0, atol=2e-5)
    assert strided["label"].equal(expected["label"])


@pytest.mark.parametrize("bad", [torch.empty(1, 8, 9, 9), torch.empty(1, 8, 9, 10, dtype=torch.float64), torch.empty(2, 8, 9, 10)])
def test_an_out_that_does_not_fit_is_refused(make_entry, bad):
    with pytest.raises(ArgumentError, match=r"out\['image'\] must be a float32 tensor of shape \(1, 8, 9, 10\)"):
        made(Recipe([]), make_entry(SHAPE), out={"image": bad}, keys=["image"])


def test_keys_choose_images_without_changing_them(make_entry):
    entry, recipe = make_entry(SHAPE), everything()
    assert made(recipe, entry, keys=["label"]).keys() == {"label"}
    assert made(recipe, entry, keys=["image"])["image"].equal(made(recipe, entry)["image"])
    with pytest.raises(UnknownNameError, match="no image 'pet'"):
        made(recipe, entry, keys=["pet"])


def test_keys_of_transforms(make_entry):
    entry = make_entry(SHAPE)
    recipe = Recipe([RandomFlip(0, p=1, keys=["label"]), RandomBrightness((2, 2), keys=["image"])])
    sample, plain = made(recipe, entry), made(Recipe([]), entry)
    assert sample["image"].equal(plain["image"] * 2)
    assert sample["label"].equal(plain["label"].flip(1))


def test_p_is_the_share_of_patches_changed(make_entry):
    entry, rng = make_entry(SHAPE), seeding.generator(0)
    recipe = Recipe([RandomBrightness(p=0.25), RandomAffine(p=0), RandomNoise(p=1)])
    drawn = [recipe.draw(rng, entry, LOCATION)["steps"] for _ in range(2000)]
    counts = [sum(steps[n]["parameters"] is not None for steps in drawn) for n in range(3)]
    assert abs(counts[0] - 500) < 4 * np.sqrt(2000 * 0.25 * 0.75)
    assert counts[1:] == [0, 2000]


def test_images_and_labels_stay_aligned(make_entry):
    """Where the image is the label map in other units, it stays so (nearest for both)."""
    entry = make_entry(SHAPE, spacing=(1, 2, 3))
    entry._stored["image"] = entry._stored["label"].astype(np.int16) * 100
    recipe = Recipe([RandomFlip(), RandomAffine(0.3, 40, 5)], fill={"image": 3, "label": 6}, image_interpolation="nearest")
    sample = made(recipe, entry)
    torch.testing.assert_close(sample["image"], sample["label"] - 3.0, rtol=0, atol=1e-6)
    assert sample["label"].unique().numel() > 3


def test_spatial_transforms_are_one_interpolation(make_entry):
    """A rotation and its inverse leave the patch as it was: twice interpolated it would be blurred."""
    entry = make_entry(SHAPE)
    recipe = Recipe([RandomAffine(0, (0, 0, 0, 0, 30, 30)), RandomAffine(0, (0, 0, 0, 0, -30, -30))])
    torch.testing.assert_close(made(recipe, entry)["image"], made(Recipe([]), entry)["image"], rtol=0, atol=1e-5)


def test_stages_count_time(make_entry):
    stages = {}
    made(Recipe([*everything().transforms, lambda s, rng: s]), make_entry(SHAPE), stages=stages)
    assert stages.keys() == {"read", "spatial", "RandomNoise", "RandomGamma", "RandomBrightness", "<lambda>"}
    assert all(isinstance(spent, int) and spent > 0 for spent in stages.values())
    before = dict(stages)
    slow = {}
    made(Recipe([Returns(lambda patch: (time.sleep(0.05), patch)[1]), lambda s, rng: s]), make_entry(SHAPE), stages=slow)
    assert slow["Returns"] >= 50e6 > slow["<lambda>"]  # each stage is charged its own time alone
    made(everything(), make_entry(SHAPE), stages=stages)
    assert stages["spatial"] > before["spatial"]


def test_callables_get_the_sample_and_their_own_generator(make_entry):
    seen = []

    def keep(sample, rng):
        seen.append((sample["subject"], sample["location"].tolist(), rng.random()))
        return sample

    def named(sample, factor=1, *, rng):
        sample["image"].mul_(rng.random())
        return sample

    entry = make_entry(SHAPE)
    recipe = Recipe([keep, named])
    one, two = made(recipe, entry, 1)["image"], made(recipe, entry, 1)["image"]
    assert one.equal(two)
    assert seen[0] == seen[1]
    assert seen[0][:2] == ("s1", [2, -1, 3, 10, 8, 13])
    made(recipe, entry, 2)
    assert seen[2][2] != seen[0][2]
    assert not recipe.uses_global_random


def test_callables_that_draw_from_global_generators_are_deterministic_and_leave_them_alone(make_entry):
    def jitter(sample):
        sample["image"] += float(np.random.random()) + random.random() + torch.rand(1).item()
        return sample

    recipe = Recipe([jitter])
    assert recipe.uses_global_random
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    one = made(recipe, make_entry(SHAPE), 5)["image"]
    random.random()
    np.random.random()
    assert made(recipe, make_entry(SHAPE), 5)["image"].equal(one)
    assert not made(recipe, make_entry(SHAPE), 6)["image"].equal(one)
    random.setstate(states[0])
    assert torch.get_rng_state().tolist() == states[2]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda patch: patch[..., 1:], "returned torch.float32 of shape"),
        (lambda patch: patch.double(), "returned torch.float64"),
        (lambda patch: patch / 0 * 0, "720 values that are NaN"),
        (lambda patch: torch.where(torch.arange(10) == 3, torch.inf, patch), "72 values that are NaN or infinite"),
        (lambda patch: patch.numpy(), "ndarray instead of a tensor"),
        (lambda patch: None, "NoneType instead of a tensor"),
    ],
)
def test_what_user_code_returns_is_checked(make_entry, function, message):
    entry = make_entry(SHAPE)
    with pytest.raises(TransformError, match=f"(?s)Returns for subject '{WHERE}.*'image'.*{message}"):
        made(Recipe([Returns(function)]), entry)

    def on_sample(sample, rng):
        return {**sample, "image": function(sample["image"])}

    with pytest.raises(TransformError, match=f"(?s)on_sample for subject '{WHERE}.*'image'.*{message}"):
        made(Recipe([on_sample]), entry)


def test_huge_but_finite_values_pass(make_entry):
    assert made(Recipe([Returns(lambda patch: torch.full_like(patch, 3e38))]), make_entry(SHAPE))["image"].eq(3e38).all()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda s, rng: None, "returned NoneType: return the sample"),
        (lambda s, rng: {"image": s["image"]}, "keeps exactly its images"),
        (lambda s, rng: {**s, "extra": s["image"]}, "keeps exactly its images"),
        (lambda s, rng: {**s, "label": s["label"].long()}, "int64"),
    ],
)
def test_callables_keep_the_images(make_entry, function, message):
    with pytest.raises(TransformError, match=message):
        made(Recipe([function]), make_entry(SHAPE))


def test_an_error_of_user_code_keeps_its_type_and_says_where(make_entry):
    def broken(*_):
        raise ZeroDivisionError("oops")

    for recipe in (Recipe([Returns(broken)]), Recipe([broken])):
        with pytest.raises(ZeroDivisionError, match="oops") as caught:
            made(recipe, make_entry(SHAPE))
        assert "subject 's1' at (2, -1, 3) to (10, 8, 13)" in caught.value.__notes__[0]


def test_a_subclass_of_a_trusted_transform_is_checked(make_entry):
    class Broken(RandomNoise):
        def apply(self, patch, parameters, context):
            return patch * float("nan")

    with pytest.raises(TransformError, match="Broken"):
        made(Recipe([Broken()]), make_entry(SHAPE))


def test_a_map_of_the_users_own(make_entry):
    class Swap(SpatialTransform):
        def draw(self, rng, context):
            return {}

        def map(self, parameters, context):
            return np.eye(4)[[1, 0, 2, 3]]

    entry = make_entry((9, 9, 9))
    sample, plain = made(Recipe([Swap()]), entry, location=whole((9, 9, 9))), made(Recipe([]), entry, location=whole((9, 9, 9)))
    assert sample["image"].equal(plain["image"].transpose(1, 2))

    class Bad(Swap):
        def map(self, parameters, context):
            return np.full((4, 4), np.nan)

    with pytest.raises(TransformError, match=r"Bad for subject 's1'.*finite 4x4"):
        made(Recipe([Bad()]), entry)


def test_a_map_that_leaves_the_volume_gives_the_fill(make_entry):
    class Far(RandomAffine):
        def map(self, parameters, context):
            matrix = super().map(parameters, context)
            matrix[:3, 3] += 1e12
            return matrix

    sample = made(Recipe([Far()], fill={"image": 2.5, "label": 4}), make_entry(SHAPE))
    assert sample["image"].eq(2.5).all()
    assert sample["label"].eq(4).all()


def test_parameters_of_another_recipe_are_refused(make_entry):
    entry = make_entry(SHAPE)
    with pytest.raises(TransformError, match="drawn by another recipe"):
        Recipe([RandomNoise()]).apply(entry, LOCATION, Recipe([RandomGamma()]).draw(seeding.generator(0), entry, LOCATION))


def test_check_finds_what_would_go_wrong(make_entry):
    images = make_entry(SHAPE).images
    everything(fill={"image": -1000.5, "label": 255}).check(images)
    with pytest.raises(UnknownNameError, match=r"RandomNoise has the key 'pet'.*image.*label"):
        Recipe([RandomNoise(keys=["pet"])]).check(images)
    with pytest.raises(UnknownNameError, match="RandomFlip has the key 'pet'"):
        Recipe([RandomFlip(keys=["image", "pet"])]).check(images)
    with pytest.raises(TransformError, match="'label' is a label map"):
        Recipe([RandomGamma(keys=["label"])]).check(images)
    with pytest.raises(UnknownNameError, match="fill for 'pet'"):
        Recipe([], fill={"pet": 1}).check(images)
    for fill in (-1000, 0.5, 256):
        with pytest.raises(TransformError, match="does not fit the label map 'label'"):
            Recipe([], fill=fill).check(images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe([3]), "not 3"),
        (lambda: Recipe([RandomFlip]), "instances"),
        (lambda: Recipe([None]), "not None"),
        (lambda: Recipe([], fill=float("nan")), "finite"),
        (lambda: Recipe([], fill={"image": "0"}), "finite"),
        (lambda: Recipe([], image_interpolation="bspline"), "image_interpolation must be"),
        (lambda: Recipe([], label_interpolation="cubic"), "label_interpolation must be"),
        (lambda: Recipe([], outside="wrap"), "outside must be"),
    ],
)
def test_bad_recipes_are_refused_when_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_to_dict_tells_recipes_apart():
    one, two = everything(), everything(fill=1)
    assert one.to_dict() == everything().to_dict()
    assert one.to_dict() != two.to_dict()
    assert Recipe([RandomNoise(std=1)]).to_dict() != Recipe([RandomNoise(std=2)]).to_dict()
    assert Recipe([made]).to_dict() != Recipe([everything]).to_dict()
    json.dumps(one.to_dict(), allow_nan=False)
    assert "RandomAffine(p=1.0" in repr(one)
