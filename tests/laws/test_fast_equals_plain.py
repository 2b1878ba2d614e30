"""Law 6: every fast kernel of augmentation agrees with its plain twin."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.geometry.location import PatchLocation
from patchflow.kernels.intensity import apply_gamma, apply_scale_shift, plain_gamma, plain_scale_shift
from patchflow.kernels.noise import add_normal, plain_normal
from patchflow.kernels.pointwise import IntensityMap, apply_map
from patchflow.kernels.resample import Box, plain_resample, resample_linear, resample_nearest, touched_box

sizes = st.tuples(*[st.integers(1, 9)] * 3)
starts = st.tuples(*[st.integers(-6, 8)] * 3)


@st.composite
def matrices(draw):
    """Rotations and scalings, and the exact cases that trip interpolation up: whole and half voxels, axes swapped, flat directions."""
    if draw(st.booleans()):
        linear = draw(
            st.sampled_from([np.eye(3), np.diag([-1.0, 1, 1]), np.eye(3)[[1, 0, 2]], np.diag([0.5, 1, 2]), np.diag([1e-17, 1, 1])])
        )
        shift = draw(st.tuples(*[st.sampled_from([0.0, 0.5, -1.0, 3.0, -0.25])] * 3))
    else:
        linear = np.array(draw(st.lists(st.floats(-1.5, 1.5), min_size=9, max_size=9))).reshape(3, 3)
        shift = draw(st.tuples(*[st.floats(-4, 8)] * 3))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, shift
    return matrix


def region_of(volume, box):
    return volume[(slice(None), *(slice(a, b) for a, b in zip(box.start, box.stop, strict=True)))]


@settings(max_examples=50, deadline=None)
@given(
    matrices(), sizes, sizes, starts, st.sampled_from(["int16", "uint8", "float32", "int32", "float16"]), st.booleans(), st.integers(1, 2)
)
def test_linear(matrix, shape, size, start, dtype, clamped, channels):
    volume = np.random.default_rng(sum(shape)).uniform(0, 250, (channels, *shape)).astype(dtype)
    intensities = IntensityMap(0.5, -20.0, 0.0, 60.0) if clamped else IntensityMap(0.5, -20.0)
    location = PatchLocation(start, size)
    box = touched_box(matrix, location, shape, nearest=False)
    if box is None:
        box = Box((0, 0, 0), (1, 1, 1))
    region = region_of(volume, box)
    fast = resample_linear(region, box, shape, matrix, location, intensities, -7.0, np.empty((channels, *size), np.float32))
    plain = plain_resample(torch.from_numpy(apply_map(region, intensities)), box, shape, matrix, location, -7.0, nearest=False)
    np.testing.assert_allclose(fast, plain.numpy(), rtol=0, atol=125 * 1e-6)


@settings(max_examples=50, deadline=None)
@given(matrices(), sizes, sizes, starts, st.sampled_from(["int16", "uint8", "int64"]), st.integers(1, 2))
def test_nearest(matrix, shape, size, start, dtype, channels):
    volume = np.random.default_rng(sum(shape)).integers(0, 100, (channels, *shape)).astype(dtype)
    location = PatchLocation(start, size)
    box = touched_box(matrix, location, shape, nearest=True)
    if box is None:
        box = Box((0, 0, 0), (1, 1, 1))
    region = region_of(volume, box)
    fast = resample_nearest(region, box, shape, matrix, location, 101, np.empty((channels, *size), dtype))
    plain = plain_resample(torch.from_numpy(region.copy()), box, shape, matrix, location, 101, nearest=True)
    np.testing.assert_array_equal(fast, plain.numpy())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**64 - 1), st.tuples(*[st.integers(-1000, 1000)] * 3), st.tuples(*[st.integers(1, 11)] * 3), st.integers(1, 3))
def test_noise(key, start, size, channels):
    fast = np.full((channels, *size), 5.0, np.float32)
    add_normal(fast, start, key, mean=2.0, std=0.5)
    plain = 5 + 2 + 0.5 * plain_normal((channels, *size), start, key)
    np.testing.assert_allclose(fast, plain.numpy(), rtol=0, atol=3e-6)


@pytest.mark.parametrize("gamma", [0.3, 0.74, 1.0, 1.35, 3.0])
def test_gamma(gamma):
    values = np.concatenate([np.linspace(-300, 900, 10_001), [-100.0, -100.0001, -99.9999, 500.0]]).astype(np.float32)
    plain = plain_gamma(torch.from_numpy(values), gamma, -100.0, 600.0).numpy()
    fast = values.copy()
    apply_gamma(fast, gamma, -100.0, 600.0)
    np.testing.assert_allclose(fast, plain, rtol=2e-6, atol=600 * 1e-6)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 3, width=32), st.floats(-100, 100, width=32))
def test_scale_shift_bit_for_bit(factor, shift):
    values = np.random.default_rng(0).normal(size=999).astype(np.float32)
    plain = plain_scale_shift(torch.from_numpy(values), factor, shift).numpy()
    fast = values.copy()
    apply_scale_shift(fast, factor, shift)
    assert fast.tobytes() == plain.tobytes()
