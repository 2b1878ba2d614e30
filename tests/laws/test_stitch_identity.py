"""Law 4: aggregate(grid(x)) = x to 1e-6 of the range, for every window, overlap, patch size and volume size, in every order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import patchflow as pf

MODES = ("crop", "average", "hann", "gaussian")
LAW = settings(max_examples=50, deadline=None, derandomize=True)


def stitch(volume: np.ndarray, patch_size, overlap, mode: str, order: np.ndarray, batch_size: int = 3) -> np.ndarray:
    grid = pf.GridSampler(volume, patch_size, overlap)
    aggregator = pf.GridAggregator(grid, overlap_mode=mode)
    order = order[order < len(grid)]
    for first in range(0, len(order), batch_size):
        samples = [grid[int(index)] for index in order[first : first + batch_size]]
        aggregator.add_batch(torch.stack([s["image"] for s in samples]), torch.stack([s["location"] for s in samples]))
    return aggregator.get_output_tensor().numpy()


def assert_same(stitched: np.ndarray, volume: np.ndarray, mode: str) -> None:
    assert stitched.shape == volume.shape
    assert stitched.dtype == np.float32
    if mode == "crop":
        np.testing.assert_array_equal(stitched, volume)
    else:
        # one voxel, or constant volumes, have no range: their magnitude is the scale then
        scale = max(np.ptp(volume), np.abs(volume).max())
        np.testing.assert_allclose(stitched, volume, rtol=0, atol=1e-6 * scale)


@LAW
@given(st.data(), st.sampled_from(MODES), st.integers(0, 2**32 - 1))
def test_stitching_the_windows_of_a_volume_gives_the_volume(data: st.DataObject, mode: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(data.draw(st.sampled_from((1, 2, 3, 5, 7, 8, 11, 13))) for _ in range(3))
    size = tuple(data.draw(st.integers(1, 9)) for _ in range(3))
    overlap = tuple(data.draw(st.integers(0, min(s - 1, 4))) for s in size)
    volume = rng.uniform(-1024, 3071, (data.draw(st.integers(1, 3)), *shape)).astype(np.float32)
    windows = len(pf.GridSampler(volume, size, overlap))
    assert_same(stitch(volume, size, overlap, mode, rng.permutation(windows)), volume, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("shape", "size", "overlap"),
    [
        ((1, 1, 1), (1, 1, 1), (0, 0, 0)),
        ((1, 1, 1), (6, 7, 8), (5, 6, 7)),
        ((5, 19, 1), (8, 8, 4), (4, 7, 0)),  # smaller than the patch, prime, and one voxel thick
        ((31, 37, 29), (16, 16, 16), (8, 8, 8)),
        ((40, 33, 21), (32, 24, 17), (0, 23, 16)),
        ((17, 16, 18), (8, 8, 8), (7, 7, 7)),  # 512 windows meet in the middle: sums in float32 fail here
    ],
)
def test_hard_cases(mode: str, shape, size, overlap) -> None:
    volume = np.random.default_rng(0).uniform(-1, 1, (2, *shape)).astype(np.float32)
    windows = len(pf.GridSampler(volume, size, overlap))
    assert_same(stitch(volume, size, overlap, mode, np.random.default_rng(1).permutation(windows), batch_size=8), volume, mode)


@pytest.mark.parametrize("mode", ["average", "hann", "gaussian"])
def test_a_constant_stays_constant_where_many_windows_meet(mode: str) -> None:
    volume = np.full((1, 12, 12, 12), 0.1, np.float32)
    stitched = stitch(volume, 6, 5, mode, np.arange(7**3), batch_size=16)
    np.testing.assert_allclose(stitched, volume, rtol=1e-7)
