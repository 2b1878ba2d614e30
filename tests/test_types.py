import numpy as np
import pytest
import torch

from patchflow.errors import ArgumentError
from patchflow.types import count, int3


@pytest.mark.parametrize("value", [4, np.int64(4), (4, 4, 4), [4, 4, 4], np.array([4, 4, 4]), (np.int32(4), 4, 4)])
def test_sizes_are_an_int_or_three(value):
    result = int3(value, "patch_size")
    assert result == (4, 4, 4)
    assert all(type(part) is int for part in result)


@pytest.mark.parametrize(("value", "voxels"), [(64.0, 64), (63.6, 64), ((64, 64.0, 64), 64), (np.float32(8), 8)])
def test_a_float_is_refused_with_the_number_of_voxels_meant(value, voxels):
    with pytest.raises(ArgumentError, match=rf"patch_size is counted in voxels.*write {voxels}$"):
        int3(value, "patch_size")


@pytest.mark.parametrize(
    "value", [0, -1, (4, 4), (4, 4, 4, 4), (4, 0, 4), "444", None, True, float("nan"), np.inf, (True, 4, 4), {4}, [[4, 4, 4]]]
)
def test_anything_else_is_refused(value):
    with pytest.raises(ArgumentError, match="patch_size"):
        int3(value, "patch_size")


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_counts_are_ints_of_any_library(value):
    assert count(value, "batch_size", 1) == 3
    assert type(count(value, "batch_size", 1)) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, np.float64(1), True, "1", None, [1], torch.tensor(1.0)])
def test_other_counts_are_refused(value):
    with pytest.raises(ArgumentError, match="batch_size must be an int of at least 1"):
        count(value, "batch_size", 1)
