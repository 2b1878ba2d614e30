import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patchflow as pf
from patchflow.inference.batches import GridBatches, _shares


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
