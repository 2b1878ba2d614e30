"""Slabs that leave while windows come: the same voxels as the whole volume, in memory that one window's thickness bounds."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import patchflow as pf
from patchflow.errors import ArgumentError, InferenceError

LAW = settings(max_examples=60, deadline=None, derandomize=True)
MODES = st.sampled_from(["crop", "average", "hann", "gaussian", lambda size: np.arange(1, size + 1), ("crop", "hann", "average")])


class Collected:
    """A volume put together from slabs."""

    def __init__(self) -> None:
        self.slabs: list[np.ndarray] = []
        self.covered: list[np.ndarray] = []
        self.next = 0

    def __call__(self, first: int, slab: torch.Tensor, covered: torch.Tensor | None) -> None:
        assert first == self.next
        self.next += slab.shape[1]
        self.slabs.append(slab.numpy().copy())
        self.covered.append(np.ones(slab.shape[1:], bool) if covered is None else covered.numpy().copy())

    @property
    def volume(self) -> np.ndarray:
        return np.concatenate(self.slabs, axis=1)


class Bricks(Collected):
    """A volume put together from bricks, each slab once its last brick is there."""

    def __call__(self, brick) -> None:
        assert brick.first == self.next
        shape = (len(brick.values), brick.stop - brick.first)
        if not self.slabs or self.slabs[-1].shape[1] != shape[1] or self.full:
            self.slabs.append(np.full((*shape, *self.rest), np.nan, np.float32))
            self.covered.append(np.zeros((shape[1], *self.rest), bool))
            self.full = False
        rows = slice(brick.place - brick.first, brick.place - brick.first + brick.values.shape[1])
        high = brick.low + brick.values.shape[2]
        self.slabs[-1][:, rows, brick.low : high] = brick.values.numpy()
        self.covered[-1][rows, brick.low : high] = True if brick.covered is None else brick.covered.numpy()
        if rows.stop == shape[1] and high == self.rest[0]:
            self.next, self.full = brick.stop, True


def volumes(data: st.DataObject) -> tuple[np.ndarray, tuple, tuple]:
    shape = tuple(data.draw(st.integers(1, 17)) for _ in range(3))
    size = tuple(data.draw(st.integers(1, 9)) for _ in range(3))
    overlap = tuple(data.draw(st.integers(0, s - 1)) for s in size)
    values = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).normal(size=(2, *shape)).astype(np.float32)
    return values, size, overlap


def stream(grid: pf.GridSampler, batch: int = 3, skipped: frozenset[int] = frozenset(), bricks: bool = False, **options) -> Collected:
    collected = Bricks() if bricks else Collected()
    collected.rest, collected.full = grid.tiling.shape[1:], True
    aggregator = pf.GridAggregator(grid, **{"on_brick" if bricks else "on_slab": collected}, **options)
    for first in range(0, len(grid), batch):
        numbers = [n for n in range(first, min(first + batch, len(grid))) if n not in skipped]
        aggregator.skip(
            np.array([grid.locations[n] for n in range(first, min(first + batch, len(grid))) if n in skipped]).reshape(-1, 6).astype(int)
        )
        if numbers:
            aggregator.add_batch(torch.stack([grid[n]["image"] for n in numbers]), grid.locations[numbers])
    assert aggregator.complete
    return collected


@LAW
@given(st.data(), MODES, st.integers(1, 5), st.booleans())
def test_streamed_slabs_are_the_volume(data: st.DataObject, mode, batch: int, bricks: bool) -> None:
    values, size, overlap = volumes(data)
    grid = pf.GridSampler(values, size, overlap)
    collected = stream(grid, batch, bricks=bricks, overlap_mode=mode)
    assert collected.next == values.shape[1]
    assert all(covered.all() for covered in collected.covered)
    np.testing.assert_allclose(collected.volume, values, rtol=0, atol=1e-6 * np.ptp(values))
    whole = pf.GridAggregator(grid, mode)
    whole.add_batch(torch.stack([window["image"] for window in grid]), grid.locations)
    np.testing.assert_array_equal(collected.volume, whole.get_output_tensor().numpy())


@LAW
@given(st.data(), MODES, st.floats(0, 0.9), st.booleans())
def test_windows_left_out_by_a_mask_leave_the_others_exact(data: st.DataObject, mode, sparsity: float, bricks: bool) -> None:
    values, size, overlap = volumes(data)
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random(values.shape[1:]) > sparsity**0.01
    mask.reshape(-1)[data.draw(st.integers(0, mask.size - 1))] = True
    grid = pf.GridSampler(values, size, overlap, mask=mask)
    touched = [bool(mask[pf.PatchLocation.from_array(row).overlap(mask.shape).volume].any()) for row in grid.tiling.locations()]
    assert grid.wanted.reshape(-1).tolist() == touched
    collected = stream(grid, bricks=bricks, overlap_mode=mode)
    covered = np.concatenate(collected.covered)
    assert covered[mask].all()
    np.testing.assert_allclose(collected.volume[:, covered], values[:, covered], rtol=0, atol=2e-6 * np.ptp(values))
    assert (collected.volume[:, ~covered] == 0).all()
    whole = pf.GridAggregator(grid, mode)
    order = np.random.default_rng(0).permutation(len(grid))
    whole.add_batch(torch.stack([grid[n]["image"] for n in order]), grid.locations[order])
    np.testing.assert_allclose(whole.get_output_tensor().numpy(), collected.volume, rtol=0, atol=2e-6 * np.ptp(values))


@LAW
@given(st.data(), MODES, st.booleans())
def test_skipped_windows_leave_the_others_exact(data: st.DataObject, mode, bricks: bool) -> None:
    values, size, overlap = volumes(data)
    grid = pf.GridSampler(values, size, overlap)
    skipped = frozenset(data.draw(st.sets(st.integers(0, len(grid) - 1), max_size=len(grid) - 1)))
    collected = stream(grid, overlap_mode=mode, skipped=skipped, bricks=bricks)
    covered = np.concatenate(collected.covered)
    np.testing.assert_allclose(collected.volume[:, covered], values[:, covered], rtol=0, atol=2e-6 * np.ptp(values))
    expected = np.zeros(values.shape[1:], bool)
    if "crop" not in (mode if isinstance(mode, tuple) else (mode,)):
        for n in set(range(len(grid))) - skipped:
            expected[pf.PatchLocation.from_array(grid.locations[n]).overlap(expected.shape).volume] = True
        np.testing.assert_array_equal(covered, expected)


@LAW
@given(st.data(), st.sampled_from(["crop", "average", "hann", "gaussian"]), st.booleans())
def test_other_resolutions_are_stitched_on_their_own_grid(data: st.DataObject, mode: str, streamed: bool) -> None:
    scale = tuple(data.draw(st.sampled_from([Fraction(1, 2), Fraction(1), Fraction(2), Fraction(3, 2)])) for _ in range(3))
    multiple = tuple(factor.denominator for factor in scale)
    shape = tuple(data.draw(st.integers(1, 17)) for _ in range(3))
    size = tuple(m * data.draw(st.integers(1, 5)) for m in multiple)
    overlap = tuple(data.draw(st.integers(0, s - m)) for s, m in zip(size, multiple, strict=True))
    grid = pf.GridSampler(np.zeros((1, *shape), np.float32), size, overlap, multiple=multiple)
    fine = tuple(-(-n * f.numerator // f.denominator) for n, f in zip(shape, scale, strict=True))
    values = np.random.default_rng(0).normal(size=(2, *fine)).astype(np.float32)
    collected = Collected()
    aggregator = pf.GridAggregator(grid, mode, scale=scale, on_slab=collected if streamed else None)
    padded = np.pad(values, [(0, 0), *[(40, 40)] * 3])
    for row in grid.locations:
        start = [40 + int(a * f) for a, f in zip(row[:3], scale, strict=True)]
        stop = [40 + int(a * f) for a, f in zip(row[3:], scale, strict=True)]
        part = padded[(slice(None), *map(slice, start, stop))]
        aggregator.add_batch(torch.from_numpy(part[None].copy()), row[None])
    volume = collected.volume if streamed else aggregator.get_output_tensor().numpy()
    np.testing.assert_allclose(volume, values, rtol=0, atol=1e-6 * np.ptp(values))


def test_memory_is_as_many_slices_as_a_window_is_thick_and_is_used_again() -> None:
    grid = pf.GridSampler(np.zeros((1, 200, 4, 4), np.float32), (8, 4, 4), (4, 0, 0))
    pointers = set()
    aggregator = pf.GridAggregator(grid, "hann", on_slab=lambda first, slab, covered: pointers.add(slab.data_ptr()))
    for window in grid:
        aggregator.add_batch(window["image"][None], window["location"][None])
    assert len(pointers) == 2  # two halves of a ring of eight slices
    assert aggregator.depth() == 8


def test_pages_given_back_are_empty_when_they_are_used_again() -> None:
    values = np.random.default_rng(0).normal(size=(1, 70, 70, 300)).astype(np.float32)
    grid = pf.GridSampler(values, (16, 60, 300), (8, 20, 0))  # runs of 40 * 300 * 4 bytes: whole pages, and parts at both ends
    collected = stream(grid, overlap_mode="gaussian", bricks=True)
    np.testing.assert_allclose(collected.volume, values, rtol=0, atol=1e-6 * np.ptp(values))


def test_a_scratch_file_holds_the_same_sums(tmp_path) -> None:
    values = np.random.default_rng(0).normal(size=(2, 20, 9, 7)).astype(np.float32)
    grid = pf.GridSampler(values, (6, 5, 4), (3, 2, 1))
    for mode, bricks in [("crop", False), ("gaussian", False), ("gaussian", True)]:
        inside = stream(grid, overlap_mode=mode)
        outside = stream(grid, overlap_mode=mode, scratch_dir=tmp_path, bricks=bricks)
        np.testing.assert_array_equal(inside.volume, outside.volume)
    assert list(tmp_path.iterdir()) == []


def test_windows_out_of_order_are_refused_where_slabs_are_given_out() -> None:
    grid = pf.GridSampler(np.zeros((1, 12, 4, 4), np.float32), 4)
    aggregator = pf.GridAggregator(grid, on_slab=lambda *slab: None)
    with pytest.raises(InferenceError, match=r"window \[4:8, 0:4, 0:4\]: windows that begin before it along I are missing"):
        aggregator.add_batch(torch.zeros(1, 1, 4, 4, 4), grid.locations[1:2])
    aggregator.add_batch(torch.zeros(2, 1, 4, 4, 4), grid.locations[:2])
    with pytest.raises(InferenceError, match="given to on_slab, and are not kept"):
        aggregator.get_output_tensor()
    with pytest.raises(InferenceError, match=r"1 of 3 windows .* \[8:12, 0:4, 0:4\]"):
        aggregator.check_complete()


def test_a_skipped_window_takes_no_prediction_any_more() -> None:
    grid = pf.GridSampler(np.zeros((1, 8, 4, 4), np.float32), 4)
    aggregator = pf.GridAggregator(grid)
    aggregator.skip(grid.locations[:1])
    with pytest.raises(InferenceError, match="is not wanted"):
        aggregator.add_batch(torch.zeros(1, 1, 4, 4, 4), grid.locations[:1])


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (lambda size: np.ones(size + 1), "must return 4 finite weights"),
        (lambda size: -np.ones(size), "must return 4 finite weights of at least 0"),
        (lambda size: [0, 1, 1, 1], "no window of 4 voxels has a weight at voxel 0 of 8"),
        (("hann", "hann"), "one for all axes or three"),
        (("hann", "hann", "cosine"), "overlap_mode must be one of"),
    ],
)
def test_window_functions_that_are_none_are_refused(mode, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        pf.GridAggregator(pf.GridSampler(np.zeros((1, 8, 8, 8), np.float32), 4), mode)


def test_scales_in_which_windows_are_no_whole_voxels_are_refused() -> None:
    grid = pf.GridSampler(np.zeros((1, 9, 9, 9), np.float32), 5)
    with pytest.raises(ArgumentError, match=r"windows of \(5, 5, 5\) voxels times the scale 1/2, 1/2, 1/2 are no whole voxels"):
        pf.GridAggregator(grid, scale=0.5)
    with pytest.raises(ArgumentError, match="a fraction of small numbers"):
        pf.GridAggregator(grid, scale=0.3333)
    with pytest.raises(ArgumentError, match="multiples of 2 voxels along I"):
        pf.GridSampler(np.zeros((1, 9, 9, 9), np.float32), 5, multiple=2)
