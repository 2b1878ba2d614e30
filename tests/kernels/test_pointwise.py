import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.errors import ArgumentError
from patchflow.kernels import pointwise
from patchflow.kernels.histogram import levels
from patchflow.kernels.intensity_map import Curve, exact_values, plain_exact_values
from patchflow.kernels.pointwise import IntensityMap, apply_map, copy_voxels, flat_view, plain_apply_map, plain_tensor_map

DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64", "float16", "float32", "float64", ">i2", ">f4"]
finite = st.floats(-1e3, 1e3, allow_subnormal=False)
gains = finite.filter(lambda g: abs(g) > 1e-3)


@st.composite
def maps(draw, curves=2):
    """With a curve half of the time, before which another map was done, perhaps with a curve too."""
    low, high = sorted((draw(finite), draw(finite)))
    curve = None
    if curves and draw(st.booleans()):
        places = sorted(draw(st.lists(st.integers(-500, 500), min_size=2, max_size=6, unique=True)))
        values = sorted(draw(st.lists(finite, min_size=len(places), max_size=len(places))))
        curve = Curve(tuple(places), tuple(values), draw(maps(curves - 1)))
    return IntensityMap(draw(gains), draw(finite), draw(st.sampled_from([low, -math.inf])), draw(st.sampled_from([high, math.inf])), curve)


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
    both = first.then(second)
    assert exact_values(x, both) == pytest.approx(exact_values(exact_values(x, first), second), rel=1e-9, abs=1e-6)


def test_negative_gain_swaps_the_clamp():
    both = IntensityMap(low=0, high=math.inf).then(IntensityMap(gain=-2, bias=1))
    assert (both.gain, both.bias, both.low, both.high) == (-2, 1, -math.inf, 1)


@settings(max_examples=25, deadline=None)
@given(maps())
def test_json_round_trip(intensities):
    assert IntensityMap.from_dict(json.loads(json.dumps(intensities.to_dict(), allow_nan=False))) == intensities


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_every_value_of_a_dtype_is_looked_up(dtype):
    before = IntensityMap(-0.5, 3.0, -200.0, 9000.0)
    m = IntensityMap(2.0, 1.0, high=190.0, curve=Curve((-100, 0, 40.5, 300), (0, 10, 10, 95), before))
    stored = levels(np.dtype(dtype))
    x = np.clip(-0.5 * stored + 3, -200, 9000)
    slopes = 10 / 100, 85 / 259.5  # of the outermost pieces, which go on
    inside = np.interp(x, (-100, 0, 40.5, 300), (0, 10, 10, 95))
    y = np.where(x < -100, slopes[0] * (x + 100), np.where(x > 300, 95 + slopes[1] * (x - 300), inside))
    found = apply_map(stored.astype(dtype).reshape(1, 1, 1, -1), m)
    np.testing.assert_allclose(found.ravel(), np.minimum(2 * y + 1, 190), rtol=1e-6, atol=1e-5)
    assert found.tobytes() == apply_map(stored.reshape(1, 1, 1, -1), m).tobytes()  # float64 voxels, for which there is no table


@settings(max_examples=50, deadline=None)
@given(maps(), st.lists(finite, max_size=30))
def test_exact_values_agree_with_their_twin_bit_for_bit(intensities, x):
    places = intensities.curve.places if intensities.curve else ()
    stored = np.array([*x, *places, -0.0, 1e5])
    assert exact_values(stored, intensities).tobytes() == plain_exact_values(stored, intensities).tobytes()
    assert exact_values(stored, intensities).astype(np.float32).tobytes() == plain_apply_map(stored, intensities).tobytes()


def test_tables_are_shared_few_and_fixed():
    pointwise.table_of.cache_clear()
    stored = np.arange(4, dtype=np.int16).reshape(1, 1, 1, 4)
    for number in range(100):
        for _ in range(2):  # an equal map, made again
            apply_map(stored, IntensityMap(curve=Curve((0, 1), (0, 1 + number % 80), IntensityMap())))
    found = pointwise.table_of.cache_info()
    assert (found.currsize, found.misses) == (64, 100)
    with pytest.raises(ValueError, match="read-only"):
        pointwise.table_of(IntensityMap(curve=Curve((0, 1), (0, 2), IntensityMap())), stored.dtype)[0] = 1


def test_an_older_version_cannot_take_a_curve_for_none():
    """It asked for a gain, and would have read stored voxels as values."""
    assert set(IntensityMap(curve=Curve((0, 1), (0, 2), IntensityMap())).to_dict()) == {"curve", "then"}
    assert set(IntensityMap().to_dict()) == {"gain", "bias", "low", "high"}


@pytest.mark.parametrize(
    ("places", "values"),
    [
        ((0,), (1,)),
        ((0, 1), (1, 2, 3)),
        ((0, 0), (1, 2)),
        ((1, 0), (1, 2)),
        ((0, 1), (2, 1)),
        ((0, math.inf), (1, 2)),
        ((0, 5e-324), (0, 1)),
    ],
)
def test_points_that_make_no_curve(places, values):
    with pytest.raises(ArgumentError, match="points of a curve"):
        Curve(places, values, IntensityMap())


def test_properties():
    assert not IntensityMap(curve=Curve((0, 1), (0, 1), IntensityMap())).is_identity
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
