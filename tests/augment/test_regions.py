import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from patchflow import seeding
from patchflow.augment import Recipe
from patchflow.augment.base import Context
from patchflow.augment.counts import draw_count, whole_range, whole_ranges
from patchflow.augment.regions import RandomCutout, RandomSwap
from patchflow.errors import ArgumentError, TransformError
from patchflow.geometry.location import PatchLocation, whole
from patchflow.kernels.noise import plain_normal

LOCATION = PatchLocation((2, -1, 3), (16, 12, 10))


def context_of(entry):
    return Context(entry.name, LOCATION, entry.shape, (1.0, 1.0, 1.0), entry.images, (9.5, 4.5, 7.5), patch=LOCATION, image="image")


def patch_of(entry, location=LOCATION):
    return torch.from_numpy(entry.read("image", location))


@pytest.mark.parametrize("fill", [7.5, "minimum", "mean"])
def test_cutout_blanks_its_boxes_and_nothing_else(make_entry, fill):
    entry = make_entry((20, 20, 20), channels=2)
    values = patch_of(entry)
    boxes = [[3, 0, 4, 2, 3, 4], [-5, -5, -5, 9, 9, 9], [17, 10, 12, 9, 9, 9], [40, 0, 0, 2, 2, 2]]
    got = RandomCutout(fill=fill).apply(values.clone(), {"boxes": boxes, "key": 0}, context_of(entry))
    known = entry.images["image"].statistics
    expected = values.clone()
    for part in (np.s_[:, 1:3, 1:4, 1:5], np.s_[:, 0:2, 0:5, 0:1], np.s_[:, 15:, 11:, 9:]):
        expected[part] = fill if fill == 7.5 else getattr(known, fill)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_cutout_of_noise_belongs_to_the_voxel(make_entry):
    entry = make_entry((20, 20, 20))
    known = entry.images["image"].statistics
    parameters = {"boxes": [[3, 0, 4, 5, 6, 7]], "key": 99}
    got = RandomCutout(fill="noise").apply(patch_of(entry), parameters, context_of(entry))
    expected = known.mean + known.std * plain_normal((1, 5, 6, 7), (3, 0, 4), 99)
    torch.testing.assert_close(got[:, 1:6, 1:7, 1:8], expected, rtol=0, atol=1e-4)


def test_boxes_lie_in_the_patch_everywhere_in_it(make_entry):
    rng, context = seeding.generator(0), context_of(make_entry((20, 20, 20)))
    drawn = [RandomCutout((2, 4), (1, 3)).draw(rng, context) for _ in range(400)]
    assert json.loads(json.dumps(drawn)) == drawn
    assert {len(draw["boxes"]) for draw in drawn} == {1, 2, 3}
    boxes = np.array([box for draw in drawn for box in draw["boxes"]])
    start, size = boxes[:, :3], boxes[:, 3:]
    assert set(size.ravel().tolist()) == {2, 3, 4}
    np.testing.assert_array_equal(start.min(axis=0), LOCATION.start)
    np.testing.assert_array_equal((start + size).max(axis=0), LOCATION.stop)


def test_a_box_larger_than_the_patch_is_an_error(make_entry):
    with pytest.raises(TransformError, match=r"box of \(11, 11, 11\) voxels is larger than the patch of \(16, 12, 10\)"):
        RandomCutout(11).draw(seeding.generator(0), context_of(make_entry((20, 20, 20))))


def test_swap_of_one_pair_by_hand(make_entry):
    entry = make_entry((20, 20, 20), channels=2)
    values = patch_of(entry)
    got = RandomSwap((2, 3, 4)).apply(values.clone(), {"pairs": [[3, 0, 4, 10, 5, 9]]}, context_of(entry))
    expected = values.clone()
    one, two = np.s_[:, 1:3, 1:4, 1:5], np.s_[:, 8:10, 6:9, 6:10]
    expected[one], expected[two] = values[two], values[one]
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_voxels_at_hand_are_not_asked_for_again(make_entry):
    context, swap = context_of(make_entry((20, 20, 20))), RandomSwap(4)
    small = replace(context, location=PatchLocation((2, 0, 4), (6, 6, 6)))
    assert swap.windows({"pairs": [[2, 0, 4, 6, 4, 4]]}, context) == []
    assert swap.windows({"pairs": [[20, 0, 4, 30, 4, 4]]}, small) == []
    assert swap.windows({"pairs": [[2, 0, 4, 16, 4, 8]]}, small) == [PatchLocation((16, 4, 8), (4, 4, 4))]
    # voxels 4 and 5 along J of the second box come from the first one, which is at hand; the first one needs all of the second
    assert swap.windows({"pairs": [[4, 0, 4, 4, 4, 4]]}, small) == [PatchLocation((4, 4, 4), (4, 4, 4))]


