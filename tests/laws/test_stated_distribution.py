"""Law 5: every sampler draws from exactly the distribution that its docstring states.

Chi-square tests on cached entries, with fixed seeds: a correct sampler passes a given test with p above 1e-3, and the seeds are such that
all of these do; a wrong one fails by many orders of magnitude. Voxels are found again from locations of one voxel.
"""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

import patchflow as pf
from patchflow.geometry.location import centred_on
from patchflow.seeding import generator

SHAPE = (5, 6, 7)
LIMIT = 2**24


def chi_square(drawn: Counter, expected: dict) -> float:
    """The p value of drawn counts for expected shares; anything drawn that has no share fails at once."""
    assert set(drawn) <= set(expected), f"drawn, but of probability 0: {set(drawn) - set(expected)}"
    keys = sorted(expected, key=repr)
    total = sum(drawn.values())
    shares = np.array([expected[key] for key in keys])
    return float(stats.chisquare([drawn[key] for key in keys], shares / shares.sum() * total).pvalue)


def draw(sampler, entry, draws, seed=0):
    rng = generator(seed)
    return [sampler.draw(entry, rng) for _ in range(draws)]


def make_label():
    """Classes 0 to 4: 4 is one voxel, in the corner; 3 lies in the border alone."""
    label = generator(1).integers(0, 3, SHAPE).astype(np.uint8)
    label[:, 0, :] = 3
    label[4, 5, 6] = 4
    return label


def make_weights():
    weights = generator(2).random(SHAPE).astype(np.float32)
    weights[1] = 0
    weights[2, 3] = 0
    weights[0, 0, 0] = 5
    return weights


@pytest.fixture(scope="module", params=["contiguous", "compressed"])
def entry(request, tmp_path_factory):
    two = np.stack([make_label(), np.flip(make_label(), (0, 1, 2))])
    two[0][two[0] == 2] = 0  # channel 0 lacks class 2
    subject = pf.Subject("s1", weights=pf.ScalarImage(make_weights()), label=pf.LabelMap(make_label()), two=pf.LabelMap(two))
    empty = pf.Subject("s2", weights=pf.ScalarImage(np.zeros(SHAPE, np.float32)), label=pf.LabelMap(np.zeros(SHAPE, np.uint8)))
    folder = tmp_path_factory.mktemp(request.param)
    return pf.build_cache([subject, empty], folder, layout=request.param, progress=False)[0]


def test_uniform_starts(entry):
    drawn = Counter(location.start for location in draw(pf.UniformSampler((2, 5, 3)), entry, 8000))
    expected = {(i, j, k): 1 for i in range(4) for j in range(2) for k in range(5)}
    assert chi_square(drawn, expected) > 1e-3


def test_uniform_starts_when_the_patch_is_as_large_as_the_volume_or_larger(entry):
    drawn = Counter(location.start for location in draw(pf.UniformSampler((5, 11, 3)), entry, 2000))
    assert chi_square(drawn, {(0, -2, k): 1 for k in range(5)}) > 1e-3


def test_weighted_voxels_border_included(entry):
    weights = make_weights().astype(np.float64)
    drawn = Counter(location.start for location in draw(pf.WeightedSampler(1, weights="weights"), entry, 9000))
    assert chi_square(drawn, {index: weight for index, weight in np.ndenumerate(weights) if weight > 0}) > 1e-3


@pytest.mark.parametrize("size", [(2, 3, 4), (5, 2, 1), (9, 3, 7), (6, 7, 8)])
def test_weighted_locations(entry, size):
    weights = make_weights().astype(np.float64)
    expected = Counter()
    for voxel, weight in np.ndenumerate(weights):
        if weight > 0:
            expected[centred_on(voxel, size, SHAPE).start] += weight
    drawn = Counter(location.start for location in draw(pf.WeightedSampler(size, weights="weights"), entry, 4000))
    if len(expected) == 1:
        assert set(drawn) == set(expected)
    else:
        assert chi_square(drawn, expected) > 1e-3


@pytest.mark.parametrize(
    "probabilities",
    [None, {0: 1, 1: 1, 2: 1, 3: 1, 4: 1}, {0: 1, 3: 2, 4: 5}, {1: 0.25, 2: 0, 4: 0.25}, {3: 7}, {0: 1, 1: 2, 250: 97, -3: 1}],
)
def test_label_voxels_border_and_classes_of_one_voxel_included(entry, probabilities):
    label = make_label()
    weights = dict.fromkeys(range(5), 1) if probabilities is None else {v: w for v, w in probabilities.items() if v in range(5) and w}
    voxels = Counter(label.ravel().tolist())
    expected = {index: weights[v] / voxels[v] for index, v in np.ndenumerate(label) if v in weights}
    locations = draw(pf.LabelSampler(1, probabilities=probabilities), entry, 9000)
    assert chi_square(Counter(location.start for location in locations), expected) > 1e-3
    assert all(location.target == label[location.start] for location in locations)


@pytest.mark.parametrize("size", [(2, 3, 4), (1, 6, 2), (9, 3, 7)])
def test_label_locations(entry, size):
    label, weights = make_label(), {0: 1, 3: 2, 4: 1}
    voxels = Counter(label.ravel().tolist())
    expected = Counter()
    for index, value in np.ndenumerate(label):
        if value in weights:
            expected[centred_on(index, size, SHAPE).start] += weights[value] / voxels[value]
    locations = draw(pf.LabelSampler(size, probabilities=weights), entry, 4000)
    assert chi_square(Counter(location.start for location in locations), expected) > 1e-3
    for location in locations:
        assert location.target in label[location.overlap(SHAPE).volume]


