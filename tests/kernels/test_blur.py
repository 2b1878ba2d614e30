import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate1d, gaussian_filter

from patchflow.kernels.blur import filter_middle, gaussian, plain_filter


def middle(array, weights):
    return array[(slice(None), *(slice(len(w) - 1, n - len(w) + 1) for w, n in zip(weights, array.shape[1:], strict=True)))]


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(0, 2.5)] * 3), st.tuples(*[st.integers(1, 9)] * 3), st.integers(1, 2), st.sampled_from([(0, 1), (1.7, -0.7)]))
def test_the_kernel_agrees_with_its_twin_and_with_scipy(std, size, channels, mix):
    weights = [gaussian(s) for s in std]
    shape = [n + 2 * (len(w) - 1) for n, w in zip(size, weights, strict=True)]
    values = np.random.default_rng(sum(shape)).normal(size=(channels, *shape)).astype(np.float32)
    fast = values.copy()
    filter_middle(fast, weights, *mix)
    plain = plain_filter(torch.from_numpy(values), weights, *mix).numpy()
    assert plain.shape == values.shape
    np.testing.assert_allclose(middle(fast, weights), middle(plain, weights), rtol=0, atol=2e-6)
    blurred = values.astype(np.float64)
    for axis, half in enumerate(weights, 1):
        blurred = correlate1d(blurred, np.concatenate([half[:0:-1], half]).astype(np.float64), axis)
    np.testing.assert_allclose(middle(fast, weights), middle(mix[0] * values + mix[1] * blurred, weights), rtol=0, atol=2e-6)


def test_rows_longer_than_a_piece():
    weights = [gaussian(0.6), gaussian(0.8), gaussian(1.1)]
    values = np.random.default_rng(0).normal(size=(1, 9, 40, 301)).astype(np.float32)
    fast = values.copy()
    filter_middle(fast, weights)
    np.testing.assert_allclose(middle(fast, weights), middle(plain_filter(torch.from_numpy(values), weights).numpy(), weights), atol=1e-6)


@pytest.mark.parametrize("std", [0.1, 0.3, 0.5, 0.75, 1.0, 1.6, 2.5, 7.0])
def test_what_is_cut_off_does_not_show(std):
    """Against a Gaussian that goes on to 8 standard deviations, for values from 0 to 1."""
    half = gaussian(std)
    n = 20 * len(half)
    values = np.random.default_rng(0).uniform(size=(1, n, 1, 1)).astype(np.float32)
    got = values.copy()
    filter_middle(got, [half, gaussian(0.0), gaussian(0.0)])
    expected = gaussian_filter(values[0, :, 0, 0].astype(np.float64), std, truncate=8)
    inner = slice(9 * len(half), 11 * len(half))
    np.testing.assert_allclose(got[0, inner, 0, 0], expected[inner], atol=1e-4)
    assert half[0] + 2 * half[1:].sum() == pytest.approx(1, abs=1e-6)
    assert len(half) - 1 <= np.ceil(4 * std)


@pytest.mark.parametrize("std", [0, 1e-300, 0.05])
def test_no_width_is_no_blur(std):
    np.testing.assert_array_equal(gaussian(std), [1])
