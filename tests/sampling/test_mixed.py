from collections import Counter

import numpy as np
import pytest

from patchflow.errors import ArgumentError, SamplerError
from patchflow.sampling import LabelSampler, MixedSampler, UniformSampler
from patchflow.seeding import generator


def entry_with_one_voxel(entry_of):
    label = np.zeros((1, 4, 5, 6), np.uint8)
    label[0, 3, 4, 5] = 1
    return entry_of(label=label)


def test_parts_are_drawn_in_their_shares(entry_of):
    entry, rng = entry_with_one_voxel(entry_of), generator(0)
    sampler = MixedSampler([(2, UniformSampler(2)), (1, LabelSampler(2, probabilities={1: 1})), (0, LabelSampler(2, probabilities={0: 1}))])
    drawn = Counter(sampler.draw(entry, rng).target for _ in range(1500))
    assert set(drawn) == {None, 1}
    assert abs(drawn[1] / 1500 - 1 / 3) < 0.05


def test_a_mixture_of_mixtures_multiplies_the_shares(entry_of):
    entry, rng = entry_with_one_voxel(entry_of), generator(0)
    inner = MixedSampler([(1, UniformSampler(2)), (1, LabelSampler(2, probabilities={1: 1}))])
    sampler = MixedSampler([(1, inner), (1, UniformSampler(2))])
    drawn = Counter(sampler.draw(entry, rng).target for _ in range(1500))
    assert abs(drawn[1] / 1500 - 0.25) < 0.05


def test_weights_are_normalised(entry_of):
    assert [weight for weight, _ in MixedSampler([(1, UniformSampler(2)), (3, UniformSampler(2))]).parts] == [0.25, 0.75]


def test_every_part_that_can_be_drawn_is_checked(entry_of):
    entry = entry_of(label=np.zeros((1, 4, 5, 6), np.uint8))
    with pytest.raises(SamplerError, match='subject "s1" has none of the classes'):
        MixedSampler([(0.9, UniformSampler(2)), (0.1, LabelSampler(2, probabilities={1: 1}))]).check(entry)
    MixedSampler([(1, UniformSampler(2)), (0, LabelSampler(2, probabilities={1: 1}))]).check(entry)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "add up to a finite number above 0"),
        ([(0, UniformSampler(2))], "add up to a finite number above 0"),
        ([(1, UniformSampler(2)), (-1, UniformSampler(2))], "weight of part 1 must be a finite number of at least 0"),
        ([(1, UniformSampler(2)), (1, UniformSampler((2, 2, 3)))], r"one patch size, not \[\(2, 2, 2\), \(2, 2, 3\)\]"),
        (UniformSampler(2), "must be a list of pairs"),
        ([UniformSampler(2)], "pairs of a weight and a sampler"),
        ([(UniformSampler(2), 1)], "pairs of a weight and a sampler"),
    ],
)
def test_parts_that_cannot_be_mixed_are_refused(parts, message):
    with pytest.raises(ArgumentError, match=message):
        MixedSampler(parts)
