"""Law 1: the patch at (seed, epoch, index) depends on nothing else."""

import json

import numpy as np
import pytest
import torch
from patch_transforms import add_from_global_state, add_uniform
from torch.utils.data import DataLoader

import patchflow as pf
from patchflow import seeding


def recipe():
    return pf.Recipe(
        [
            pf.augment.RandomFlip(axes=(0, 1, 2)),
            pf.augment.RandomAffine(degrees=15, p=0.5),
            pf.augment.RandomNoise(std=(0, 0.1), p=0.5),
            pf.augment.RandomGamma(p=0.5),
            pf.augment.RandomBrightness(p=0.5),
            add_uniform,
        ]
    )


def make_queue(small_cache, **arguments):
    sampler = pf.LabelSampler(patch_size=(8, 6, 10), label="label", probabilities={0: 1, 1: 1, 2: 2})
    arguments = {"samples_per_volume": 5, "batch_size": 3, "transform": recipe(), "seed": 7} | arguments
    return pf.Queue(small_cache, sampler, **arguments)


def copies(batches):
    return [{key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in batch.items()} for batch in batches]


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            if isinstance(one[key], torch.Tensor):
                assert one[key].dtype == other[key].dtype
                assert torch.equal(one[key], other[key]), key
            else:
                assert one[key] == other[key], key


@pytest.fixture(scope="module")
def reference(small_cache):
    queue = make_queue(small_cache)
    return [copies(queue), copies(queue)]


def test_epochs_and_seeds_differ_and_come_again(small_cache, reference):
    assert not torch.equal(reference[0][0]["image"], reference[1][0]["image"])
    other = make_queue(small_cache, seed=8)
    assert not torch.equal(next(iter(other))["image"], reference[0][0]["image"])
    queue = make_queue(small_cache)
    queue.set_epoch(1)
    assert_same(copies(queue), reference[1])


@pytest.mark.parametrize(
    ("workers", "kind", "start"),
    [
        (1, "thread", None),
        (2, "thread", None),
        (4, "thread", None),
        (1, "process", "fork"),
        (2, "process", "fork"),
        (4, "process", "fork"),
        (2, "process", "spawn"),
        (1, "process", "forkserver"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_batches_are_bit_identical_for_every_number_and_kind_of_workers(small_cache, reference, workers, kind, start):
    queue = make_queue(small_cache, num_workers=workers, worker_kind=kind, start_method=start, persistent_workers=True)
    with queue:
        assert_same(copies(queue), reference[0])
        assert_same(copies(queue), reference[1])


@pytest.mark.parametrize("preset", ["nnunet", "mri", "ct"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_presets_are_bit_identical_for_every_kind_of_workers(small_cache, preset):
    """Statistics of patches, filters and memory that threads keep from patch to patch included."""
    settings = {"transform": pf.augment.load_recipe(preset, (8, 6, 10)), "samples_per_volume": 12, "history": True}
    plain = copies(make_queue(small_cache, **settings))
    assert_same(copies(make_queue(small_cache, **settings, num_workers=3)), plain)
    assert_same(copies(make_queue(small_cache, **settings, num_workers=2, worker_kind="process", start_method="fork")), plain)
    drawn = {step["transform"] for batch in plain for history in batch["history"] for step in history["steps"] if step["parameters"]}
    assert len(drawn) >= 6


@pytest.mark.parametrize("step", [0, 1, 3, 6])
def test_a_run_resumed_at_any_step_goes_on_with_the_very_next_batch(small_cache, reference, step):
    first = make_queue(small_cache, num_workers=2)
    batches = iter(first)
    for _ in range(step):
        next(batches)
    state = json.dumps(first.state_dict())
    assert len(state) < 400
    batches.close()
    second = make_queue(small_cache, num_workers=2, worker_kind="process", start_method="fork")
    second.load_state_dict(json.loads(state))
    assert_same(copies(second), reference[0][step:])
    assert_same(copies(second), reference[1])


def test_the_set_of_patches_in_a_step_is_the_same_for_every_world_size(small_cache):
    alone = copies(make_queue(small_cache, batch_size=4))
    ranks = [copies(make_queue(small_cache, batch_size=2, rank=rank, world_size=2)) for rank in range(2)]
    assert len(alone) == len(ranks[0]) == len(ranks[1])
    for step, batch in enumerate(alone):
        joined = torch.cat([rank[step]["image"] for rank in ranks])
        assert torch.equal(joined, batch["image"])
        assert torch.cat([rank[step]["index"] for rank in ranks]).tolist() == batch["index"].tolist()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_dataloader_gives_the_same_patches(small_cache, reference, workers):
    dataset = make_queue(small_cache).dataset
    for epoch in range(2):
        dataset.set_epoch(epoch)
        assert_same(list(DataLoader(dataset, batch_size=3, num_workers=workers)), reference[epoch])


def test_replay_makes_the_same_patch_again_with_its_parameters(small_cache, reference):
    queue = make_queue(small_cache)
    batch = reference[1][2]
    sample = queue.replay(1, int(batch["index"][1]))
    assert torch.equal(sample["image"], batch["image"][1])
    assert torch.equal(sample["label"], batch["label"][1])
    assert sample["location"].tolist() == batch["location"][1].tolist()
    assert sample["subject"] == batch["subject"][1]
    assert json.loads(json.dumps(sample["parameters"])) == sample["parameters"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_function_that_draws_from_global_state_is_made_deterministic_and_leaves_that_state_alone(small_cache):
    queue = make_queue(small_cache, transform=add_from_global_state)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    plain = copies(queue)
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])
    np.random.seed(99)
    torch.manual_seed(99)
    workers = make_queue(small_cache, transform=add_from_global_state, num_workers=2, worker_kind="process", start_method="fork")
    assert_same(copies(workers), plain)
    offsets = {float(batch["image"][row].mean()) for batch in plain for row in range(len(batch["index"]))}
    assert len(offsets) == 20, "each patch has random numbers of its own"


def test_patches_do_not_depend_on_what_ran_before(small_cache, reference):
    queue = make_queue(small_cache)
    rng = seeding.generator(0)
    for index in rng.permutation(20)[:6]:
        queue.dataset[int(index)]
    later = copies(queue)
    assert_same(later, reference[0])
