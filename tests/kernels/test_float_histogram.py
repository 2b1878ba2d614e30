import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from patchflow.kernels import float_histogram as module
from patchflow.kernels.float_histogram import FloatTally, ascending, plain_tally
from patchflow.seeding import generator


def counted(values):
    found = FloatTally()
    found.add(values)
    return found.counts()


def same(found, plain, rtol=1e-12):
    for what in ("voxels", "low", "high", "at_low", "at_high", "nan", "infinite"):
        assert getattr(found, what) == getattr(plain, what)
    np.testing.assert_allclose((found.total, found.squares), (plain.total, plain.squares), rtol=rtol, atol=rtol * math.sqrt(plain.squares))
    np.testing.assert_array_equal(found.counts(), plain.counts())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)), st.integers(0, 40), st.integers(1, 9))
def test_the_kernel_does_what_its_plain_twin_does(values, cut, times):
    values = np.repeat(values, times)  # runs of equal values are counted together
    found, first, second = FloatTally(), FloatTally(), FloatTally()
    found.add(values[:cut])
    found.add(values[cut:])
    first.add(values[:cut])
    second.add(values[cut:])
    first.absorb(second)
    for one in (found, first):
        same(one, plain_tally(values))


def test_many_values_in_pieces_and_counters_that_are_emptied():
    values = np.round(generator(0).normal(10, 5, 3 * module._PIECE + 77), 1).astype(np.float32)
    values[1000:30000] = values.min()
    values[-5] = np.nan
    found = FloatTally()
    for start in range(0, values.size, 500_000):
        found.add(values[start : start + 500_000])
        found._pending = (1 << 32) - 1  # as if as many had come
    assert found.at_low > 29000
    same(found, plain_tally(values))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32)))
def test_every_finite_value_lies_in_one_bin_and_bins_ascend(values):
    lower, upper, found = ascending(counted(values))
    finite = np.sort(values[np.isfinite(values)].astype(np.float64))
    assert found.sum() == len(finite)
    assert (np.diff(lower) >= 0).all()
    assert (upper[:-1] <= lower[1:]).all()
    for value, number in zip(finite, np.repeat(np.arange(len(found)), found), strict=True):
        assert lower[number] <= value <= upper[number]


def test_bins_are_as_narrow_as_said():
    lower, upper, found = ascending(counted(np.array([1000.0, -1000.0, np.nan, np.inf, 0.0], np.float32)))
    assert found.tolist() == [1, 1, 1]  # neither NaN nor infinity
    assert (upper[0], lower[2]) == (-1000.0, 1000.0)
    assert upper[2] - lower[2] == 512 / 128
