import numba
import numpy as np

from patchflow.kernels.elementary import exp2, log, sin_cos
from patchflow.kernels.intensity import apply_gamma, apply_scale_shift


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
