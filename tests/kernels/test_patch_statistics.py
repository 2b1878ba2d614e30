import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.kernels.intensity import apply_gamma, apply_gamma_measured
from patchflow.kernels.statistics import patch_mean, patch_moments, plain_moments_of
from patchflow.kernels.summary import plain_moments

sizes = st.one_of(st.tuples(*[st.integers(1, 9)] * 3), st.sampled_from([(1, 1, 5000), (3, 40, 90), (16, 16, 16), (2, 3, 1025)]))


def close(got, expected, scale=1.0):
    assert got.voxels == expected.voxels
    assert (got.minimum, got.maximum) == (expected.minimum, expected.maximum)
    assert got.mean == pytest.approx(expected.mean, rel=1e-12, abs=1e-12 * scale)
    assert got.squares == pytest.approx(expected.squares, rel=1e-9, abs=1e-12 * scale**2 * got.voxels)


@settings(max_examples=60, deadline=None)
@given(sizes, st.floats(-1000, 1000), st.booleans())
def test_moments_agree_with_the_plain_ones(size, offset, inner):
    around = tuple(n + 3 for n in size) if inner else size
    values = (np.random.default_rng(sum(size)).normal(size=around) + offset).astype(np.float32)
    values = values[1 : 1 + size[0], 2 : 2 + size[1], 1 : 1 + size[2]] if inner else values
    close(patch_moments(values), plain_moments(values), abs(offset) + 10)
    assert patch_mean(values) == pytest.approx(float(values.mean(dtype=np.float64)), rel=1e-12, abs=1e-12)
    low, high, mean, std = plain_moments_of(torch.from_numpy(values.copy()).double())
    of = plain_moments(values)
    assert [float(part) for part in (low, high, mean)] == pytest.approx([of.minimum, of.maximum, of.mean])
    assert float(std) == pytest.approx(np.sqrt(of.squares / of.voxels), abs=1e-7)


def test_values_that_are_all_the_same_have_no_spread():
    of = patch_moments(np.full((5, 6, 7), 0.1, np.float32))
    assert of.squares == pytest.approx(0, abs=1e-12)
    assert of.mean == pytest.approx(float(np.float32(0.1)))


def test_gamma_is_measured_as_it_is_made():
    values = np.random.default_rng(0).uniform(-2, 3, (1, 20, 21, 23)).astype(np.float32)
    made, measured = values.copy(), values.copy()
    apply_gamma(made, 0.8, -2.0, 5.0)
    close(apply_gamma_measured(measured, 0.8, -2.0, 5.0), plain_moments(made))
    np.testing.assert_array_equal(made, measured)
