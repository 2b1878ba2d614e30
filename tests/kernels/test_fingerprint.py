import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.kernels.fingerprint import Fingerprint, plain_fingerprint


def fingerprint(*pieces):
    found = Fingerprint()
    for piece in pieces:
        found.add(piece)
    return found.number()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 300))
def test_the_kernel_does_what_its_plain_twin_does(data, first, last):
    array = np.frombuffer(data, np.uint8)
    assert fingerprint(array) == plain_fingerprint(array)
    assert fingerprint(array[:first], array[first:last], array[max(first, last) :]) == plain_fingerprint(array)


@pytest.mark.parametrize(("text", "number"), [(b"", 0xEF46DB3751D8E999), (b"a", 0xD24EC4F1A98C6E5B), (b"abc", 0x44BC2CF5AD770999)])
def test_known_numbers(text, number):
    assert fingerprint(np.frombuffer(text, np.uint8)) == number


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
def test_any_dtype_and_any_changed_voxel(dtype):
    array = np.arange(7 * 5 * 6, dtype=dtype).reshape(1, 7, 5, 6)
    found = {fingerprint(array), plain_fingerprint(array)}
    assert len(found) == 1
    for place in range(array.size):
        changed = array.copy()
        changed.reshape(-1)[place] += 1
        found.add(fingerprint(changed))
    assert len(found) == array.size + 1
