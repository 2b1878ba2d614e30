import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.kernels.elementary import exp2, log, power, sin_cos
from patchflow.kernels.intensity import (
    apply_gamma,
    apply_scale_shift,
    apply_segments,
    plain_gamma,
    plain_scale_shift,
    plain_segments,
)


@numba.njit(error_model="numpy")
def _evaluate(positive, exponents, angles):
    logs, powers, sines, cosines = np.empty_like(positive), np.empty_like(exponents), np.empty_like(angles), np.empty_like(angles)
    for n in range(positive.size):
        logs[n] = log(positive[n])
        powers[n] = exp2(exponents[n])
        sines[n], cosines[n] = sin_cos(angles[n])
    return logs, powers, sines, cosines


def test_elementary_functions_are_good_to_float32():
    positive = np.exp2(np.linspace(-125, 127, 20_001)).astype(np.float32)
    exponents = np.linspace(-125.9, 127.4, 20_001).astype(np.float32)
    angles = np.linspace(-np.pi / 4, np.pi / 4, 20_001).astype(np.float32)
    logs, powers, sines, cosines = _evaluate(positive, exponents, angles)
    np.testing.assert_allclose(logs, np.log(positive.astype(np.float64)), rtol=3e-7, atol=1e-7)
    np.testing.assert_allclose(powers, np.exp2(exponents.astype(np.float64)), rtol=3e-7)
    np.testing.assert_allclose(sines, np.sin(angles.astype(np.float64)), atol=1.5e-7)
    np.testing.assert_allclose(cosines, np.cos(angles.astype(np.float64)), atol=1.5e-7)


def test_exp2_ends_at_zero_and_infinity():
    _, powers, _, _ = _evaluate(np.ones(4, np.float32), np.array([-1e9, -127.0, 128.0, 1e9], np.float32), np.zeros(4, np.float32))
    np.testing.assert_array_equal(powers, [0, 0, np.inf, np.inf])


def test_gamma_by_hand():
    values = np.array([10.0, 15.0, 20.0, 30.0, 5.0], np.float32)  # on the scale from 10 to 20: 0, 0.5, 1, 2, -0.5
    apply_gamma(values, 2.0, 10.0, 10.0)
    np.testing.assert_allclose(values, [10.0, 12.5, 20.0, 50.0, 7.5], rtol=1e-6)


def test_scale_and_shift_by_hand():
    values = np.array([[1.0, -2.0]], np.float32)
    apply_scale_shift(values, 0.5, 3.0)
    np.testing.assert_array_equal(values, [[3.5, 2.0]])


@numba.njit(error_model="numpy")
def _powers(values, exponent, out):
    for n in range(values.size):
        out[n] = power(values[n], exponent)


@pytest.mark.parametrize("exponent", [0.05, 0.5, 1.0, 1.3, 5.0])
def test_powers_from_zero_to_beyond_one(exponent):
    values = np.concatenate([[0.0, 1e-42, 1e-37, 1.0, 3.0], np.linspace(0, 1, 10_001), np.exp2(np.linspace(-60, 3, 1001))])
    values = values.astype(np.float32)
    got = np.empty_like(values)
    _powers(values, np.float32(exponent), got)
    expected = values.astype(np.float64) ** np.float64(np.float32(exponent))
    assert got[0] == got[1] == 0
    np.testing.assert_allclose(got[2:], expected[2:], rtol=3e-6, atol=1e-6)
    assert got[3] == 1


@settings(max_examples=40, deadline=None)
@given(st.floats(0.1, 4), st.floats(-50, 50), st.floats(0.1, 100), st.booleans())
def test_gamma_agrees_with_its_twin_also_downwards(gamma, low, width, down):
    values = np.random.default_rng(0).uniform(low - 0.5 * width, low + 1.5 * width, 999).astype(np.float32)
    start, span = float(np.float32(low + width if down else low)), -width if down else width  # a voxel's value, as of a volume
    plain = plain_gamma(torch.from_numpy(values).double(), gamma, start, span).numpy()
    fast = values.copy()
    apply_gamma(fast, gamma, start, span)
    inside = np.abs((values - start) / span - 0.5) <= 0.5
    size = width + abs(low)  # float32 rounds in units of it
    np.testing.assert_allclose(fast[inside], plain[inside], rtol=0, atol=2e-6 * size)
    np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-4 * size)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 3, width=32), st.floats(-100, 100, width=32), st.floats(-2, 0, width=32), st.floats(0, 2, width=32))
def test_scale_shift_with_ends_bit_for_bit(factor, shift, low, high):
    values = np.random.default_rng(0).normal(size=999).astype(np.float32)
    plain = plain_scale_shift(torch.from_numpy(values), factor, shift, low, high).numpy()
    fast = values.copy()
    apply_scale_shift(fast, factor, shift, low, high)
    np.testing.assert_array_equal(fast, plain)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(-100, 100), st.floats(0.5, 100))
def test_segments_agree_with_their_twin_and_with_numpy(inner, low, width):
    high = low + width
    heights = [low, *(low + width * share for share in sorted(inner)), high]
    values = np.random.default_rng(0).uniform(low - 0.2 * width, high + 0.2 * width, 999).astype(np.float32)
    fast, plain = values.copy(), plain_segments(torch.from_numpy(values).double(), low, high, heights).numpy()
    apply_segments(fast, low, high, heights)
    np.testing.assert_allclose(fast, plain, rtol=0, atol=2e-5 * (width + abs(low)))
    inside = (values > low) & (values < high)
    expected = np.interp(values.astype(np.float64), np.linspace(low, high, len(heights)), heights)
    np.testing.assert_allclose(plain[inside], expected[inside], rtol=0, atol=1e-5 * width)
    np.testing.assert_allclose(plain[~inside], values[~inside], rtol=0, atol=1e-5 * (width + abs(low)))
