import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.errors import ArgumentError
from patchflow.loading.plan import Plan, Request, Steps


def test_an_epoch_holds_every_subject_samples_per_volume_times():
    plan = Plan(5, 4, seed=0)
    assert np.bincount(plan.order(0)).tolist() == [4] * 5


def test_order_depends_on_seed_and_epoch_alone():
    first = Plan(5, 4, seed=0)
    order = first.order(3).copy()
    first.order(0)
    assert (first.order(3) == order).all()
    assert (Plan(5, 4, seed=0).order(3) == order).all()
    assert (Plan(5, 4, seed=1).order(3) != order).any()
    assert (first.order(4) != order).any()


def test_unshuffled_subjects_come_one_after_the_other():
    assert Plan(3, 2, seed=0, shuffle=False).order(7).tolist() == [0, 0, 1, 1, 2, 2]
    assert Plan(3, 2, seed=0, shuffle=False).request(7, 4) == Request(epoch=7, index=4, entry=2)


def test_every_order_is_equally_likely():
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(6000):
        order = tuple(Plan(3, 1, seed=2).order(epoch).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert sum((n - 1000) ** 2 / 1000 for n in counts.values()) < 20.5  # chi-square, 5 degrees of freedom, p = 0.001


def test_weighted_subjects_give_the_floor_or_ceiling_of_their_share_and_the_share_on_average():
    plan = Plan(3, 10, seed=0, weights=[1, 2.5, 0])
    due = np.array([30 / 3.5, 75 / 3.5, 0])
    counts = np.array([np.bincount(plan.order(epoch), minlength=3) for epoch in range(2000)])
    assert (np.abs(counts - due) < 1).all()
    assert (counts[:, 2] == 0).all()
    assert np.abs(counts.mean(axis=0) - due).max() < 0.05


@pytest.mark.parametrize("weights", [[1, -1], [0, 0], [1, np.nan], [1], [1, 2, 3]])
def test_weights_that_cannot_be_used_are_refused(weights):
    with pytest.raises(ArgumentError, match="subject_weights"):
        Plan(2, 1, seed=0, weights=weights)


@pytest.mark.parametrize("samples", [0, -1, 1.5, True])
def test_samples_per_volume_must_be_a_positive_int(samples):
    with pytest.raises(ArgumentError, match="samples_per_volume"):
        Plan(2, samples, seed=0)


def test_no_subject_and_no_such_patch_are_refused():
    with pytest.raises(ArgumentError, match="no subject"):
        Plan(0, 1, seed=0)
    with pytest.raises(ArgumentError, match="0 to 3"):
        Plan(2, 2, seed=0).request(0, 4)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(0, 3))
def test_steps_share_out_every_patch_once(length, batch_size, world_size, drop_last, resumed_after):
    try:
        ranks = [Steps(length, batch_size, drop_last, rank, world_size) for rank in range(world_size)]
    except ArgumentError:
        rest = length % (batch_size * world_size)
        assert length < batch_size * world_size if drop_last else 0 < rest < world_size
        return
    whole = range(length // (batch_size * world_size) * batch_size * world_size) if drop_last else range(length)
    steps = [sorted(index for rank in ranks for index in rank.indices(step)) for step in range(len(ranks[0]))]
    assert [index for step in steps for index in step] == list(whole)
    assert all(0 < len(rank.indices(step)) <= batch_size for rank in ranks for step in range(len(rank)))
    one = Steps(length, batch_size * world_size, drop_last)
    assert [list(one.indices(step)) for step in range(len(one))] == steps, "a step's set of patches is the same for every world size"
    if resumed_after < len(one):
        begin = one.taken(resumed_after)
        rest = Steps(length, batch_size * world_size, drop_last, begin=begin)
        assert [list(rest.indices(step)) for step in range(len(rest))] == steps[resumed_after + 1 :]


def test_a_rank_outside_the_world_is_refused():
    with pytest.raises(ArgumentError, match="rank"):
        Steps(10, 2, rank=2, world_size=2)
