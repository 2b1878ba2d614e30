import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.kernels import tally as module
from patchflow.kernels.histogram import plain_histogram
from patchflow.kernels.tally import Tally
from patchflow.seeding import generator

DTYPES = ["u1", "i1", "u2", "i2"]


def voxels(dtype, size, seed):
    """Voxels that repeat themselves at places, the ends of the dtype among them."""
    rng, info = generator(seed), np.iinfo(dtype)
    values = rng.choice(np.array([info.min, -1 if info.min else 255, 0, 1, info.max], dtype), size)
    return np.repeat(values, rng.integers(1, 60, size))[: 7 * size]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 30), max_size=4), st.integers(0, 10**6))
def test_the_kernel_does_what_its_plain_twin_does(dtype, sizes, seed):
    pieces = [voxels(dtype, size, seed + number) for number, size in enumerate(sizes)]
    found = Tally(np.dtype(dtype))
    for number, piece in enumerate(pieces, 1):
        found.add(piece)
        if number == 2:
            np.testing.assert_array_equal(found.counts(), plain_histogram(np.concatenate(pieces[:2])))  # and goes on
    np.testing.assert_array_equal(found.counts(), plain_histogram(np.concatenate([np.empty(0, dtype), *pieces])))


@pytest.mark.parametrize("dtype", DTYPES)
def test_counters_that_would_run_over_are_emptied_before(monkeypatch, dtype):
    monkeypatch.setattr(module, "_MOST", 1000)
    found, piece = Tally(np.dtype(dtype)), np.arange(1600).astype(dtype)
    for _ in range(3):
        found.add(piece)
        assert found._units.sum() <= 1000
    np.testing.assert_array_equal(found.counts(), 3 * plain_histogram(piece))
