from collections import Counter

import numpy as np
import pytest

from patchflow.errors import ArgumentError, SamplerError, UnknownNameError
from patchflow.sampling import WeightedSampler
from patchflow.seeding import generator


def weights(*voxels, shape=(4, 5, 6)):
    array = np.zeros((1, *shape), np.float32)
    for i, j, k, weight in voxels:
        array[0, i, j, k] = weight
    return array


def test_only_voxels_with_weight_are_drawn_corners_included(entry_of):
    entry = entry_of(w=weights((0, 0, 0, 1), (3, 4, 5, 3)))
    sampler, rng = WeightedSampler(1, weights="w"), generator(0)
    starts = Counter(sampler.draw(entry, rng).start for _ in range(2000))
    assert set(starts) == {(0, 0, 0), (3, 4, 5)}
    assert abs(starts[(3, 4, 5)] / 2000 - 0.75) < 0.05


def test_the_voxel_stands_in_the_middle_of_the_patch_unless_the_border_is_near(entry_of):
    rng = generator(0)
    assert WeightedSampler((2, 3, 2), "w").draw(entry_of(w=weights((2, 2, 3, 1))), rng).start == (1, 1, 2)
    assert WeightedSampler((2, 3, 2), "w").draw(entry_of(w=weights((0, 4, 0, 1))), rng).start == (0, 2, 0)
    assert WeightedSampler((8, 3, 6), "w").draw(entry_of(w=weights((0, 4, 0, 1))), rng).start == (-2, 2, 0)


def test_weights_that_are_all_zero_are_an_error_that_names_the_subject_and_the_mend(entry_of):
    entry = entry_of(w=weights())
    for call in (WeightedSampler(2, "w").check, lambda e: WeightedSampler(2, "w").draw(e, generator(0))):
        with pytest.raises(SamplerError, match=r'"w" of subject "s1".*all zero.*fallback="uniform"'):
            call(entry)


def test_the_fallback_draws_uniformly(entry_of):
    sampler, rng, entry = WeightedSampler((4, 4, 6), "w", fallback="uniform"), generator(0), entry_of(w=weights())
    sampler.check(entry)
    assert {sampler.draw(entry, rng).start for _ in range(40)} == {(0, 0, 0), (0, 1, 0)}


def test_images_that_cannot_be_weights_are_refused_before_and_at_the_draw(entry_of):
    entry = entry_of(label=np.zeros((1, 4, 5, 6), np.uint8), two=np.ones((2, 4, 5, 6), np.float32), low=weights((1, 1, 1, -2)))
    for name, error, message in [
        ("label", SamplerError, r'"label" of subject "s1" cannot be weights: it is a LabelMap.*LabelSampler'),
        ("two", SamplerError, r'"two" of subject "s1" cannot be weights: it has 2 channels'),
        ("low", SamplerError, r'"low" of subject "s1" cannot be weights: its least value is -2'),
        ("none", UnknownNameError, r'weights="none".*subject "s1" has no image.*"label", "two", "low"'),
    ]:
        with pytest.raises(error, match=message):
            WeightedSampler(2, name).check(entry)
        with pytest.raises(error, match=message):
            WeightedSampler(2, name).draw(entry, generator(0))


@pytest.mark.parametrize(
    ("settings", "message"), [({"weights": ""}, "name of an image"), ({"weights": "w", "fallback": "skip"}, "fallback must be")]
)
def test_arguments_that_cannot_be_used_are_refused(settings, message):
    with pytest.raises(ArgumentError, match=message):
        WeightedSampler(2, **settings)
