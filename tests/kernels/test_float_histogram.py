import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from patchflow.kernels.float_histogram import BINS, add_floats, ascending, plain_add_floats


@settings(max_examples=60, deadline=None, derandomize=True)
@given(arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)))
def test_the_kernel_does_what_its_plain_twin_does(values):
    fast, plain = np.zeros((2, BINS), np.int64), np.zeros((2, BINS), np.int64)
    add_floats(values, fast)
    add_floats(values, fast)
    plain_add_floats(values, plain)
    np.testing.assert_array_equal(fast.sum(0), 2 * plain.sum(0))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32)))
def test_every_finite_value_lies_in_one_bin_and_bins_ascend(values):
    counts = np.zeros((2, BINS), np.int64)
    add_floats(values, counts)
    lower, upper, found = ascending(counts.sum(0))
    finite = np.sort(values[np.isfinite(values)].astype(np.float64))
    assert found.sum() == len(finite)
    assert (np.diff(lower) >= 0).all()
    assert (upper[:-1] <= lower[1:]).all()
    for value, number in zip(finite, np.repeat(np.arange(len(found)), found), strict=True):
        assert lower[number] <= value <= upper[number]


def test_bins_are_as_narrow_as_said():
    counts = np.zeros((2, BINS), np.int64)
    add_floats(np.array([1000.0, -1000.0, np.nan, np.inf, 0.0], np.float32), counts)
    lower, upper, found = ascending(counts.sum(0))
    assert found.tolist() == [1, 1, 1]  # neither NaN nor infinity
    assert (upper[0], lower[2]) == (-1000.0, 1000.0)
    assert upper[2] - lower[2] == 512 / 128
