"""The presets are what they say, from Python and from YAML."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from patchflow import augment, seeding
from patchflow.augment import Recipe
from patchflow.augment.config import recipe_from
from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation

CONFIGS = Path(__file__).parents[2] / "configs" / "recipes"
SHAPE, LOCATION = (24, 26, 28), PatchLocation((2, 3, 4), (16, 18, 20))


@pytest.mark.parametrize(
    ("file", "preset"),
    [
        ("nnunet.yaml", augment.nnunet(128)),
        ("nnunet_dummy_2d.yaml", augment.nnunet((160, 160, 32))),
        ("mri.yaml", augment.mri()),
        ("ct.yaml", augment.ct()),
    ],
)
def test_the_yaml_file_is_the_preset(file, preset):
    assert augment.load_recipe(CONFIGS / file, 128).to_dict() == preset.to_dict()


@pytest.mark.parametrize("name", ["nnunet", "mri", "ct"])
def test_a_preset_makes_patches(make_entry, name):
    entry = make_entry(SHAPE, channels=2, spacing=(1, 1, 2))
    recipe = augment.load_recipe(name, LOCATION.size)
    recipe.check(entry.images)
    plain = Recipe([]).apply(entry, LOCATION, {"anchor": [0, 0, 0], "steps": []})
    changed = 0
    for seed in range(40):
        made = recipe.apply(entry, LOCATION, recipe.draw(seeding.generator(seed), entry, LOCATION))
        assert made["image"].isfinite().all()
        assert set(made["label"].unique().tolist()) <= {0, 1, 2, 3, 4}
        changed += not made["image"].equal(plain["image"])
    assert changed > 25
    assert not augment.nnunet(128).exact


def drawn(recipe, entry, number=4000):
    rng = seeding.generator(0)
    return [recipe.draw(rng, entry, LOCATION)["steps"] for _ in range(number)]


def test_nnunet_draws_as_nnunet_does(make_entry):
    """Probabilities and ranges of nnunetv2 2.8's get_training_transforms."""
    entry = make_entry(SHAPE, channels=2)
    steps = drawn(augment.nnunet(128), entry)
    shares = [np.mean([patch[n]["parameters"] is not None for patch in steps]) for n in range(10)]
    for share, expected in zip(shares, (0.2, 0.2, 0.1, 0.2, 0.15, 0.15, 0.25, 0.1, 0.3, 1 - 0.5**3), strict=True):
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000)

    def values(place, name):
        return [patch[place]["parameters"][name] for patch in steps if patch[place]["parameters"] is not None]

    def by_channel(place, name):
        found = [patch[place]["parameters"]["image"] for patch in steps if patch[place]["parameters"] is not None]
        return [[None if channel is None else channel[name] for channel in patch] for patch in found]

    degrees = np.array(values(0, "degrees"))
    assert degrees.min() < -29
    assert degrees.max() > 29
    assert np.abs(degrees).max() <= 30
    apart = 1 / np.array(values(1, "scales"))
    assert (apart[:, 0] == apart[:, 1]).all()
    assert abs(apart.mean() - 1.05) < 0.03
    assert 0.7 <= apart.min() < 0.71
    assert 1.39 < apart.max() <= 1.4
    std = [patch[2]["parameters"]["image"]["std"] for patch in steps if patch[2]["parameters"] is not None]
    assert 0 <= min(std) < 0.005
    assert 0.095 < max(std) <= 0.1
    blurred = by_channel(3, "std")
    assert abs(np.mean([sigma is not None for patch in blurred for sigma in patch]) - 0.5) < 0.06
    sigmas = np.array([sigma for patch in blurred for sigma in patch if sigma is not None])
    assert sigmas.shape[1] == 3
    assert 0.5 <= sigmas.min() < 0.51
    assert 0.99 < sigmas.max() <= 1
    assert (sigmas[:, 0] != sigmas[:, 1]).all()
    for place, name, low, high in ((4, "factor", 0.75, 1.25), (5, "factor", 0.75, 1.25), (7, "gamma", 0.7, 1.5), (8, "gamma", 0.7, 1.5)):
        numbers = np.array(by_channel(place, name))
        assert (numbers[:, 0] != numbers[:, 1]).all()
        assert low <= numbers.min() < low + 0.02
        assert high - 0.02 < numbers.max() <= high
        assert abs((numbers < 1).mean() - 0.5) < 0.08


