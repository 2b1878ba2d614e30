import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.kernels.planes import blend_planes, fill_outside, plain_blend_planes, plain_fill_outside, taps

LAW = settings(max_examples=60, deadline=None, derandomize=True)
sizes = st.integers(1, 9)
lines = st.tuples(st.floats(-3, 3), st.floats(-9, 9), sizes)  # scale, offset, points


@LAW
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), sizes, sizes, lines, lines, st.floats(0, 1))
def test_blending_agrees_with_its_plain_twin_bit_for_bit(seed, channels, j, k, rows, columns, weight):
    rng = np.random.default_rng(seed)
    planes = rng.normal(size=(channels, 3, j, k)).astype(np.float32)
    fill = rng.normal(size=channels).astype(np.float32)
    along = taps(*rows, j), taps(*columns, k)
    fast, plain = (np.full((channels, 2, rows[2], columns[2]), 7, np.float32) for _ in range(2))
    blend_planes(planes[:, 0], planes[:, 2], weight, *along, fill, fast, 1)
    plain_blend_planes(planes[:, 0], planes[:, 2], weight, *along, fill, plain, 1)
    assert fast.tobytes() == plain.tobytes()
    assert (fast[:, 0] == 7).all()


def test_a_blended_slice_has_these_values():
    lower = np.array([[[0.0, 8], [16, 24]]], np.float32)
    out = np.empty((1, 1, 3, 4), np.float32)
    # rows at -0.5, 0.5, 1.5 and columns at -0.75, 0, 0.75, 1.5: the first column lies outside
    blend_planes(lower, lower + 100, 0.25, taps(1, -0.5, 3, 2), taps(0.75, -0.75, 4, 2), np.array([-1], np.float32), out, 0)
    np.testing.assert_array_equal(out[0, 0], [[-1, 25, 31, 33], [-1, 33, 39, 41], [-1, 41, 47, 49]])


def test_taps_reach_half_a_voxel_beyond_the_outermost_centres():
    found = taps(0.5, -1.0, 9, 3)  # -1 -0.5 0 0.5 1 1.5 2 2.5 3
    assert (found.start, found.stop) == (1, 8)
    assert found.lower.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert found.upper.tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert found.weight.tolist() == [0, 0, 0, 0.5, 0, 0.5, 1, 1, 1]
    assert taps(-1, 2.50009, 2, 3)[3:] == (0, 2)
    assert taps(-1, 2.50011, 2, 3)[3:] == (1, 2)
    assert taps(1, 5, 4, 3)[3:] == (0, 0)
    single = taps(1, -1, 3, 1)
    assert [part.tolist() for part in single[:3]] == [[0] * 3] * 3
    assert single[3:] == (1, 2)


@LAW
@given(
    st.lists(st.one_of(st.floats(-2, 2), st.sampled_from([0.0, 0.5, 1.0, 1e12])), min_size=12, max_size=12),
    st.tuples(*[sizes] * 3),
    st.tuples(*[sizes] * 3),
    st.tuples(*[st.integers(-6, 6)] * 3),
    st.sampled_from(["u1", "i2", "f4", "f8", "?"]),
)
def test_filling_agrees_with_its_plain_twin(numbers, shape, size, first, dtype):
    matrix = np.vstack([np.reshape(numbers, (3, 4)), [0, 0, 0, 1]])
    fast, plain = (np.zeros((2, *size), dtype) for _ in range(2))
    fill = np.array([1, 1], dtype)
    fill_outside(fast, matrix, first, shape, fill)
    plain_fill_outside(plain, matrix, first, shape, fill)
    np.testing.assert_array_equal(fast, plain)


@pytest.mark.parametrize("shift", [0.0, 1e-5, -1e-5])
def test_the_border_voxel_is_inside_and_the_next_is_not(shift):
    out = np.zeros((1, 1, 1, 8), np.int16)
    matrix = np.eye(4)
    matrix[2] = 0, 0, 0.5, -1 + shift  # -1 -0.5 ... 2.5
    fill_outside(out, matrix, (0, 0, 0), (1, 1, 2), np.array([5], np.int16))
    assert out.ravel().tolist() == [5, 0, 0, 0, 0, 0, 5, 5]
