import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.geometry.location import PatchLocation
from patchflow.kernels.blend import add_window, count_nonfinite, plain_add_window, plain_count_nonfinite

LAW = settings(max_examples=50, deadline=None, derandomize=True)


@LAW
@given(st.data(), st.sampled_from([np.float32, np.float64]), st.integers(0, 2**32 - 1))
def test_adding_a_window_agrees_with_its_plain_twin_bit_for_bit(data: st.DataObject, dtype: type, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, size = (tuple(data.draw(st.integers(1, 12)) for _ in range(3)) for _ in range(2))
    start = tuple(data.draw(st.integers(1 - s, n - 1)) for s, n in zip(size, shape, strict=True))
    box = PatchLocation(start, size).overlap(shape)
    depth = data.draw(st.integers(box.volume[0].stop - box.volume[0].start, shape[0]))
    ring = rng.normal(size=(depth, *shape[1:])).astype(dtype)
    patch = rng.normal(size=size).astype(np.float32)
    weights = tuple(rng.random(s) for s in size)
    expected = ring.copy()
    plain_add_window(expected, patch, weights, box)
    add_window(ring, patch, weights, box)
    np.testing.assert_array_equal(ring, expected)


def test_an_added_window_has_these_values() -> None:
    ring = np.ones((2, 2, 3), np.float32)
    patch = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    weights = np.array([0.5, 1]), np.array([1, 2.0]), np.array([1, 3.0])
    add_window(ring, patch, weights, PatchLocation((1, 0, 2), (2, 2, 2)).overlap((3, 2, 3)))
    assert ring[1].tolist() == [[1, 1, 1 + 0 * 0.5], [1, 1, 1 + 2 * 0.5 * 2]]
    assert ring[0].tolist() == [[1, 1, 1 + 4], [1, 1, 1 + 6 * 2]]  # slice 2 stands at place 0


def test_memory_that_is_not_contiguous_is_refused() -> None:
    ring, patch, weights = np.zeros((4, 4, 8), np.float32), np.ones((4, 4, 4), np.float32), (np.ones(4),) * 3
    with pytest.raises(ValueError, match="C-contiguous"):
        add_window(ring[..., ::2], patch, weights, PatchLocation((0, 0, 0), (4, 4, 4)).overlap((4, 4, 4)))


@LAW
@given(st.lists(st.floats(width=32), max_size=40))
def test_counting_what_is_not_finite_agrees_with_its_plain_twin(values: list[float]) -> None:
    array = np.array(values, np.float32)
    assert count_nonfinite(array) == plain_count_nonfinite(array)


def test_nan_and_both_infinities_are_not_finite_and_the_largest_float_is() -> None:
    extremes = np.array([np.nan, -np.nan, np.inf, -np.inf, np.finfo(np.float32).max, np.finfo(np.float32).tiny, 1e-45, -0.0], np.float32)
    assert count_nonfinite(extremes) == 4
