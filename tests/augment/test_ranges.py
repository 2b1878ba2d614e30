import numpy as np
import pytest

from patchflow import seeding
from patchflow.augment.ranges import axis_ranges, one_range, probability, uniform
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
    np.testing.assert_allclose(axis_ranges(value, "scales", around=1.0, above=0.0), expected)


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
    assert one_range(2, "std", one_sided=True, least=0.0) == (0, 2)
    assert one_range(0.25, "factor", around=1.0) == (0.75, 1.25)
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
        axis_ranges(value, "scales", around=1.0, above=0.0)


@pytest.mark.parametrize(
    ("value", "message"), [((2, 1), "wrong way round"), (-1, "negative"), ((-1, 1), "at least 0"), ((1, 2, 3), "pair")]
)
def test_bad_ranges(value, message):
    with pytest.raises(ArgumentError, match=message):
        one_range(value, "std", least=0.0, one_sided=True)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), "0.5", None, True, (0.5, 0.5)])
def test_bad_probabilities(value):
    with pytest.raises(ArgumentError, match="p "):
        probability(value, "p")


def test_uniform_spans_the_range():
    rng = seeding.generator(0)
    values = [uniform(rng, (2.0, 4.0)) for _ in range(2000)]
    assert 2 <= min(values) < 2.01
    assert 3.99 < max(values) < 4
    assert uniform(rng, (7.0, 7.0)) == 7
