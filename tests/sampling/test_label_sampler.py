import math
from collections import Counter

import numpy as np
import pytest

from patchflow.errors import ArgumentError, SamplerError, UnknownNameError
from patchflow.sampling import LabelSampler
from patchflow.seeding import generator


def labels(*voxels, channels=1, shape=(4, 5, 6)):
    array = np.zeros((channels, *shape), np.int16)
    for c, i, j, k, value in voxels:
        array[c, i, j, k] = value
    return array


def targets(sampler, entry, draws=1200):
    rng = generator(0)
    return Counter(sampler.draw(entry, rng).target for _ in range(draws))


def test_classes_are_weighed_not_voxels(entry_of):
    entry = entry_of(label=labels((0, 3, 4, 5, 7)))  # 119 voxels of background, one of class 7
    drawn = targets(LabelSampler(1, probabilities={0: 1, 7: 3}), entry)
    assert abs(drawn[7] / 1200 - 0.75) < 0.05
    assert set(drawn) == {0, 7}


def test_the_patch_holds_the_voxel_that_was_aimed_at(entry_of):
    entry, rng = entry_of(label=labels((0, 0, 2, 5, 3), (0, 2, 2, 2, 3))), generator(1)
    sampler = LabelSampler((2, 3, 4), probabilities={3: 1})
    assert {(sampler.draw(entry, rng).start) for _ in range(60)} == {(0, 1, 2), (1, 1, 0)}


def test_without_probabilities_all_classes_that_the_subject_has_weigh_the_same_background_too(entry_of):
    drawn = targets(LabelSampler(2), entry_of(label=labels((0, 0, 0, 0, 1), (0, 1, 1, 1, 5))))
    assert set(drawn) == {0, 1, 5}
    assert all(abs(count / 1200 - 1 / 3) < 0.05 for count in drawn.values())


def test_a_class_that_the_subject_lacks_is_left_out_and_the_rest_renormalised(entry_of):
    drawn = targets(LabelSampler(2, probabilities={1: 1, 2: 3, 9: 96}), entry_of(label=labels((0, 0, 0, 0, 1), (0, 1, 1, 1, 2))))
    assert set(drawn) == {1, 2}
    assert abs(drawn[2] / 1200 - 0.75) < 0.05


def test_a_class_of_weight_zero_is_never_drawn(entry_of):
    drawn = targets(LabelSampler(2, probabilities={0: 0, 1: 1, 2: 0}), entry_of(label=labels((0, 0, 0, 0, 1), (0, 1, 1, 1, 2))), draws=300)
    assert set(drawn) == {1}


def test_channels_are_pooled_or_one_is_chosen(entry_of):
    entry = entry_of(label=labels((0, 0, 0, 0, 1), (1, 3, 4, 5, 1), (1, 3, 4, 4, 1), channels=2))
    rng = generator(0)
    pooled = Counter(LabelSampler(1, probabilities={1: 1}).draw(entry, rng).start for _ in range(1500))
    assert set(pooled) == {(0, 0, 0), (3, 4, 5), (3, 4, 4)}
    assert all(abs(count / 1500 - 1 / 3) < 0.05 for count in pooled.values())
    assert {LabelSampler(1, probabilities={1: 1}, channel=0).draw(entry, rng).start for _ in range(20)} == {(0, 0, 0)}
    assert {LabelSampler(1, probabilities={1: 1}, channel=1).draw(entry, rng).start for _ in range(40)} == {(3, 4, 5), (3, 4, 4)}


def test_a_class_that_only_another_channel_holds_counts_as_absent(entry_of):
    entry = entry_of(label=labels((1, 3, 4, 5, 1), channels=2))
    for call in (
        LabelSampler(1, probabilities={1: 1}, channel=0).check,
        lambda e: LabelSampler(1, probabilities={1: 1}, channel=0).draw(e, generator(0)),
    ):
        with pytest.raises(SamplerError, match=r'"label" of subject "s1" has none of the classes \[1\] in channel 0'):
            call(entry)
    LabelSampler(1, probabilities={1: 1}).check(entry)
    LabelSampler(1, probabilities={1: 1}, channel=1).check(entry)


def test_a_subject_with_none_of_the_classes_is_an_error_that_names_it_and_the_mend(entry_of):
    entry, sampler = entry_of(label=labels((0, 1, 1, 1, 4))), LabelSampler(2, probabilities={1: 1, 2: 2, 4: 0})
    for call in (sampler.check, lambda e: sampler.draw(e, generator(0))):
        with pytest.raises(SamplerError, match=r'subject "s1" has none of the classes \[1, 2\]: it has \[0, 4\].*fallback="uniform"'):
            call(entry)


def test_the_fallback_draws_uniformly_and_aims_at_nothing(entry_of):
    sampler, entry, rng = LabelSampler((4, 4, 6), probabilities={1: 1}, fallback="uniform"), entry_of(label=labels()), generator(0)
    sampler.check(entry)
    drawn = [sampler.draw(entry, rng) for _ in range(40)]
    assert {location.start for location in drawn} == {(0, 0, 0), (0, 1, 0)}
    assert {location.target for location in drawn} == {None}


def test_images_without_classes_are_refused_before_and_at_the_draw(entry_of):
    entry = entry_of(image=np.zeros((1, 4, 5, 6), np.float32), label=labels(channels=2))
    for settings, error, message in [
        ({"label": "image"}, SamplerError, r'"image" of subject "s1".*not a LabelMap'),
        ({"label": "seg"}, UnknownNameError, r'label="seg".*subject "s1" has no image of that name, it has "image", "label"'),
        ({"channel": 2}, SamplerError, r'"label" of subject "s1" has no channel 2: its channels are 0 to 1'),
    ]:
        with pytest.raises(error, match=message):
            LabelSampler(2, **settings).check(entry)
        with pytest.raises(error, match=message):
            LabelSampler(2, **settings).draw(entry, generator(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probabilities": {0: 1, 1: -1}}, "weight of class 1 must be a finite number of at least 0"),
        ({"probabilities": {0: math.nan}}, "weight of class 0 must be a finite number"),
        ({"probabilities": {0: math.inf}}, "weight of class 0 must be a finite number"),
        ({"probabilities": {0: "1"}}, "weight of class 0 must be a number"),
        ({"probabilities": {0: True}}, "weight of class 0 must be a number"),
        ({"probabilities": {0: 0, 1: 0.0}}, "add up to a finite number above 0"),
        ({"probabilities": {0: 1e308, 1: 1e308}}, "add up to a finite number above 0"),
        ({"probabilities": {}}, "add up to a finite number above 0"),
        ({"probabilities": {1.0: 1}}, "1.0 is not an int"),
        ({"probabilities": {"1": 1}}, "'1' is not an int"),
        ({"probabilities": [1, 2]}, "must map classes to weights"),
        ({"channel": -1}, "channel must be None"),
        ({"channel": 0.0}, "channel must be None"),
        ({"label": 3}, "label must be the name of an image"),
        ({"fallback": True}, "fallback must be None"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(settings, message):
    with pytest.raises(ArgumentError, match=message):
        LabelSampler(2, **settings)
