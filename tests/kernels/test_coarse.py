import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from patchflow.kernels.coarse import axis_table, coarsen, plain_coarsen, reach_of

zooms = st.one_of(st.floats(0.1, 1), st.sampled_from([1.0, 0.5, 1 / 3, 0.25, 2 / 3, 0.999999]))


@settings(max_examples=80, deadline=None)
@given(st.tuples(*[zooms] * 3), st.tuples(*[st.integers(-30, 30)] * 3), st.tuples(*[st.integers(1, 24)] * 3), st.integers(1, 2))
def test_the_kernel_agrees_with_its_twin(zoom, start, size, channels):
    values = np.random.default_rng(sum(size)).normal(size=(channels, *size)).astype(np.float32)
    fast = values.copy()
    coarsen(fast, start, zoom)
    plain = plain_coarsen(torch.from_numpy(values), start, zoom).numpy()
    inner = (slice(None), *(slice(reach_of(z), max(n - reach_of(z), 0)) for z, n in zip(zoom, size, strict=True)))
    np.testing.assert_allclose(fast[inner], plain[inner], rtol=0, atol=3e-6)


@settings(max_examples=200, deadline=None)
@given(zooms, st.integers(-1000, 1000))
def test_no_voxel_is_blended_of_voxels_beyond_the_reach(zoom, start):
    reach, table = reach_of(zoom), axis_table(zoom, start, 80)
    for voxel in range(reach, 80 - reach):
        cell, share = table.cells[voxel], table.shares[voxel]
        used = [table.sources[cell]] + ([table.sources[cell + 1]] if share > 0 else [])
        assert all(abs(int(source) - voxel) <= reach for source in used)
        whole_line = axis_table(zoom, start - 40, 160)
        far = whole_line.cells[voxel + 40]
        assert whole_line.sources[far] - 40 == used[0]
        assert whole_line.shares[voxel + 40] == share


@pytest.mark.parametrize("zoom", [0.5, 0.25, 0.75])
def test_whole_cells_from_voxel_0_are_what_torch_makes(zoom):
    """As nnU-Net and MONAI do it: nearest down, linear up; but for the border, where they repeat the last cell."""
    values = np.random.default_rng(0).normal(size=(1, 16, 24, 32)).astype(np.float32)
    small = interpolate(torch.from_numpy(values)[None], [int(n * zoom) for n in values.shape[1:]], mode="nearest-exact")
    expected = interpolate(small, values.shape[1:], mode="trilinear", align_corners=False)[0].numpy()
    got = values.copy()
    coarsen(got, (0, 0, 0), (zoom,) * 3)
    inner = (slice(None), *[slice(4, -4)] * 3)
    np.testing.assert_allclose(got[inner], expected[inner], rtol=0, atol=1e-6)


def test_by_hand():
    values = np.arange(8, dtype=np.float32).reshape(1, 1, 1, 8) ** 2  # cells of two voxels are shown by their second one: 1, 9, 25, 49
    coarsen(values, (0, 0, 0), (1, 1, 0.5))
    np.testing.assert_allclose(values[0, 0, 0, 1:7], [1 + 8 / 4, 1 + 8 * 3 / 4, 9 + 16 / 4, 9 + 16 * 3 / 4, 25 + 24 / 4, 25 + 24 * 3 / 4])


def test_a_zoom_of_one_changes_nothing():
    values = np.random.default_rng(0).normal(size=(2, 5, 6, 7)).astype(np.float32)
    got = values.copy()
    coarsen(got, (3, -2, 1), (1, 1, 1))
    np.testing.assert_array_equal(got, values)