def test_swaps_do_not_overlap_and_lie_in_the_patch(make_entry):
    rng, context = seeding.generator(0), context_of(make_entry((20, 20, 20)))
    origins = set()
    for _ in range(200):
        drawn = RandomSwap((3, 4, 5), 14).draw(rng, context)
        assert json.loads(json.dumps(drawn)) == drawn
        starts = np.array(drawn["pairs"]).reshape(-1, 3)
        assert len(starts) == 28
        assert (starts >= LOCATION.start).all()
        assert (starts + np.array((3, 4, 5)) <= LOCATION.stop).all()
        cells = (starts - starts.min(axis=0)) / (3, 4, 5)
        assert (cells == cells.round()).all()
        assert len(np.unique(starts, axis=0)) == 28
        origins.add(int(starts[0, 0] - LOCATION.start[0]) % 3)
    assert origins == {0, 1}  # 16 voxels hold 5 boxes of 3 and one voxel to spare


def test_a_patch_that_holds_too_few_boxes_is_an_error(make_entry):
    with pytest.raises(TransformError, match=r"holds 30 boxes of \(3, 4, 5\) side by side, too few for 16 swaps.* at most 15"):
        RandomSwap((3, 4, 5), 16).draw(seeding.generator(0), context_of(make_entry((20, 20, 20))))


def test_swapping_a_whole_volume_keeps_its_values(make_entry):
    entry = make_entry((20, 20, 20))
    recipe, place = Recipe([RandomSwap(4, 40)]), whole((20, 20, 20))
    got = recipe.apply(entry, place, recipe.draw(seeding.generator(0), entry, place))["image"]
    values = patch_of(entry, place)
    assert got.ravel().sort().values.equal(values.ravel().sort().values)
    assert 0.4 < float((got != values).float().mean()) <= 0.64  # 80 boxes of 64 voxels


def test_counts():
    assert whole_range(3, "count") == (3, 3)
    assert whole_range(np.array([2, 5]), "count") == (2, 5)
    assert whole_ranges((4, 8), "size") == ((4, 8),) * 3
    assert whole_ranges((1, 2, 3), "size") == ((1, 1), (2, 2), (3, 3))
    assert whole_ranges((1, 2, 3, 4, 5, 6), "size") == ((1, 2), (3, 4), (5, 6))
    assert {draw_count((2, 4), seeding.generator(seed)) for seed in range(50)} == {2, 3, 4}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCutout(0), "size must be at least 1"),
        (lambda: RandomCutout((8, 4)), "wrong way round"),
        (lambda: RandomCutout(4.0), "whole numbers"),
        (lambda: RandomCutout((1, 2, 3, 4)), "three numbers or six"),
        (lambda: RandomCutout(True), "whole numbers"),
        (lambda: RandomCutout(count=0), "count must be at least 1"),
        (lambda: RandomCutout(count=(3, 1)), "wrong way round"),
        (lambda: RandomCutout(fill="maximum"), "fill"),
        (lambda: RandomCutout(fill=float("nan")), "fill must be made of finite numbers"),
        (lambda: RandomCutout(p=-1), "probability"),
        (lambda: RandomSwap(0), "patch_size"),
        (lambda: RandomSwap(2.5), "patch_size"),
        (lambda: RandomSwap(4, -1), "num_iterations must be at least 0"),
        (lambda: RandomSwap(4, 1.5), "whole numbers"),
    ],
)
def test_bad_arguments_are_refused_when_the_transform_is_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
