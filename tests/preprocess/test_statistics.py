"""Exact statistics agree with NumPy's on the values as read."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patchflow as pf
from patchflow.images.volume import Volume
from patchflow.kernels.pointwise import IntensityMap
from patchflow.preprocess import statistics
from patchflow.preprocess.statistics import moments, percentiles
from patchflow.seeding import generator

MAPS = [IntensityMap(), IntensityMap(-0.25, 7), IntensityMap(2, 1, -20, 150), IntensityMap(-3, 0, high=30)]


def random_volume(dtype: str, shape: tuple[int, int, int, int], seed: int) -> Volume:
    low = 0 if dtype.startswith("u") else -100
    return pf.ScalarImage(generator(seed).integers(low, 100, shape).astype(dtype)).load()


def plain_values(volume: Volume, mask: np.ndarray | None) -> np.ndarray:
    m = volume.map
    values = np.clip(volume.array.astype(np.float64) * m.gain + m.bias, m.low, m.high)
    return values.reshape(-1) if mask is None else values[:, mask].reshape(-1)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.sampled_from(["u1", "i1", "i2", "u2", "i4", "u8", "f4", "f8"]),
    st.tuples(st.integers(1, 3), *[st.integers(1, 6)] * 3),
    st.sampled_from(MAPS),
    st.booleans(),
    st.lists(st.floats(0, 100), min_size=1, max_size=3),
)
def test_moments_and_percentiles_are_numpys(dtype: str, shape: tuple, intensities: IntensityMap, masked: bool, wanted: list[float]) -> None:
    volume = replace(random_volume(dtype, shape, 3), map=intensities)
    mask = generator(4).random(shape[1:]) < 0.5 if masked else None
    if mask is not None:
        mask[0, 0, 0] = True
    values = plain_values(volume, mask)
    found = moments(volume, mask)
    assert (found.count, found.minimum, found.maximum) == (values.size, values.min(), values.max())
    assert found.mean == pytest.approx(values.mean(), rel=1e-12, abs=1e-12)
    assert found.std == pytest.approx(values.std(), rel=1e-12, abs=1e-12)
    assert percentiles(volume, wanted, mask) == pytest.approx(np.percentile(values, wanted), rel=1e-12, abs=1e-10)


@pytest.mark.parametrize("masked", [False, True])
def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch, masked: bool) -> None:
    volume = random_volume("f4", (2, 5, 7, 9), 5)
    mask = volume.array[0] > 0 if masked else None
    whole = moments(volume, mask)
    monkeypatch.setattr(statistics, "_BLOCK", 13)
    pieces = moments(volume, mask)
    assert (pieces.count, pieces.minimum, pieces.maximum) == (whole.count, whole.minimum, whole.maximum)
    assert (pieces.mean, pieces.std) == pytest.approx((whole.mean, whole.std), rel=1e-14)


def test_a_large_offset_costs_no_digits() -> None:
    volume = pf.ScalarImage(1e8 + generator(0).integers(0, 2, (40, 40, 40)).astype(np.float64)).load()
    assert moments(volume).std == pytest.approx((volume.array - 1e8).std(), rel=1e-12)


def test_percentiles_of_many_equal_integers_are_exact() -> None:
    array = np.zeros((100, 100, 100), np.int16)
    array[0, 0, :3] = (5, -7, 9)
    volume = pf.ScalarImage(array).load()
    assert percentiles(volume, [0, 50, 100]) == [-7, 0, 9]
    assert percentiles(replace(volume, map=IntensityMap(-1)), [0, 50, 100]) == [-9, 0, 7]
