import pickle

import pytest

import patchflow as pf
from patchflow.errors import ArgumentError, UnknownNameError


def test_a_subset_holds_the_subjects_named_in_that_order(small_cache):
    some = small_cache.subset(["s2", "s0"])
    assert some.names == ("s2", "s0")
    whole = pf.PatchLocation((0, 0, 0), small_cache["s2"].shape)
    assert (some[0].read("image", whole) == small_cache["s2"].read("image", whole)).all()
    again = pickle.loads(pickle.dumps(some))
    assert again.names == ("s2", "s0")
    assert (again["s2"].read("image", whole) == small_cache["s2"].read("image", whole)).all()
    assert "s1" not in repr(some)
    assert small_cache[1:3].names == ("s1", "s2")


def test_a_subset_of_unknown_or_repeated_names_is_refused(small_cache):
    with pytest.raises(UnknownNameError, match="'t9'"):
        small_cache.subset(["s0", "t9"])
    with pytest.raises(ArgumentError, match="twice"):
        small_cache.subset(["s0", "s0"])
    with pytest.raises(ArgumentError, match="a list of subjects' names"):
        small_cache.subset("s0")


def test_names_and_entries_are_in_a_cache(small_cache):
    assert "s0" in small_cache
    assert small_cache[1] in small_cache
    assert "t9" not in small_cache
    assert small_cache["s0"] not in small_cache.subset(["s1"])
