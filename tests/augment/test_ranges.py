import numpy as np
import pytest

from patchflow import seeding
from patchflow.augment.ranges import NOT_NEGATIVE, Balanced, Limits, Reciprocal, Uniform, axis_ranges, one_range, probability
from patchflow.errors import ArgumentError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, ((0.9, 1.1),) * 3),
        ((0.8, 1.5), ((0.8, 1.5),) * 3),
        ((0.1, 0, 0.2), ((0.9, 1.1), (1, 1), (0.8, 1.2))),
        ([0.5, 1, 1, 2, 0.9, 0.9], ((0.5, 1), (1, 2), (0.9, 0.9))),
    ],
)
def test_scales_are_read_as_torchio_reads_them(value, expected):
    np.testing.assert_allclose(axis_ranges(value, "scales", Limits(around=1.0, above=0.0)), expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (10, ((-10, 10),) * 3),
        ((5, 15), ((5, 15),) * 3),
        ((1, 2, 3), ((-1, 1), (-2, 2), (-3, 3))),
        ((0, 1, -2, 2, 3, 4), ((0, 1), (-2, 2), (3, 4))),
    ],
)
def test_degrees_are_read_as_torchio_reads_them(value, expected):
    assert axis_ranges(value, "degrees") == expected


def test_single_numbers_of_a_range():
    assert one_range(2, "mean") == (-2, 2)
    assert one_range(2, "std", NOT_NEGATIVE) == (0, 2)
    assert one_range(0.25, "factor", Limits(around=1.0)) == (0.75, 1.25)
    assert one_range((-3, -1), "shift") == (-3, -1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((1.1, 0.9), r"scales has a range the wrong way round: \(1.1, 0.9\)"),
        (-0.1, "must not be negative"),
        (1.0, "above 0, but 1.0 reaches 0"),
        ((0.0, 1.0), "above 0"),
        ((1, 2, 3, 4), "a number, a pair, three numbers or six"),
        ((), "a number, a pair, three numbers or six"),
        (float("nan"), "finite"),
        (True, "finite"),
        ("0.1", "finite"),
        (None, "finite"),
        ((0.9, None), "finite"),
    ],
)
def test_bad_axis_ranges(value, message):
    with pytest.raises(ArgumentError, match=message):
        axis_ranges(value, "scales", Limits(around=1.0, above=0.0))


@pytest.mark.parametrize(
    ("value", "message"), [((2, 1), "wrong way round"), (-1, "negative"), ((-1, 1), "at least 0"), ((1, 2, 3), "pair")]
)
def test_bad_ranges(value, message):
    with pytest.raises(ArgumentError, match=message):
        one_range(value, "std", NOT_NEGATIVE)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), "0.5", None, True, (0.5, 0.5)])
def test_bad_probabilities(value):
    with pytest.raises(ArgumentError, match="p "):
        probability(value, "p")


def test_uniform_spans_the_range():
    rng = seeding.generator(0)
    values = [Uniform(2.0, 4.0).draw(rng) for _ in range(2000)]
    assert 2 <= min(values) < 2.01
    assert 3.99 < max(values) < 4
    assert Uniform(7.0, 7.0).draw(rng) == 7


@pytest.mark.parametrize(
    ("distribution", "cumulative"),
    [
        (Balanced(0.7, 1.5), lambda x: np.where(x < 1, 0.5 * (x - 0.7) / 0.3, 0.5 + 0.5 * (x - 1) / 0.5)),
        (Balanced(1, 3), lambda x: np.where(x <= 1, 0.5, 0.5 + 0.5 * (x - 1) / 2)),
        (Reciprocal(0.5, 2), lambda x: 1 - (1 / x - 0.5) / 1.5),
    ],
)
def test_distributions_are_what_they_say(distribution, cumulative):
    """Kolmogorov-Smirnov: at 4,000 draws the bound is passed once in a million runs."""
    rng = seeding.generator(1)
    values = np.sort([distribution.draw(rng) for _ in range(4000)])
    share = np.arange(1, 4001) / 4000
    assert np.abs(cumulative(values) - share).max() < 2.7 / np.sqrt(4000) or distribution == (1, 3, 1)
    assert abs((values <= 1).mean() - cumulative(np.array(1.0))) < 0.04


def test_distributions_stand_where_ranges_do():
    assert one_range(Balanced(0.7, 1.5), "gamma") == Balanced(0.7, 1.5)
    assert axis_ranges(Reciprocal(0.5, 2), "scales") == (Reciprocal(0.5, 2),) * 3
    assert axis_ranges([Uniform(1, 1), Reciprocal(0.5, 2), Balanced(0, 2)], "scales") == (Uniform(1, 1), Reciprocal(0.5, 2), Balanced(0, 2))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Balanced(1.5, 0.7), "wrong way round"),
        (Balanced(1.2, 1.5), "middle"),
        (Balanced(-1, 2), "at least 0"),
        (Reciprocal(0, 2), "above 0"),
        (Balanced(0.5, float("inf")), "finite"),
        ((0.5, 3), "at most 2"),
    ],
)
def test_bad_distributions(value, message):
    with pytest.raises(ArgumentError, match=message):
        one_range(value, "factor", Limits(least=0, most=2))
