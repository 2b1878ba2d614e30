import numpy as np
import pytest

from patchflow.errors import ArgumentError
from patchflow.types import int3


@pytest.mark.parametrize("value", [4, np.int64(4), (4, 4, 4), [4, 4, 4], np.array([4, 4, 4]), (np.int32(4), 4, 4)])
def test_sizes_are_an_int_or_three(value):
    result = int3(value, "patch_size")
    assert result == (4, 4, 4)
    assert all(type(part) is int for part in result)


@pytest.mark.parametrize(("value", "voxels"), [(64.0, 64), (63.6, 64), ((64, 64.0, 64), 64), (np.float32(8), 8)])
def test_a_float_is_refused_with_the_number_of_voxels_meant(value, voxels):
    with pytest.raises(ArgumentError, match=rf"patch_size is counted in voxels.*write {voxels}$"):
        int3(value, "patch_size")


@pytest.mark.parametrize("value", [0, -1, (4, 4), (4, 4, 4, 4), (4, 0, 4), "444", None, True, (True, 4, 4), {4}, [[4, 4, 4]]])
def test_anything_else_is_refused(value):
    with pytest.raises(ArgumentError, match="patch_size"):
        int3(value, "patch_size")