def test_nnunet_keeps_to_the_planes_of_anisotropic_patches(make_entry):
    entry = make_entry(SHAPE)
    for size, thick in (((32, 160, 160), 0), ((160, 32, 160), 1), ((160, 160, 40), 2)):
        steps = drawn(augment.nnunet(size), entry, 400)
        planes = [axis for axis in range(3) if axis != thick]
        turns = np.array([patch[0]["parameters"]["degrees"] for patch in steps if patch[0]["parameters"]])
        assert (turns[:, planes] == 0).all()
        assert np.abs(turns[:, thick]).max() > 150
        scales = np.array([patch[1]["parameters"]["scales"] for patch in steps if patch[1]["parameters"]])
        assert (scales[:, thick] == 1).all()
        assert (scales[:, planes[0]] == scales[:, planes[1]]).all()
        zooms = [patch[6]["parameters"]["image"][0] for patch in steps if patch[6]["parameters"]]
        assert all(zoom["zoom"][thick] == 1 for zoom in zooms if zoom)
    isotropic = drawn(augment.nnunet((64, 128, 160)), entry, 50)
    assert any(0 not in patch[0]["parameters"]["degrees"] for patch in isotropic if patch[0]["parameters"])


def test_no_mirror_axes():
    assert "RandomFlip" not in [leaf.name for leaf in augment.nnunet(64, mirror_axes=()).leaves]


def test_a_recipe_from_plain_values(make_entry):
    config = yaml.safe_load(
        """
        transforms:
          - OneOf:
              transforms:
                - [RandomNoise, RandomFlip: {axes: 1, p: 1}]
                - RandomGamma: {gamma: {Balanced: {low: 0.7, high: 1.5}}}
              weights: [1, 2]
          - RandomBrightness: {factor: [2, 2]}
        fill: {image: -1}
        outside: reflect
        """
    )
    recipe = recipe_from(config)
    same = Recipe(
        [
            augment.OneOf(
                [[augment.RandomNoise(), augment.RandomFlip(1, p=1)], augment.RandomGamma(gamma=augment.Balanced(0.7, 1.5))], [1, 2]
            ),
            augment.RandomBrightness((2, 2)),
        ],
        fill={"image": -1},
        outside="reflect",
    )
    assert recipe.to_dict() == same.to_dict()
    entry = make_entry(SHAPE)
    made = [part.apply(entry, LOCATION, part.draw(seeding.generator(0), entry, LOCATION))["image"] for part in (recipe, same)]
    assert torch.equal(*made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- RandomFlip", "a mapping with `transforms`"),
        ("transforms: RandomFlip", "must be a list"),
        ("transforms: [RandomFlop]", "no transform 'RandomFlop'.*RandomFlip"),
        ("transforms: [{RandomFlip: {axis: 1}}]", "RandomFlip cannot be made of .*axis"),
        ("transforms: [{RandomNoise: {std: [1, 0]}}]", "wrong way round"),
        ("transforms: [{RandomNoise: 3}]", "arguments of RandomNoise"),
        ("transforms: []\nfil: 0", "Recipe cannot be made of"),
        ("transforms: [{RandomGamma: {gamma: {Balanced: [1, 2, 3, 4]}}}]", "Balanced"),
        ("transforms: [", "is no YAML"),
    ],
)
def test_bad_files_are_refused_with_their_name(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ArgumentError, match=f"(?s)recipe.yaml.*{message}"):
        augment.load_recipe(path, 32)


def test_an_unknown_name_is_refused():
    with pytest.raises(ArgumentError, match=r"no recipe 'nnUNet'.*nnunet"):
        augment.load_recipe("nnUNet", 32)
