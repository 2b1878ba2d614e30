import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.kernels.transpose import TILE_SLICES, plain_slab_to_volume, slab_to_volume
from patchflow.seeding import generator

sizes = st.integers(1, 70)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.tuples(sizes, sizes, st.integers(1, 2 * TILE_SLICES + 3)), st.integers(0, 200), st.sampled_from(["i1", "u2", "f4", "f8"]), st.data()
)
def test_the_kernel_does_what_its_plain_twin_does(shape: tuple[int, int, int], seed: int, dtype: str, data: st.DataObject) -> None:
    i, j, k = shape
    first = data.draw(st.integers(0, k - 1))
    count = data.draw(st.integers(1, k - first))
    slab = generator(seed).integers(0, 256, (count, j, i, np.dtype(dtype).itemsize), dtype=np.uint8).view(dtype)[..., 0]
    fast, plain = np.zeros(shape, dtype), np.zeros(shape, dtype)
    slab_to_volume(slab, fast, first)
    plain_slab_to_volume(slab, plain, first)
    assert fast.tobytes() == plain.tobytes()  # bytes, as NaN equals nothing


def test_voxels_land_where_their_indices_say() -> None:
    volume = np.zeros((2, 3, 4), np.int16)
    slab_to_volume(np.arange(12, dtype=np.int16).reshape(2, 3, 2), volume, 1)  # slab[k, j, i]
    assert volume[1, 2, 2] == 11  # i=1, j=2, second slice of the slab
    assert volume[1, 0, 1] == 1
    assert volume[0, 1, 2] == 8
    assert not volume[:, :, [0, 3]].any()


@pytest.mark.parametrize("shape", [(300, 1, 1), (1, 300, 1), (1, 1, 300), (129, 2, 65)])
def test_long_and_thin_volumes(shape: tuple[int, int, int]) -> None:
    volume = np.zeros(shape, np.int32)
    expected = np.arange(volume.size, dtype=np.int32).reshape(shape)
    slab_to_volume(np.ascontiguousarray(expected.transpose(2, 1, 0)), volume, 0)
    np.testing.assert_array_equal(volume, expected)
