import gc
import json
import multiprocessing
import threading

import numpy as np
import pytest
import torch
from patch_transforms import add_from_global_state, nan, slow
from small_subjects import make_subjects

import patchflow as pf
from patchflow.errors import ArgumentError, MemoryBudgetError, SubjectError, UnknownNameError, WorkerError
from patchflow.loading.batch import Slots, batch_layout
from patchflow.loading.workers import Task


def make_queue(cache, sampler, **arguments):
    return pf.Queue(cache, sampler, **({"samples_per_volume": 5, "batch_size": 3, "seed": 7} | arguments))


def test_a_batch_holds_the_voxels_at_its_locations(small_cache, small_sampler):
    seen = []
    for batch in make_queue(small_cache, small_sampler, num_workers=2):
        assert batch["image"].shape[1:] == (2, 8, 6, 10)
        assert batch["image"].dtype == torch.float32
        assert batch["label"].dtype == torch.uint8
        for row, name in enumerate(batch["subject"]):
            location = pf.PatchLocation.from_array(batch["location"][row])
            assert (batch["image"][row].numpy() == small_cache[name].read("image", location)).all()
            assert (batch["label"][row].numpy() == small_cache[name].read("label", location)).all()
        seen += batch["index"].tolist()
    assert seen == list(range(20))


def test_length_with_and_without_the_last_batch(small_cache, small_sampler):
    assert len(make_queue(small_cache, small_sampler)) == 7
    assert [len(batch["index"]) for batch in make_queue(small_cache, small_sampler)] == [3] * 6 + [2]
    queue = make_queue(small_cache, small_sampler, drop_last=True)
    assert len(queue) == 6
    assert [len(batch["index"]) for batch in queue] == [3] * 6


def test_keys_choose_the_images(small_cache, small_sampler):
    batch = next(iter(make_queue(small_cache, small_sampler, keys=("label",))))
    assert set(batch) == {"label", "location", "index", "subject"}
    with pytest.raises(UnknownNameError, match=r"s0.*'t2'.*'image', 'label'"):
        make_queue(small_cache, small_sampler, keys=("t2",))


def test_a_patch_larger_than_the_volume_is_filled_with_the_value_given(small_cache):
    batch = next(iter(make_queue(small_cache, pf.UniformSampler(32), fill={"image": -3.0, "label": 255})))
    inside = pf.PatchLocation.from_array(batch["location"][0]).overlap(small_cache[batch["subject"][0]].shape)
    mask = torch.ones(32, 32, 32, dtype=torch.bool)
    mask[inside.patch] = False
    assert (batch["image"][0][:, mask] == -3).all()
    assert (batch["label"][0][:, mask] == 255).all()
    assert (batch["label"][0][:, ~mask] <= 2).all()


def test_every_iteration_is_the_next_epoch_also_after_one_that_was_left_early(small_cache, small_sampler):
    queue = make_queue(small_cache, small_sampler)
    epochs = []
    for _ in range(3):
        iter(queue)  # an iterator that is never used does not count
        for _batch in queue:
            epochs.append(queue.state_dict()["epoch"])
            break
    assert epochs == [0, 1, 2]
    fixed = make_queue(small_cache, small_sampler, repeat_epoch=True)
    first = [batch["image"].clone() for batch in fixed]
    assert all(torch.equal(one, batch["image"]) for one, batch in zip(first, fixed, strict=True))


def test_the_state_after_the_last_batch_is_the_beginning_of_the_next_epoch(small_cache, small_sampler):
    queue = make_queue(small_cache, small_sampler)
    for _ in queue:
        pass
    assert (queue.state_dict()["epoch"], queue.state_dict()["taken"]) == (1, 0)
    other = make_queue(small_cache, small_sampler)
    other.load_state_dict(json.loads(json.dumps(queue.state_dict())))
    assert torch.equal(next(iter(other))["image"], next(iter(queue))["image"])


