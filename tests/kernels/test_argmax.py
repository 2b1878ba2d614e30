import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.kernels.argmax import argmax_channels, plain_argmax_channels


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.tuples(*[st.integers(1, 20)] * 4), st.sampled_from([np.uint8, np.int16, np.int32]), st.integers(0, 2**32 - 1))
def test_agrees_with_its_plain_twin_ties_included(shape, dtype: type, seed: int) -> None:
    values = np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)
    values[values == 3] = np.inf
    np.testing.assert_array_equal(argmax_channels(values, dtype), plain_argmax_channels(values, dtype), strict=True)


def test_the_greatest_channel_of_each_voxel_beyond_one_row_of_work() -> None:
    wanted = np.random.default_rng(0).integers(0, 300, (1, 20, 23, 25)).astype(np.int16)
    values = -np.abs(wanted - np.arange(300).reshape(-1, 1, 1, 1)).astype(np.float32)
    np.testing.assert_array_equal(argmax_channels(values, np.int16), wanted, strict=True)


def test_memory_that_is_not_contiguous_is_refused() -> None:
    with pytest.raises(ValueError, match="C-contiguous"):
        argmax_channels(np.zeros((2, 4, 4, 4), np.float32)[:, ::2], np.uint8)