@pytest.mark.parametrize("channel", [None, 0, 1])
def test_label_channels_are_pooled_or_one_is_chosen(entry, channel):
    two = np.stack([entry.read("two", pf.PatchLocation((0, 0, 0), SHAPE))[c] for c in ([0, 1] if channel is None else [channel])])
    weights = {1: 1, 2: 1, 4: 2}
    weights = {value: weight for value, weight in weights.items() if (two == value).any()}
    assert (2 in weights) == (channel != 0)
    expected = Counter()
    for (_, *voxel), value in np.ndenumerate(two):
        if value in weights:
            expected[tuple(voxel)] += weights[value] / (two == value).sum()
    drawn = Counter(location.start for location in draw(pf.LabelSampler(1, "two", {1: 1, 2: 1, 4: 2}, channel), entry, 8000))
    assert chi_square(drawn, expected) > 1e-3


def test_mixed_shares_and_locations(entry):
    label = make_label()
    sampler = pf.MixedSampler([(2, pf.UniformSampler(1)), (1, pf.LabelSampler(1, probabilities={3: 1})), (0, pf.UniformSampler(1))])
    expected = {index: 2 / 3 / label.size + (value == 3) / 3 / (label == 3).sum() for index, value in np.ndenumerate(label)}
    locations = draw(sampler, entry, 9000)
    assert chi_square(Counter(location.start for location in locations), expected) > 1e-3
    assert chi_square(Counter(location.target for location in locations), {None: 2 / 3, 3: 1 / 3}) > 1e-3


def test_the_fallback_is_uniform(entry):
    empty = pf.open_cache(entry.path.parents[1])["s2"]
    expected = {(i, j, k): 1 for i in range(4) for j in range(2) for k in range(5)}
    for sampler in (
        pf.WeightedSampler((2, 5, 3), "weights", fallback="uniform"),
        pf.LabelSampler((2, 5, 3), probabilities={1: 1}, fallback="uniform"),
    ):
        assert chi_square(Counter(location.start for location in draw(sampler, empty, 6000)), expected) > 1e-3


def test_nothing_to_aim_at_is_an_error_that_names_the_subject(entry):
    empty = pf.open_cache(entry.path.parents[1])["s2"]
    for sampler in (pf.WeightedSampler(2, "weights"), pf.LabelSampler(2, probabilities={1: 1})):
        for call in (sampler.check, lambda e, s=sampler: s.draw(e, generator(0))):
            with pytest.raises(pf.SamplerError, match=r'subject "s2".*fallback="uniform"'):
                call(empty)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """One subject of 17.3 million voxels, more than float32 can count."""
    shape = (260, 260, 256)
    label = np.zeros(shape, np.uint8)
    label[-1] = 1  # all beyond 2^24
    label[:, -1, -1] = 2
    subject = pf.Subject("big", label=pf.LabelMap(label), weights=pf.ScalarImage(np.ones(shape, np.uint8)))
    return pf.build_cache([subject], tmp_path_factory.mktemp("large"), layout="contiguous", progress=False)[0]


def flat(locations, shape):
    return np.array([np.ravel_multi_index(location.start, shape) for location in locations])


@pytest.mark.parametrize(
    "sampler", [pf.UniformSampler(1), pf.WeightedSampler(1, "weights"), pf.LabelSampler(1, probabilities={0: 1})], ids=repr
)
def test_volumes_of_more_than_2_to_the_24_voxels(large, sampler):
    voxels = np.prod(large.shape)
    assert voxels > LIMIT
    drawn = flat(draw(sampler, large, 12000), large.shape)
    label = large.read("label", pf.PatchLocation((0, 0, 0), large.shape))[0].ravel()
    possible = label == 0 if isinstance(sampler, pf.LabelSampler) else np.ones(voxels, bool)
    slabs = np.linspace(0, voxels, 41).astype(int)
    counts = np.histogram(drawn, slabs)[0]
    expected = np.add.reduceat(possible, slabs[:-1], dtype=np.int64)
    assert stats.chisquare(counts, expected / expected.sum() * len(drawn)).pvalue > 1e-3
    beyond = drawn[drawn >= LIMIT]
    assert len(beyond) > 100
    assert stats.binomtest(int((beyond % 2).sum()), len(beyond)).pvalue > 1e-3  # float32 has even numbers alone beyond 2^24


def test_a_class_that_lies_beyond_2_to_the_24_voxels(large):
    drawn = [location.start for location in draw(pf.LabelSampler(1, probabilities={1: 1}), large, 8000)]
    assert {i for i, _, _ in drawn} == {259}
    for axis in (1, 2):
        counts = np.histogram([start[axis] for start in drawn], bins=20, range=(0, 260 if axis == 1 else 256))[0]
        assert (
            stats.chisquare(
                counts, np.diff(np.ceil(np.linspace(0, 260 if axis == 1 else 256, 21))) * 8000 / (260 if axis == 1 else 256)
            ).pvalue
            > 1e-3
        )