def test_the_state_of_another_run_is_refused(small_cache, small_sampler):
    state = make_queue(small_cache, small_sampler).state_dict()
    for arguments, what in (
        ({"seed": 8}, "seed is 7, this queue's is 8"),
        ({"samples_per_volume": 6}, "number of patches"),
        ({"shuffle": False}, "plan"),
        ({"transform": [pf.augment.RandomFlip()]}, "plan"),
    ):
        with pytest.raises(ArgumentError, match=what):
            make_queue(small_cache, small_sampler, **arguments).load_state_dict(state)
    with pytest.raises(ArgumentError, match="plan"):
        make_queue(small_cache, pf.UniformSampler(8)).load_state_dict(state)


@pytest.mark.parametrize("kind", ["thread", "process"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_batches_that_the_consumer_keeps_are_never_written_again(small_cache, small_sampler, kind):
    queue = make_queue(small_cache, small_sampler, batch_size=1, num_workers=2, worker_kind=kind, start_method=None)
    kept = list(queue)
    again = {int(batch["index"][0]): batch["image"].clone() for batch in make_queue(small_cache, small_sampler, batch_size=1)}
    assert len(kept) == 20
    assert all(torch.equal(batch["image"], again[int(batch["index"][0])]) for batch in kept)


def test_slots_are_used_again_once_the_consumer_lets_go(small_cache, small_sampler):
    queue = make_queue(small_cache, small_sampler, batch_size=1, num_workers=2, prefetch=2)
    addresses = [batch["image"].data_ptr() for batch in queue]
    assert len(set(addresses)) <= 4, "two made ahead and two with the consumer"
    view = None
    for number, batch in enumerate(make_queue(small_cache, small_sampler, batch_size=1)):
        if number == 3:
            view, value = batch["image"][0, 0, 2], batch["image"][0, 0, 2].clone()
    assert torch.equal(view, value), "a view of a view keeps its slot"


def test_slots_beyond_those_in_flight_go_once_the_consumer_lets_go(small_cache, small_sampler):
    layout = batch_layout(small_cache, small_sampler.patch_size, 1)
    slots = Slots(layout, count=3)
    kept = [slots.hand_over(slots.take(), 1, needed=1) for _ in range(8)]
    assert len({batch["image"].data_ptr() for batch in kept}) == 8
    for number, batch in enumerate(kept):
        batch["image"].fill_(number)
    assert [float(batch["image"].mean()) for batch in kept] == list(range(8))
    kept.clear()
    del batch
    assert sum(storage.numel() > 0 for storage in slots.storages) == 3
    again = [slots.hand_over(slots.take(), 1, needed=1) for _ in range(8)]
    assert len(slots.storages) == 9, "the places of slots that went are used again"
    assert len({batch["image"].data_ptr() for batch in again}) == 8


def test_slots_that_are_being_written_count_among_those_in_flight(small_cache, small_sampler):
    slots = Slots(batch_layout(small_cache, small_sampler.patch_size, 1), count=3)
    kept = [slots.hand_over(slots.take(), 1, needed=2) for _ in range(8)]
    slots.take(), slots.take()
    kept.clear()
    assert sum(storage.numel() > 0 for storage in slots.storages) == 3


def test_label_maps_of_different_dtypes_share_a_batch(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 3, (12, 12, 12))
    images = {"a": voxels.astype(np.uint8), "b": voxels.astype(np.int16) - 300}
    subjects = [pf.Subject(name, label=pf.LabelMap(labels)) for name, labels in images.items()]
    transforms = [pf.augment.RandomAffine(degrees=0, scales=(1, 1), translation=(0.6, 0.6), p=0.5)]
    queue = pf.Queue(subjects, pf.UniformSampler(12), transform=transforms, cache_folder=tmp_path, batch_size=4)
    loader = torch.utils.data.DataLoader(queue.dataset, batch_size=4)
    for batch, same in zip(queue, loader, strict=True):
        assert batch["label"].dtype == same["label"].dtype == torch.int16
        assert torch.equal(batch["label"], same["label"])
        for name, labels in zip(batch["subject"], batch["label"].numpy(), strict=True):
            shifted = np.zeros_like(images[name])
            shifted[1:, 1:, 1:] = images[name][:-1, :-1, :-1]
            assert (labels[0] == images[name]).all() or (labels[0] == shifted).all()
    assert queue.replay(0, 0)["label"].dtype == torch.int16


def test_workers_may_be_closed_in_a_thread_of_their_own(small_cache, small_sampler):
    closed = threading.Event()

    def close(sample, rng):  # as the garbage collector does there with an iteration that was dropped
        workers.close()
        closed.set()
        return sample

    queue = make_queue(small_cache, small_sampler, num_workers=2, transform=close)
    slots, workers = queue._start()
    workers.submit(Task(queue.plan.request(0, 0), slots.take(), 0))
    assert closed.wait(20)
    for thread in workers._threads:
        thread.join(20)
        assert not thread.is_alive()


def test_leaving_early_leaves_no_worker_behind(small_cache, small_sampler):
    threads = threading.active_count()
    for kind, method in (("thread", None), ("process", "spawn")):
        for _ in (
            make_queue(small_cache, small_sampler, transform=slow, num_workers=2, worker_kind="process", start_method="spawn")
            if (kind == "process")
            else make_queue(small_cache, small_sampler, num_workers=2)
        ):
            break
        gc.collect()
        assert threading.active_count() <= threads, (kind, method)
        assert multiprocessing.active_children() == []


def test_a_queue_dropped_with_persistent_workers_leaves_none_behind(small_cache, small_sampler):
    threads = threading.active_count()
    queue = make_queue(small_cache, small_sampler, num_workers=2, persistent_workers=True)
    for _ in queue:
        pass
    assert threading.active_count() == threads + 2
    del queue
    gc.collect()
    assert threading.active_count() == threads


@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_that_returns_nan_ends_the_run_naming_subject_and_patch(small_cache, small_sampler, workers):
    with pytest.raises(WorkerError, match=r"patch \d+ of epoch 0 \(subject 's\d'\).*nan"):
        list(make_queue(small_cache, small_sampler, transform=nan, num_workers=workers))


def test_global_random_state_is_not_shared_among_threads(small_cache, small_sampler):
    with pytest.raises(ArgumentError, match=r"\(sample, rng\)"):
        make_queue(small_cache, small_sampler, transform=add_from_global_state, num_workers=2)


def test_a_memory_budget_is_kept_and_told(small_cache, small_sampler, caplog):
    nbytes = make_queue(small_cache, small_sampler).bytes_in_flight // 3
    queue = make_queue(small_cache, small_sampler, num_workers=2, prefetch=9, memory_budget=6 * nbytes)
    assert queue.prefetch == 4
    assert queue.bytes_in_flight == 6 * nbytes
    assert "6 batches" in caplog.text
    with pytest.raises(MemoryBudgetError, match=f"least that works is {3 * nbytes} bytes"):
        make_queue(small_cache, small_sampler, memory_budget=3 * nbytes - 1)
    assert make_queue(small_cache, small_sampler, memory_budget=3 * nbytes).prefetch == 1
    assert make_queue(small_cache, small_sampler, memory_budget="2GiB", prefetch=3).prefetch == 3
    for text in ("2 furlongs", "GiB", 0, True, 1.5):
        with pytest.raises(ArgumentError, match="memory_budget"):
            make_queue(small_cache, small_sampler, memory_budget=text)


def test_stats_account_for_the_time_and_name_the_bottleneck(small_cache, small_sampler):
    queue = make_queue(small_cache, small_sampler, transform=[pf.augment.RandomNoise(p=1.0), slow_with_rng])
    for _ in queue:
        pass
    stats = queue.stats()
    assert stats.patches == 20
    assert stats.batches == 7
    assert {"draw", "read", "RandomNoise", "slow_with_rng"} <= set(stats.stages)
    assert stats.stages["slow_with_rng"] >= 20 * 0.01
    assert sum(stats.stages.values()) <= stats.starved
    assert stats.bottleneck.endswith("slow_with_rng")
    assert set(stats.class_shares) <= {0, 1, 2}
    assert sum(stats.class_shares.values()) == pytest.approx(1)
    assert "slow_with_rng" in str(stats)


def slow_with_rng(sample, rng):
    return slow(sample, rng)


def test_subjects_are_cached_in_the_folder_given_or_the_users_and_used_again(tmp_path, small_sampler, monkeypatch, caplog):
    subjects = make_subjects(2)
    queue = pf.Queue(subjects, small_sampler, cache_folder=tmp_path / "mine")
    assert str(tmp_path / "mine") in caplog.text
    made = (tmp_path / "mine" / "entries" / "s0.h5").stat()
    pf.Queue(subjects, small_sampler, cache_folder=tmp_path / "mine")
    assert (tmp_path / "mine" / "entries" / "s0.h5").stat().st_ino == made.st_ino
    monkeypatch.setenv("PATCHFLOW_CACHE", str(tmp_path / "users"))
    other = pf.Queue(subjects, small_sampler)
    assert other.cache.folder.parent == tmp_path / "users"
    assert torch.equal(next(iter(queue))["image"], next(iter(other))["image"])


def test_the_state_of_a_run_on_other_voxels_is_refused(tmp_path, small_sampler):
    states = []
    for seed in (0, 1):
        queue = pf.Queue(make_subjects(2, seed), small_sampler, cache_folder=tmp_path / str(seed))
        states.append(queue.state_dict())
    with pytest.raises(ArgumentError, match="their files"):
        queue.load_state_dict(states[0])
    queue.load_state_dict(states[1])


def test_images_that_differ_between_subjects_are_refused(tmp_path, small_sampler):
    subjects = make_subjects(2)
    shape = subjects[1].shape
    odd = pf.Subject("odd", image=pf.ScalarImage(np.zeros(shape, np.int16)), label=subjects[1]["label"])
    with pytest.raises(SubjectError, match=r"'odd'.*1 channels.*'s0'.*2"):
        pf.Queue([subjects[0], odd], small_sampler, cache_folder=tmp_path / "a")
    more = pf.Subject("more", image=subjects[1]["image"], label=subjects[1]["label"], t2=pf.ScalarImage(np.zeros(shape, np.int16)))
    with pytest.raises(SubjectError, match="keys="):
        pf.Queue([subjects[0], more], small_sampler, cache_folder=tmp_path / "b")
    pf.Queue([subjects[0], more], small_sampler, cache_folder=tmp_path / "b", keys=("image",))


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"samples_per_volume": 0}, "samples_per_volume"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.0}, "batch_size"),
        ({"num_workers": -1}, "num_workers"),
        ({"worker_kind": "fiber"}, "worker_kind"),
        ({"seed": -1}, "seed"),
        ({"rank": 1}, "world_size"),
        ({"rank": 2, "world_size": 2}, "rank"),
        ({"drop_last": True, "batch_size": 21}, "drop_last"),
        ({"subject_weights": [1, 2, 3]}, "subject_weights"),
        ({"subject_weights": [1, 2, 3, -1]}, "subject_weights"),
        ({"prefetch": 0}, "prefetch"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_when_the_queue_is_made(small_cache, small_sampler, arguments, what):
    with pytest.raises(ArgumentError, match=what):
        make_queue(small_cache, small_sampler, **arguments)


def test_something_that_is_no_cache_is_refused(small_sampler):
    for source in ([], {"a": 1}, [1, 2], None):
        with pytest.raises(ArgumentError, match="cache"):
            pf.Queue(source, small_sampler)


def test_no_slots_are_pinned_without_a_device(small_cache, small_sampler):
    assert make_queue(small_cache, small_sampler).pin_memory is torch.cuda.is_available()
