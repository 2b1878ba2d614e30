import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import patchflow as pf
from patchflow.errors import ArgumentError, CacheError, WorkerError


def make_queue(cache, sampler, **arguments):
    return pf.Queue(cache, sampler, **({"samples_per_volume": 5, "batch_size": 3, "seed": 7} | arguments))


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"subject_weights": {"s0": 1}}, "subject_weights must be a list"),
        ({"subject_weights": "even"}, "subject_weights must be a list"),
        ({"keys": ()}, "keys must be names"),
        ({"keys": ("image", "image")}, "each once"),
        ({"keys": 5}, "keys must be names"),
        ({"rank": "0", "world_size": 2}, "rank"),
        ({"start_method": "thread"}, "start_method must be .*'spawn'.*not 'thread'"),
    ],
)
def test_what_cannot_be_used_is_refused_when_the_queue_is_made(small_cache, small_sampler, arguments, what):
    with pytest.raises(ArgumentError, match=what):
        make_queue(small_cache, small_sampler, **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_pinning_without_a_device_is_refused(small_cache, small_sampler):
    with pytest.raises(ArgumentError, match="needs a CUDA device"):
        make_queue(small_cache, small_sampler, pin_memory=True)


@pytest.mark.parametrize("sampler", [96, None, pf.UniformSampler])
def test_something_that_is_no_sampler_is_refused(small_cache, sampler):
    with pytest.raises(ArgumentError, match="must be a Sampler"):
        make_queue(small_cache, sampler)


def test_integers_of_numpy_and_torch_are_ints(small_cache, small_sampler):
    queue = make_queue(small_cache, small_sampler, batch_size=np.int64(3), num_workers=np.uint8(0))
    queue.set_epoch(np.int64(1))
    batch = next(iter(queue))
    again = queue.replay(torch.tensor(1), batch["index"][2])
    assert torch.equal(again["image"], batch["image"][2])
    assert again["index"] == 2
    for epoch in (-1, 1.5):
        with pytest.raises(ArgumentError, match="epoch"):
            queue.dataset.set_epoch(epoch)
    for index in (1.0, True, "1", -1, 20):
        with pytest.raises(ArgumentError, match="index"):
            queue.replay(0, index)


def test_a_state_that_is_none_is_refused_and_changes_nothing(small_cache, small_sampler):
    queue = make_queue(small_cache, small_sampler)
    state = queue.state_dict()
    lacking = {name: value for name, value in state.items() if name != "taken"}
    changes = ({"taken": 21}, {"taken": -1}, {"epoch": 3, "taken": "1"}, {"epoch": 1.0})
    for bad in (None, {}, lacking, *({**state, **change} for change in changes)):
        with pytest.raises(ArgumentError, match="state"):
            queue.load_state_dict(bad)
        assert queue.state_dict() == state


def test_the_folder_of_a_cache_is_a_cache(small_cache, small_sampler, tmp_path):
    expected = next(iter(make_queue(small_cache, small_sampler)))
    for folder in (small_cache.folder, str(small_cache.folder)):
        assert torch.equal(next(iter(make_queue(folder, small_sampler)))["image"], expected["image"])
    with pytest.raises(CacheError, match="nothing here"):
        make_queue(tmp_path / "nothing here", small_sampler)
    with pytest.raises(ArgumentError, match="is built already"):
        make_queue(small_cache.folder, small_sampler, preprocess=pf.Pipeline())
    with pytest.raises(ArgumentError, match="the folder of one, or a list of subjects, not 3"):
        make_queue(3, small_sampler)


def test_a_dataloader_over_a_queue_is_told_what_to_take(small_cache, small_sampler):
    queue = make_queue(small_cache, small_sampler)
    message = r"iterated over.*for batch in queue.*DataLoader\(queue\.dataset"
    with pytest.raises(ArgumentError, match=message):
        next(iter(DataLoader(queue)))
    with pytest.raises(ArgumentError, match=message):
        queue[0]
    batches = list(queue)  # as before
    assert len(batches) == len(queue)
    queue.set_epoch(0)
    loaded = list(DataLoader(queue.dataset, batch_size=3))
    assert [batch["index"].tolist() for batch in loaded] == [batch["index"].tolist() for batch in batches]
    assert torch.equal(loaded[-1]["image"], batches[-1]["image"])


class Shifts(pf.augment.IntensityTransform):
    def __init__(self, drawn):
        super().__init__()
        self.drawn = drawn

    def draw(self, rng, context):
        return {"offset": self.drawn, "plain": [1, 2.5, None, True, "a", {"b": (1, 2)}]}

    def apply(self, patch, parameters, context):
        return patch + float(parameters["offset"])


def test_a_history_that_could_not_be_saved_is_refused(small_cache, small_sampler):
    for drawn, told in ((np.int64(3), "int64"), (np.bool_(True), "bool"), (torch.tensor(2.0), "Tensor"), (float("inf"), "float")):
        next(iter(make_queue(small_cache, small_sampler, transform=[Shifts(3)], history=True)))
        queue = make_queue(small_cache, small_sampler, transform=[Shifts(drawn)], history=True)
        with pytest.raises(WorkerError, match=r"Shifts drew the parameter \['image'\]\['offset'\] as .*" + told):
            next(iter(queue))
