import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.kernels.boxes import fill_boxes, plain_fill_boxes, plain_swap_boxes, swap_boxes


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 4)] * 3), st.integers(0, 2**32), st.integers(1, 2))
def test_swapping_agrees_with_its_twin(size, seed, channels):
    cells = (2, 3, 2)
    values = np.random.default_rng(seed).normal(size=(channels, *np.multiply(cells, size))).astype(np.float32)
    chosen = np.random.default_rng(seed).permutation(12)[:8]
    pairs = (np.stack(np.unravel_index(chosen, cells), axis=1) * size).reshape(-1, 6)
    fast, plain = values.copy(), torch.from_numpy(values.copy())
    swap_boxes(fast, pairs, size)
    plain_swap_boxes(plain, pairs, size)
    np.testing.assert_array_equal(fast, plain.numpy())
    swap_boxes(fast, pairs, size)
    np.testing.assert_array_equal(fast, values)


def test_a_swap_by_hand():
    values = np.arange(8, dtype=np.float32).reshape(1, 2, 1, 4)
    swap_boxes(values, np.array([[0, 0, 0, 1, 0, 2]]), (1, 1, 2))
    np.testing.assert_array_equal(values[0, :, 0], [[6, 7, 2, 3], [4, 5, 0, 1]])


corners = st.lists(st.tuples(*[st.integers(-8, 12)] * 3), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(corners, st.tuples(*[st.integers(1, 9)] * 3), st.integers(1, 2))
def test_filling_agrees_with_its_twin(starts, size, channels):
    values = np.random.default_rng(0).normal(size=(channels, 6, 5, 7)).astype(np.float32)
    boxes = np.array([[*start, *np.add(start, size)] for start in starts])
    fast, plain, expected = values.copy(), torch.from_numpy(values.copy()), values.copy()
    fill_boxes(fast, boxes, 2.5)
    plain_fill_boxes(plain, boxes, 2.5)
    places = np.stack(np.meshgrid(*map(np.arange, values.shape[1:]), indexing="ij"), axis=-1)
    for box in boxes:
        expected[:, ((places >= box[:3]) & (places < box[3:])).all(axis=-1)] = 2.5
    np.testing.assert_array_equal(fast, expected)
    np.testing.assert_array_equal(plain.numpy(), expected)
