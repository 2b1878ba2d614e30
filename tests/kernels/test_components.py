"""Connected components agree with their plain twin (law 6), and with scipy."""

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.kernels.components import RunFinder, components, plain_components, plain_touching
from patchflow.seeding import generator


def spread_out(labels: np.ndarray, connectivity: int) -> np.ndarray:
    """Of each voxel, the position of its component's first voxel; -1 for background."""
    found = components(labels, connectivity)
    out = np.full(labels.size, -1)
    for start, length, component, value in zip(found.starts, found.lengths, found.component, found.values, strict=True):
        assert (labels.reshape(-1)[start : start + length] == value).all()
        out[start : start + length] = found.starts[component]
    return out.reshape(labels.shape)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.tuples(*[st.integers(1, 8)] * 3),
    st.integers(1, 3),
    st.floats(0, 1),
    st.sampled_from([6, 18, 26]),
    st.sampled_from(["u1", "i1", "i2", "i4", "i8"]),
    st.integers(0, 10**6),
)
def test_fast_equals_plain(shape: tuple, highest: int, share: float, connectivity: int, dtype: str, seed: int) -> None:
    rng = generator(seed)
    labels = (rng.integers(1, highest + 1, shape) * (rng.random(shape) < share)).astype(dtype)
    if dtype != "u1":
        labels = -labels
    check(labels, connectivity)


def check(labels: np.ndarray, connectivity: int) -> None:
    np.testing.assert_array_equal(spread_out(labels, connectivity), plain_components(labels, connectivity))
    found, touching = components(labels, connectivity), plain_touching(labels, connectivity).reshape(-1)
    expected = [touching[start : start + length].any() for start, length in zip(found.starts, found.lengths, strict=True)]
    assert found.touching.tolist() == expected


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 170)),
    st.integers(1, 40),
    st.sampled_from(["u1", "i1", "i2", "i4", "i8"]),
    st.integers(0, 10**6),
)
def test_long_runs_which_are_passed_over_by_words(shape: tuple, usual: int, dtype: str, seed: int) -> None:
    rng = generator(seed)
    info = np.iinfo(dtype)
    size = int(np.prod(shape))
    values = rng.choice(np.array([0, 0, 1, info.max, info.min], dtype), size)
    labels = np.repeat(values, rng.integers(1, 2 * usual + 1, size))[:size].reshape(shape)
    check(labels, 26)


@pytest.mark.parametrize("dtype", ["u1", "i2", "i8"])
def test_runs_of_rows_that_come_in_pieces(dtype: str) -> None:
    labels = generator(1).integers(-1 if dtype != "u1" else 0, 2, (40, 25, 13)).astype(dtype)
    labels[::3] = 0
    labels[1::3, :, :8] = 1
    whole, pieces = RunFinder(13), RunFinder(13)
    pieces._runs = np.empty((1, 3), np.int64)  # it grows
    given = [pieces.add(labels[first : first + 7]) for first in range(0, 40, 7)]
    whole.add(labels)
    np.testing.assert_array_equal(pieces.runs(), whole.runs())
    np.testing.assert_array_equal(np.concatenate(given), whole.runs())
    value, start, length = whole.runs()[-1]
    assert (labels.reshape(-1)[start : start + length] == value).all()


def test_winding_components_are_scipys() -> None:
    field = ndi.gaussian_filter(generator(0).normal(size=(40, 50, 60)), 1.2)
    labels = (np.abs(field) < 0.03).astype(np.uint8)
    for connectivity, rank in ((6, 1), (18, 2), (26, 3)):
        expected, count = ndi.label(labels, ndi.generate_binary_structure(3, rank))
        found = spread_out(labels, connectivity)
        assert len(np.unique(found)) - 1 == count > 1
        assert len(np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1).T) == count + 1
