"""Drawing some of several transforms."""

import json

import numpy as np
import pytest

from patchflow import seeding
from patchflow.augment import OneOf, RandomAffine, RandomBrightness, RandomFlip, RandomGamma, RandomNoise, Recipe, SomeOf
from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation

SHAPE, LOCATION = (16, 17, 18), PatchLocation((2, 3, 4), (8, 9, 10))


def drawn(recipe, entry, number):
    """Which transforms were drawn for each of so many patches: (number, transforms) bool."""
    rng = seeding.generator(0)
    return np.array([[step["parameters"] is not None for step in recipe.draw(rng, entry, LOCATION)["steps"]] for _ in range(number)])


def test_one_of_draws_each_as_often_as_its_weight_says(make_entry):
    recipe = Recipe([OneOf({RandomNoise(): 1, RandomGamma(): 3, RandomBrightness(): 0}, p=0.8)])
    chosen = drawn(recipe, make_entry(SHAPE), 4000)
    assert (chosen.sum(axis=1) <= 1).all()
    shares = chosen.mean(axis=0)
    for share, expected in zip(shares, (0.2, 0.6, 0), strict=True):
        assert abs(share - expected) < 4 * np.sqrt(0.25 / 4000)


def test_some_of_draws_its_number_and_none_twice(make_entry):
    transforms = [RandomNoise(), RandomGamma(), RandomBrightness(), RandomFlip(p=1)]
    chosen = drawn(Recipe([SomeOf(transforms, (1, 3))]), make_entry(SHAPE), 3000)
    numbers = np.bincount(chosen.sum(axis=1), minlength=5) / 3000
    np.testing.assert_allclose(numbers, [0, 1 / 3, 1 / 3, 1 / 3, 0], atol=0.04)
    np.testing.assert_allclose(chosen.mean(axis=0), [0.5] * 4, atol=0.04)


def test_choices_and_lists_nest_and_each_transform_keeps_its_own_p(make_entry):
    entry = make_entry(SHAPE)
    recipe = Recipe([OneOf([[RandomNoise(), RandomGamma(p=0.5)], SomeOf([RandomBrightness(), RandomFlip(p=1)], 2)])])
    chosen = drawn(recipe, entry, 2000)
    noise, gamma, brightness, flip = chosen.T
    assert (brightness == flip).all()
    assert (noise != brightness).all()
    assert not (gamma & ~noise).any()
    assert abs(gamma[noise].mean() - 0.5) < 0.06
    assert [step["transform"] for step in recipe.draw(seeding.generator(0), entry, LOCATION)["steps"]] == [
        leaf.name for leaf in recipe.leaves
    ]


def test_what_is_chosen_is_what_is_applied(make_entry):
    entry, rng = make_entry(SHAPE), seeding.generator(3)
    plain = Recipe([]).apply(entry, LOCATION, Recipe([]).draw(rng, entry, LOCATION))
    recipe = Recipe([OneOf([RandomBrightness((2, 2)), RandomBrightness((3, 3)), RandomFlip(0, p=1)]), RandomFlip(1, p=1)])
    seen = set()
    for _ in range(30):
        parameters = json.loads(json.dumps(recipe.draw(rng, entry, LOCATION)))
        which = [step["parameters"] is not None for step in parameters["steps"]].index(True)
        made = recipe.apply(entry, LOCATION, parameters)["image"]
        expected = [plain["image"].flip(2) * 2, plain["image"].flip(2) * 3, plain["image"].flip(1, 2)][which]
        np.testing.assert_allclose(made.numpy(), expected.numpy(), rtol=1e-6)
        seen.add(which)
    assert seen == {0, 1, 2}


def test_a_callable_that_is_not_chosen_is_not_called(make_entry):
    calls = []

    def keep(sample, rng):
        calls.append(sample["subject"])
        return sample

    entry, recipe = make_entry(SHAPE), Recipe([OneOf([keep, RandomNoise()])])
    rng = seeding.generator(0)
    chosen = 0
    for _ in range(40):
        parameters = recipe.draw(rng, entry, LOCATION)
        chosen += parameters["steps"][0]["parameters"] is not None
        recipe.apply(entry, LOCATION, parameters)
    assert len(calls) == chosen
    assert 5 < chosen < 35


def test_spatial_transforms_of_choices_compose_with_the_others(make_entry):
    entry = make_entry(SHAPE)
    recipe = Recipe([OneOf([RandomAffine(0, (0, 0, 0, 0, 30, 30))]), RandomAffine(0, (0, 0, 0, 0, -30, -30))])
    made = recipe.apply(entry, LOCATION, recipe.draw(seeding.generator(0), entry, LOCATION))
    plain = Recipe([]).apply(entry, LOCATION, Recipe([]).draw(seeding.generator(0), entry, LOCATION))
    np.testing.assert_allclose(made["image"].numpy(), plain["image"].numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneOf([]), "OneOf needs transforms"),
        (lambda: OneOf([3]), "not 3"),
        (lambda: OneOf([RandomFlip()], [1, 2]), "1 numbers"),
        (lambda: OneOf({RandomFlip(): -1}), "at least 0"),
        (lambda: OneOf({RandomFlip(): 0}), "one of them above"),
        (lambda: OneOf([RandomFlip()], p=2), "0 to 1"),
        (lambda: OneOf({RandomFlip(): 1}, [1]), "not both"),
        (lambda: SomeOf([RandomFlip()], 2), "at most 1"),
        (lambda: SomeOf([RandomFlip(), RandomNoise()], (2, 1)), "ordered"),
        (lambda: SomeOf([RandomFlip(), RandomNoise()], 2, [1, 0]), "at most 1"),
        (lambda: SomeOf([RandomFlip()], -1), "at least 0"),
    ],
)
def test_bad_choices_are_refused_when_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_recipes_with_other_choices_are_told_apart():
    one = Recipe([OneOf([RandomNoise(), RandomGamma()])]).to_dict()
    assert one == Recipe([OneOf([RandomNoise(), RandomGamma()])]).to_dict()
    assert one != Recipe([RandomNoise(), RandomGamma()]).to_dict()
    assert one != Recipe([OneOf([RandomNoise(), RandomGamma()], [1, 2])]).to_dict()
    assert one != Recipe([SomeOf([RandomNoise(), RandomGamma()])]).to_dict()
    json.dumps(one, allow_nan=False)
