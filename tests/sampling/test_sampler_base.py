import json
import pickle
import time

import numpy as np
import pytest

from patchflow.geometry.location import PatchLocation
from patchflow.sampling import LabelSampler, MixedSampler, Sampler, UniformSampler, WeightedSampler
from patchflow.seeding import generator

SAMPLERS = [
    UniformSampler((2, 3, 4)),
    WeightedSampler(2, "w", fallback="uniform"),
    LabelSampler(2, probabilities={2: 1, np.int64(0): np.float32(0.5)}, channel=0),
    LabelSampler(2),
    MixedSampler([(2, UniformSampler(2)), (1, LabelSampler(2))]),
]


@pytest.fixture
def entry(entry_of):
    rng = generator(5)
    return entry_of(w=rng.random((1, 6, 7, 8), dtype=np.float32), label=rng.integers(0, 3, (1, 6, 7, 8)).astype(np.uint8))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_the_same_generator_state_gives_the_same_locations_also_from_a_pickled_copy(sampler, entry):
    copy = pickle.loads(pickle.dumps(sampler))
    first, second = generator(9), generator(9)
    drawn = [sampler.draw(entry, first) for _ in range(20)]
    again = [copy.draw(entry, second) for _ in range(20)]
    assert drawn == again
    assert [a.target for a in drawn] == [b.target for b in again]
    assert len({location.start for location in drawn}) > 5
    assert all(location.size == sampler.patch_size and location.is_inside(entry.shape) for location in drawn)
    assert copy.fingerprint == sampler.fingerprint


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_settings_survive_json_and_repr_says_them(sampler):
    assert json.loads(json.dumps(sampler.to_dict(), allow_nan=False)) == sampler.to_dict()
    names = {kind.__name__: kind for kind in (UniformSampler, WeightedSampler, LabelSampler, MixedSampler)}
    assert eval(repr(sampler), names).fingerprint == sampler.fingerprint


def test_every_setting_is_part_of_the_fingerprint():
    others = [
        UniformSampler((2, 3, 5)),
        WeightedSampler(2, "w"),
        WeightedSampler(2, "v"),
        LabelSampler(2, probabilities={2: 1, 0: 0.25}, channel=0),
        LabelSampler(2, probabilities={2: 1, 0: 0.5}),
        LabelSampler(2, label="seg"),
        LabelSampler(2, fallback="uniform"),
        MixedSampler([(2, UniformSampler(2)), (2, LabelSampler(2))]),
    ]
    assert len({sampler.fingerprint for sampler in SAMPLERS + others}) == len(SAMPLERS) + len(others)


def test_the_order_in_which_probabilities_are_given_does_not_matter(entry):
    a, b = LabelSampler(2, probabilities={0: 1, 2: 3}), LabelSampler(2, probabilities={2: 3, 0: 1})
    assert a.fingerprint == b.fingerprint
    assert [a.draw(entry, rng).start for rng in [generator(1)] for _ in range(9)] == [
        b.draw(entry, rng).start for rng in [generator(1)] for _ in range(9)
    ]


def test_one_of_your_own_needs_draw_alone(entry):
    class Corner(Sampler):
        def draw(self, entry, rng):
            return PatchLocation((0, 0, 0), self.patch_size)

    sampler = Corner(3)
    sampler.check(entry)
    assert MixedSampler([(1, sampler)]).draw(entry, generator(0)) == PatchLocation((0, 0, 0), (3, 3, 3))
    assert sampler.to_dict()["type"].endswith("Corner")
    assert sampler.to_dict()["type"] != "Corner"  # the module stands before it: another's class of the same name is another
    assert repr(sampler) == "Corner(patch_size=(3, 3, 3))"


def test_a_sampler_cannot_be_made_of_the_base_alone():
    with pytest.raises(TypeError, match="abstract"):
        Sampler(3)  # type: ignore[abstract]


def test_a_draw_costs_microseconds(entry):
    sampler, rng = UniformSampler(2), generator(0)
    best = min(_seconds(lambda: sampler.draw(entry, rng)) for _ in range(5))
    assert best < 100e-6  # about 12 us on an idle machine; a busy one is given room


def _seconds(call, times=200):
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times
