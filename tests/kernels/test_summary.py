import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.kernels.summary import Moments, combine, moments, plain_moments, plain_row_sums, row_sums


def close(a, b):
    assert a.voxels == b.voxels
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 60), st.sampled_from([np.float32, np.float64]))
def test_moments_agree_with_plain_twin_and_combine(seed, n, m, dtype):
    values = np.random.default_rng(seed).normal(50, 3, n + m).astype(dtype)
    close(moments(values), plain_moments(values))
    close(combine(moments(values[:n]), moments(values[n:])), plain_moments(values))


def test_moments_by_hand():
    assert moments(np.float32([1, 3])) == Moments(2, 1.0, 3.0, 2.0, 2.0)


def test_moments_do_not_cancel():
    values = np.float64([1e9, 1e9 + 1, 1e9 + 2])
    assert moments(values).squares == pytest.approx(2.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 9)] * 3))
def test_row_sums_agree_with_plain_twin_exactly(seed, shape):
    values = (np.random.default_rng(seed).random(shape) * 1e3).astype(np.float32)
    assert row_sums(values).tobytes() == plain_row_sums(values).tobytes()
    assert row_sums(values).shape == (shape[0] * shape[1],)
