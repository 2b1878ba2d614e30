import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.errors import ArgumentError
from patchflow.geometry.grid import tile
from patchflow.geometry.windows import axis_weights, check_overlap_mode, crop_bounds, gaussian, hann

MODES = ("crop", "average", "hann", "gaussian")
LAW = settings(max_examples=50, deadline=None, derandomize=True)


@LAW
@given(st.integers(1, 200), st.integers(1, 64), st.data(), st.sampled_from(MODES))
def test_windows_sum_to_one_at_every_voxel_and_weigh_nothing_outside(n: int, size: int, data: st.DataObject, mode: str) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    starts = tile((n, 1, 1), (size, 1, 1), (overlap, 0, 0)).starts[0]
    weights = axis_weights(mode, starts, size, n)
    total = np.zeros(n + 2 * size)
    for row, start in zip(weights, starts, strict=True):
        total[start + size : start + 2 * size] += row
    np.testing.assert_allclose(total[size : size + n], 1, rtol=0, atol=1e-15)
    assert total[:size].sum() == total[size + n :].sum() == 0
    assert (weights >= 0).all()


def test_hann_is_positive_at_its_ends_and_is_a_raised_cosine() -> None:
    x = np.arange(1, 8) / 8
    np.testing.assert_allclose(hann(7), 0.5 - 0.5 * np.cos(2 * np.pi * x), atol=1e-15)
    assert hann(128).min() > 1e-4
    assert hann(1).tolist() == [1]


def test_gaussian_has_a_standard_deviation_of_an_eighth_of_the_patch_about_its_middle() -> None:
    window = gaussian(65)  # one voxel in the middle
    assert window[32] == 1
    np.testing.assert_allclose(window[32 + 8] / window[32], np.exp(-0.5 * (8 / (65 / 8)) ** 2), rtol=1e-14)
    np.testing.assert_array_equal(window, window[::-1])
    x = np.arange(4096) - 2047.5
    density = gaussian(4096) / gaussian(4096).sum()
    assert (density * x**2).sum() ** 0.5 == pytest.approx(4096 / 8, rel=2e-3)  # the ends are cut at 4 standard deviations
    assert gaussian(1).tolist() == [1]
    assert gaussian(512).min() > 3e-4


def test_average_halves_what_two_windows_share() -> None:
    assert axis_weights("average", (0, 2), 4, 6).tolist() == [[1, 1, 0.5, 0.5], [0.5, 0.5, 1, 1]]


def test_crop_splits_overlaps_at_their_middle() -> None:
    assert crop_bounds((0, 2), 4, 6) == [(0, 3), (3, 6)]
    assert crop_bounds((0, 4, 7), 5, 12) == [(0, 4), (4, 8), (8, 12)]
    assert axis_weights("crop", (-1,), 5, 3).tolist() == [[0, 1, 1, 1, 0]]


def test_a_mode_of_another_name_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"crop, average, hann, gaussian, or a function .*, not 'mean'"):
        check_overlap_mode("mean")
