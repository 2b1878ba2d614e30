import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.errors import ArgumentError
from patchflow.geometry.grid import tile
from patchflow.geometry.location import PatchLocation

LAW = settings(max_examples=50, deadline=None, derandomize=True)


@st.composite
def tilings(draw: st.DrawFn):
    shape = tuple(draw(st.integers(1, 14)) for _ in range(3))
    size = tuple(draw(st.integers(1, 9)) for _ in range(3))
    overlap = tuple(draw(st.integers(0, s - 1)) for s in size)
    return tile(shape, size, overlap)


@LAW
@given(tilings())
def test_windows_cover_the_volume_overlap_as_asked_and_are_no_more_than_needed(tiling) -> None:
    for n, size, overlap, starts in zip(tiling.shape, tiling.size, tiling.overlap, tiling.starts, strict=True):
        if size >= n:
            assert starts == (-((size - n) // 2),)
            continue
        assert starts[0] == 0
        assert starts[-1] == n - size
        steps = np.diff(starts)
        assert (steps > 0).all()
        assert (steps <= size - overlap).all()
        assert len(starts) == 1 or steps.max() - steps.min() <= 1  # spread evenly
        assert (len(starts) - 2) * (size - overlap) < n - size  # one window less would not do


def test_nnunet_s_own_example() -> None:
    assert tile((110, 110, 110), 64, 32).starts == ((0, 23, 46),) * 3


def test_rounding_is_to_the_nearest_voxel() -> None:
    assert tile((10, 4, 4), 4, (1, 0, 0)).starts[0] == (0, 3, 6)
    assert tile((15, 4, 4), 4, (0, 0, 0)).starts[0] == (0, 4, 7, 11)  # 11/3 = 3.67 and 7.33


def test_windows_run_along_k_first_and_their_numbers_agree_with_their_locations() -> None:
    tiling = tile((6, 4, 7), (3, 4, 3), (0, 0, 1))
    expected = [(i, 0, k) for i in (0, 3) for k in (0, 2, 4)]
    assert [tiling.location(n).start for n in range(len(tiling))] == expected
    table = tiling.locations()
    assert table.dtype == np.int64
    assert table.tolist() == [[*start, *np.add(start, tiling.size).tolist()] for start in expected]
    assert [tiling.position(row) for row in table.tolist()] == [(a, 0, c) for a in range(2) for c in range(3)]


def test_position_of_what_is_no_window_is_none() -> None:
    tiling = tile((6, 4, 7), (3, 4, 3))
    assert tiling.position([1, 0, 0, 4, 4, 3]) is None
    assert tiling.position([0, 0, 0, 4, 4, 3]) is None
    assert tiling.position([0, 0, 0]) is None
    assert tiling.position([0, 0, 0, 3, 4, 3]) == (0, 0, 0)


@LAW
@given(tilings())
def test_covering_counts_the_windows_over_the_most_covered_voxel(tiling) -> None:
    counts = np.zeros(tiling.shape, int)
    for row in tiling.locations():
        counts[PatchLocation.from_array(row).overlap(tiling.shape).volume] += 1
    assert counts.min() >= 1
    assert tiling.covering() == counts.max()


@pytest.mark.parametrize(
    ("size", "overlap", "message"),
    [
        (8, 8, r"must be smaller than patch_size \(8, 8, 8\).*at most 7 voxels"),
        ((8, 8, 1), 4, "along K at most 0 voxels"),
        (8, (0, 9, 0), "along J at most 7"),
        (8, 0.5, r"no share of the patch: for 0\.5 of a patch of \(8, 8, 8\) write patch_overlap=4$"),
        ((8, 4, 1), 0.25, r"write patch_overlap=\(2, 1, 0\)$"),
        (8, (0.5, 2, np.float32(0.25)), r"write patch_overlap=\(4, 2, 2\)$"),
        (8, 3.0, "patch_overlap is counted in voxels .* write 3"),
        (8, (0.5, "1", 2), "patch_overlap is counted in voxels"),
        (8.0, 0, "patch_size is counted in voxels .* write 8"),
        (8, -1, "patch_overlap must be at least 0"),
        (0, 0, "patch_size must be at least 1"),
    ],
)
def test_sizes_that_cannot_be_used(size, overlap, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        tile((20, 20, 20), size, overlap)
