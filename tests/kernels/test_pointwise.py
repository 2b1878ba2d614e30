import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.errors import ArgumentError
from patchflow.kernels.pointwise import IntensityMap, apply_map, copy_voxels, flat_view, plain_apply_map, plain_tensor_map

DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64", "float16", "float32", "float64", ">i2", ">f4"]
finite = st.floats(-1e3, 1e3, allow_subnormal=False)
gains = finite.filter(lambda g: abs(g) > 1e-3)


@st.composite
def maps(draw):
    low, high = sorted((draw(finite), draw(finite)))
    return IntensityMap(draw(gains), draw(finite), draw(st.sampled_from([low, -math.inf])), draw(st.sampled_from([high, math.inf])))


def volume(seed, dtype, shape=(2, 5, 4, 37)):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * 300).clip(*((0, 120) if np.dtype(dtype).kind in "ub" else (-120, 120))).astype(dtype)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(DTYPES), maps(), st.tuples(*[st.sampled_from([1, -1, 2, -3])] * 4), st.booleans())
def test_kernel_agrees_with_plain_twin_bit_for_bit(seed, dtype, intensities, steps, flip_out):
    stored = volume(seed, dtype)[tuple(slice(None, None, s) for s in steps)]
    out = np.full((*stored.shape[:3], stored.shape[3] + 5), 7, np.float32)[..., 2:-3]
    if flip_out:
        out = out[:, ::-1, :, ::-1]
    assert apply_map(stored, intensities, out) is out
    assert out.tobytes() == plain_apply_map(stored, intensities).tobytes()
    assert (out.base[..., :2] == 7).all()
    assert (out.base[..., -3:] == 7).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(DTYPES), st.tuples(*[st.sampled_from([1, -1, 2])] * 4), st.tuples(*[st.booleans()] * 4))
def test_copied_voxels_are_the_same_however_they_lie(seed, dtype, steps, flips):
    stored = volume(seed, dtype)[tuple(slice(None, None, s) for s in steps)]
    out = np.full((*stored.shape[:3], stored.shape[3] + 5), 1, stored.dtype)[..., 2:-3]
    view = out[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    copy_voxels(stored, view)
    np.testing.assert_array_equal(view, stored)
    assert (out.base[..., :2] == 1).all()
    assert (out.base[..., -3:] == 1).all()


def test_labels_are_widened_as_they_are_turned():
    stored = np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)
    out = np.empty((1, 2, 3, 4), np.int16)
    copy_voxels(stored, out[..., ::-1])
    np.testing.assert_array_equal(out[..., ::-1], stored)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["uint8", "int16", "int32", "float32", "float64"]), maps())
def test_tensors_are_mapped_bit_for_bit_the_same(seed, dtype, intensities):
    stored = volume(seed, dtype)
    assert plain_tensor_map(torch.from_numpy(stored), intensities).numpy().tobytes() == apply_map(stored, intensities).tobytes()


def test_values_by_hand():
    stored = np.array([-5, 0, 3, 100], np.int16).reshape(1, 1, 1, 4)
    np.testing.assert_array_equal(apply_map(stored, IntensityMap(2, 1, -4, 50)).ravel(), np.float32([-4, 1, 7, 50]))


def test_float64_arithmetic_is_rounded_once():
    stored = np.array([16777217], np.int32).reshape(1, 1, 1, 1)  # not a float32: a float32 product would lose the 1
    assert apply_map(stored, IntensityMap(1, -16777216)).item() == 1.0


@settings(max_examples=50, deadline=None)
@given(maps(), maps(), finite)
def test_composition_is_one_after_the_other(first, second, x):
    def f(m, v):
        return min(max(m.gain * v + m.bias, m.low), m.high)

    both = first.then(second)
    assert f(both, x) == pytest.approx(f(second, f(first, x)), rel=1e-9, abs=1e-6)


def test_negative_gain_swaps_the_clamp():
    both = IntensityMap(low=0, high=math.inf).then(IntensityMap(gain=-2, bias=1))
    assert (both.gain, both.bias, both.low, both.high) == (-2, 1, -math.inf, 1)


@settings(max_examples=25, deadline=None)
@given(maps())
def test_json_round_trip(intensities):
    assert IntensityMap.from_dict(json.loads(json.dumps(intensities.to_dict(), allow_nan=False))) == intensities


def test_properties():
    assert IntensityMap().is_identity
    assert not IntensityMap(high=3).is_identity
    assert IntensityMap(high=3).has_clamp
    assert not IntensityMap(2, 1).has_clamp


@pytest.mark.parametrize("values", [{"gain": 0}, {"gain": math.inf}, {"bias": math.nan}, {"low": 2, "high": 1}, {"low": math.nan}])
def test_unusable_maps_are_refused(values):
    with pytest.raises(ArgumentError):
        IntensityMap(**values)


def test_unusable_arrays_are_refused():
    with pytest.raises(ArgumentError, match="real numbers"):
        apply_map(np.zeros((1, 1, 1, 1), np.complex64), IntensityMap())
    with pytest.raises(ArgumentError, match="float32"):
        apply_map(np.zeros((1, 1, 1, 1), np.int16), IntensityMap(), np.zeros((1, 1, 1, 1)))
    with pytest.raises(ArgumentError, match="shape"):
        apply_map(np.zeros((1, 1, 1), np.int16), IntensityMap())


def test_empty_and_read_only_inputs():
    assert apply_map(np.zeros((1, 0, 2, 2), np.int16), IntensityMap()).shape == (1, 0, 2, 2)
    stored = np.ones((1, 2, 2, 2), np.int16)
    stored.flags.writeable = False
    assert apply_map(stored, IntensityMap(3)).sum() == 24
    writable = np.ones((1, 2, 2, 2), np.int16)
    apply_map(writable, IntensityMap())
    assert writable.flags.writeable


def test_flat_view_shares_memory():
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)[:, ::-1, 1:3]
    flat, base, (a, b, c) = flat_view(array)
    for i, j, k in np.ndindex(array.shape):
        assert flat[base + i * a + j * b + k * c] == array[i, j, k]
    assert np.shares_memory(flat, array)
