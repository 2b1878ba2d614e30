import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patchflow as pf
from patchflow.inference.batches import GridBatches, SubjectBatches, _shares, intensity_images, subjects_of_rank, windows_record
from patchflow.inference.plan import Plan


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 7))
def test_ranks_share_all_windows_in_equally_many_batches(windows, batch_size, world_size):
    if windows < world_size:
        with pytest.raises(pf.ArgumentError, match=f"{windows} windows for {world_size} ranks"):
            _shares(windows, batch_size, 0, world_size)
        return
    ranks = [_shares(windows, batch_size, rank, world_size) for rank in range(world_size)]
    assert [window for shares in ranks for share in shares for window in share] == list(range(windows))
    assert len({len(shares) for shares in ranks}) == 1
    sizes = [len(share) for shares in ranks for share in shares]
    assert min(sizes) >= 1
    assert max(sizes) <= (batch_size if batch_size > 1 or windows % world_size == 0 else 2)


@pytest.mark.parametrize("num_workers", [0, 3])
def test_batches_hold_what_the_grids_of_the_entries_hold(small_cache, num_workers):
    batches = list(GridBatches(small_cache, (9, 8, 7), (3, 0, 2), batch_size=4, fill=7, num_workers=num_workers))
    windows = [(e.name, n, w) for e in small_cache for n, w in enumerate(pf.GridSampler(e, (9, 8, 7), (3, 0, 2), fill=7))]
    rows = [(batch, row) for batch in batches for row in range(len(batch["index"]))]
    assert len(rows) == len(windows)
    for (batch, row), (name, number, window) in zip(rows, windows, strict=True):
        assert (batch["subject"][row], batch["index"][row]) == (name, number)
        for key in ("image", "label", "location"):
            assert batch[key].dtype == window[key].dtype
            assert (batch[key][row] == window[key]).all()


def test_an_iteration_that_is_left_early_can_be_begun_again(small_cache):
    batches = GridBatches(small_cache, 9, batch_size=2, keys=("label",), num_workers=2)
    first = next(iter(batches))
    again = list(batches)
    assert len(again) == len(batches)
    assert set(first) == {"label", "location", "index", "subject"}
    assert (again[0]["label"] == first["label"]).all()


def test_a_batch_size_of_nothing_is_refused(small_cache):
    with pytest.raises(pf.ArgumentError, match="batch_size must be an int of at least 1, not 0"):
        GridBatches(small_cache, 9, batch_size=0)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 50), max_size=12), st.integers(1, 5))
def test_each_subject_goes_to_one_rank_and_none_has_much_more_than_its_share(windows, world_size):
    ranks = [subjects_of_rank(windows, rank, world_size) for rank in range(world_size)]
    assert sorted(number for mine in ranks for number in mine) == list(range(len(windows)))
    assert all(mine == sorted(mine) for mine in ranks)
    loads = [sum(windows[number] for number in mine) for mine in ranks]
    assert max(loads) <= sum(windows) / world_size + max(windows, default=0)
    assert loads[0] > 0 or not windows  # the first rank, which tells the user what happens, is never without


def test_ranks_get_whole_subjects_in_the_order_of_their_grids(small_cache):
    plan = Plan(patch_size=(9, 8, 7), patch_overlap=(3, 0, 2), images=("image",), batch_size=5, outside="reflect", scale=("1/3", 1, 1))
    ranks = [SubjectBatches(small_cache, plan, done=["s1"], rank=rank, world_size=2, num_workers=rank) for rank in range(2)]
    assert sorted(name for batches in ranks for name in batches.grids) == ["s0", "s2", "s3"]
    for batches in ranks:
        rows = [(batch, row) for batch in batches for row in range(len(batch["index"]))]
        wanted = [(name, n, window) for name, grid in batches.grids.items() for n, window in enumerate(grid)]
        assert [len(batch["index"]) for batch in batches][:-1] == [5] * (len(batches) - 1)
        assert {start % 3 for grid in batches.grids.values() for start in grid.locations[:, 0].tolist()} == {0}
        for (batch, row), (name, number, window) in zip(rows, wanted, strict=True):
            assert (batch["subject"][row], batch["index"][row]) == (name, number)
            assert set(batch) == {"image", "location", "index", "subject"}
            np.testing.assert_array_equal(batch["image"][row].numpy(), window["image"].numpy())
    assert len(SubjectBatches(small_cache[:1], plan, rank=1, world_size=2)) == 0
    assert list(SubjectBatches(small_cache, plan, done=small_cache.names)) == []


def test_the_record_tells_windows_apart_and_batch_sizes_not(small_cache):
    def record(mask=None, **options):
        return windows_record(small_cache, Plan(**{"patch_size": 8, **options}), mask)

    assert record() == record(patch_overlap=4) == record(batch_size=7) == record(overlap_mode="crop")
    changes = [{"patch_size": 9}, {"patch_overlap": 2}, {"fill": 1}, {"outside": "border"}, {"mask": "label"}, {"images": ("a",)}]
    others = [record(**change) for change in changes]
    for number, other in enumerate([record(), *others]):
        assert other not in others[number:]


def test_intensity_images_are_what_is_predicted_from(small_cache):
    assert intensity_images(small_cache) == intensity_images(small_cache, ("label", "image")) == ["image"]
    with pytest.raises(pf.ArgumentError, match="no intensity image to predict from"):
        intensity_images(small_cache, ("label",))
