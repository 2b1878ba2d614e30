import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.kernels.runs import label_runs, plain_label_runs


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 6)] * 4), st.sampled_from([np.uint8, np.int8, np.int16, np.int32, np.int64]))
def test_kernel_agrees_with_plain_twin(seed, shape, dtype):
    low = 0 if np.dtype(dtype).kind == "u" else -2
    labels = np.random.default_rng(seed).integers(low, 3, shape).astype(dtype)
    for fast, plain in zip(label_runs(labels), plain_label_runs(labels), strict=True):
        np.testing.assert_array_equal(fast, plain)


def test_runs_by_hand():
    labels = np.array([[[[0, 0, 5]], [[5, 5, -1]]], [[[-1, -1, -1]], [[0, 0, 0]]]], np.int16)
    runs = label_runs(labels)
    assert runs.values.tolist() == [0, 5, -1, -1, 0]  # the run of -1 is cut where the channel ends
    assert runs.starts.tolist() == [0, 2, 5, 6, 9]
    assert runs.lengths.tolist() == [2, 3, 1, 3, 3]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 1, 1, 1)])
def test_single_voxels(shape):
    assert label_runs(np.zeros(shape, np.uint8)).lengths.tolist() == [1] * shape[0]
