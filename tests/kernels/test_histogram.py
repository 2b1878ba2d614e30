import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from patchflow.kernels.histogram import has_histogram, histogram, levels, plain_histogram

DTYPES = ("u1", "i1", "u2", "i2")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(DTYPES).flatmap(lambda dtype: arrays(dtype, st.tuples(*[st.integers(1, 7)] * 3))), st.booleans(), st.integers(0, 9))
def test_the_kernel_does_what_its_plain_twin_does(array: np.ndarray, masked: bool, modulus: int) -> None:
    mask = (np.arange(array.size).reshape(array.shape) % (modulus + 1) == 0) if masked else None
    np.testing.assert_array_equal(histogram(array, mask), plain_histogram(array, mask))


@pytest.mark.parametrize("dtype", DTYPES)
def test_counts_belong_to_their_levels(dtype: str) -> None:
    info = np.iinfo(dtype)
    array = np.array([info.min, info.max, info.max, 3, 3, 3, 3], dtype)
    counts = histogram(array)
    found = {value: count for value, count in zip(levels(np.dtype(dtype)), counts, strict=True) if count}
    assert found == {info.min: 1, info.max: 2, 3: 4} if info.min != 0 else found == {0: 1, info.max: 2, 3: 4}


def test_only_few_valued_dtypes_have_a_histogram() -> None:
    assert [has_histogram(np.dtype(d)) for d in ("u1", "i1", "u2", "i2", "i4", "f4", "f8", "u8")] == [True] * 4 + [False] * 4
