from collections import Counter

import numpy as np
import pytest

from patchflow.errors import ArgumentError
from patchflow.sampling import UniformSampler
from patchflow.seeding import generator


def volume(*shape):
    return np.zeros((1, *shape), np.float32)


def test_every_start_inside_is_drawn_and_no_other(entry_of):
    sampler, rng, entry = UniformSampler((2, 3, 4)), generator(0), entry_of(image=volume(4, 5, 6))
    starts = Counter(sampler.draw(entry, rng).start for _ in range(1500))
    assert set(starts) == {(i, j, k) for i in range(3) for j in range(3) for k in range(3)}


def test_a_patch_as_large_as_the_volume_has_one_start(entry_of):
    location = UniformSampler((4, 5, 6)).draw(entry_of(image=volume(4, 5, 6)), generator(0))
    assert (location.start, location.size, location.target) == ((0, 0, 0), (4, 5, 6), None)


def test_a_larger_patch_shares_its_overhang_between_both_sides(entry_of):
    sampler, rng, entry = UniformSampler((8, 9, 2)), generator(0), entry_of(image=volume(4, 4, 3))
    assert {sampler.draw(entry, rng).start for _ in range(50)} == {(-2, -2, 0), (-2, -2, 1)}


def test_starts_are_whole_even_in_volumes_of_more_voxels_than_an_int32_counts(entry_of):
    small = entry_of(image=volume(1, 1, 1))
    entry = type("Huge", (type(small),), {"shape": (3_000_000_000, 1, 1)})(small.arrays)
    rng = generator(3)
    starts = np.array([UniformSampler(1).draw(entry, rng).start[0] for _ in range(2000)])
    assert starts.max() > 2**31
    assert len(np.unique(starts % 8)) == 8  # every last digit, which float32 would lose
    assert abs(starts.mean() / 1.5e9 - 1) < 0.05


@pytest.mark.parametrize(("size", "message"), [(96.0, "write 96"), (0, "at least 1"), ((8, 8), "2 values"), ("8", "must be an int")])
def test_a_size_that_is_not_in_voxels_is_refused(size, message):
    with pytest.raises(ArgumentError, match=message):
        UniformSampler(size)
