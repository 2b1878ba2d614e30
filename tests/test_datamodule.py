"""Training through Lightning: which batches come, and that none is skipped or repeated however a run is interrupted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from lightning_runs import KNOWN_WARNINGS, Mixer, Recorder, fingerprint, quiet_trainer
from patch_transforms import add_uniform
from small_subjects import make_subjects

import patchflow as pf

pytestmark = [
    *KNOWN_WARNINGS,
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]
SIZE = (8, 6, 10)
STEPS = 7  # 4 subjects x 5 patches, 3 to a batch: the last batch is smaller


def module(cache, sampler, **settings):
    given = {
        "sampler": sampler,
        "transform": [add_uniform],
        "batch_size": 3,
        "samples_per_volume": 5,
        "seed": 3,
        "patch_size": 16,
        **settings,
    }
    return pf.PatchDataModule(cache, **given)


@pytest.fixture(scope="module")
def expected(small_cache):
    """The batches of epochs 0 to 3."""
    sampler = pf.LabelSampler(patch_size=SIZE, label="label", probabilities={0: 1, 1: 1, 2: 2})
    queue = pf.Queue(small_cache, sampler, transform=[add_uniform], batch_size=3, samples_per_volume=5, seed=3)
    batches = [fingerprint(batch) for _ in range(4) for batch in queue]
    assert len(set(batches)) == 4 * STEPS
    return batches


@pytest.fixture
def every_step(tmp_path):
    return ModelCheckpoint(tmp_path / "steps", "{step}", every_n_train_steps=1, save_top_k=-1, save_on_train_epoch_end=False)


def fit(folder, data, model=None, ckpt_path=None, **settings):
    model = Recorder() if model is None else model
    trainer = quiet_trainer(folder, **settings)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    return model, trainer


def test_each_epoch_is_an_epoch_of_the_queue(tmp_path, small_cache, small_sampler, expected):
    model, trainer = fit(tmp_path, module(small_cache, small_sampler), max_epochs=3)
    assert model.trained == expected[: 3 * STEPS]
    assert trainer.global_step == 3 * STEPS


@pytest.mark.parametrize("val", [True, False], ids=["val", "no val"])
@pytest.mark.parametrize("workers", [{"num_workers": 2}, {"num_workers": 2, "worker_kind": "process"}], ids=["threads", "processes"])
def test_resumed_at_any_step_the_very_next_batch_comes(tmp_path, small_cache, small_sampler, expected, every_step, val, workers):
    val = small_cache if val else None
    whole, _ = fit(tmp_path, module(small_cache, small_sampler, val=val), callbacks=[every_step], max_epochs=2)
    assert whole.trained == expected[: 2 * STEPS]
    for step in (1, 3, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS - 1):
        data = module(small_cache, small_sampler, val=val, **workers)
        model, _ = fit(tmp_path, data, ckpt_path=tmp_path / "steps" / f"step={step}.ckpt", max_epochs=2)
        assert model.trained == expected[step : 2 * STEPS], f"resumed after step {step}"
        for name, value in whole.state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), f"{name} after step {step}"


@pytest.mark.filterwarnings("ignore:.*was called without a model", 'ignore:.*ckpt_path="last". is set')
@pytest.mark.parametrize("fail_at", [0, 2, STEPS - 1, STEPS, STEPS + 3])
def test_a_batch_whose_training_step_raised_comes_again(tmp_path, small_cache, small_sampler, expected, fail_at):
    save = OnExceptionCheckpoint(tmp_path)
    with pytest.raises(RuntimeError, match="out of memory, say"):
        fit(tmp_path, module(small_cache, small_sampler, num_workers=1), Recorder(fail_at), callbacks=[save], max_epochs=2)
    model, _ = fit(tmp_path, module(small_cache, small_sampler), ckpt_path=save.ckpt_path, max_epochs=2)
    assert model.trained == expected[fail_at : 2 * STEPS]


@pytest.mark.parametrize("val", [True, False], ids=["val", "no val"])
@pytest.mark.parametrize("stop", [2, STEPS, STEPS + 2])
def test_a_run_that_stopped_at_a_number_of_steps_goes_on_with_more(tmp_path, small_cache, small_sampler, expected, stop, val):
    val = small_cache if val else None
    first, trainer = fit(tmp_path, module(small_cache, small_sampler, val=val), max_steps=stop)
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    data = module(small_cache, small_sampler, val=val, num_workers=1)
    second, _ = fit(tmp_path, data, ckpt_path=tmp_path / "stopped.ckpt", max_steps=3 * STEPS)
    assert first.trained + second.trained == expected[: 3 * STEPS]


def test_a_run_that_stopped_at_a_number_of_steps_goes_on_by_epochs(tmp_path, small_cache, small_sampler, expected):
    _, trainer = fit(tmp_path, module(small_cache, small_sampler), max_steps=2)
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    second, _ = fit(tmp_path, module(small_cache, small_sampler, val=small_cache), ckpt_path=tmp_path / "stopped.ckpt", max_epochs=3)
    assert second.trained == expected[2 : 2 + len(second.trained)]
    assert len(second.trained) == 2 * STEPS  # Lightning counts the epoch that was left as one
    assert {epoch for epoch, _, _ in second.validated} >= {1, 2}


def test_a_checkpoint_of_the_end_of_an_epoch(tmp_path, small_cache, small_sampler, expected):
    save = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    fit(tmp_path, module(small_cache, small_sampler), callbacks=[save], max_epochs=2)
    model, _ = fit(tmp_path, module(small_cache, small_sampler, num_workers=1), ckpt_path=tmp_path / "epoch=0.ckpt", max_epochs=3)
    assert model.trained == expected[STEPS : 3 * STEPS]


def test_limited_epochs_go_on_where_the_one_before_stopped(tmp_path, small_cache, small_sampler, expected, every_step):
    settings = {"limit_train_batches": 3, "max_epochs": 4}
    whole, _ = fit(tmp_path, module(small_cache, small_sampler), callbacks=[every_step], **settings)
    assert whole.trained == expected[:12]
    for step in (2, 3, 8):
        path = tmp_path / "steps" / f"step={step}.ckpt"
        model, _ = fit(tmp_path, module(small_cache, small_sampler, num_workers=1), ckpt_path=path, **settings)
        assert model.trained == expected[step:12]


def test_validation_in_mid_epoch_and_reloaded_dataloaders_do_not_disturb_training(tmp_path, small_cache, small_sampler, expected):
    data = module(small_cache, small_sampler, val=small_cache, val_mode="queue", num_workers=1)
    model, _ = fit(tmp_path, data, val_check_interval=2, reload_dataloaders_every_n_epochs=1, max_epochs=3)
    assert model.trained == expected[: 3 * STEPS]


def test_a_second_fit_of_the_same_trainer_goes_on(tmp_path, small_cache, small_sampler, expected):
    data = module(small_cache, small_sampler)
    model, trainer = fit(tmp_path, data, max_epochs=1)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, datamodule=data)
    assert model.trained == expected[: 2 * STEPS]
    other, _ = fit(tmp_path, data, max_epochs=1)  # another trainer begins anew
    assert other.trained == expected[:STEPS]


def test_validating_from_a_checkpoint_does_not_move_the_training(tmp_path, small_cache, small_sampler, expected):
    data = module(small_cache, small_sampler, val=small_cache)
    model, trainer = fit(tmp_path, data, max_steps=2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    quiet_trainer(tmp_path).validate(model, datamodule=data, ckpt_path=tmp_path / "a.ckpt", verbose=False)
    again, _ = fit(tmp_path, data, max_steps=2)
    assert again.trained == expected[:2]


def test_overfit_batches_are_the_same_in_every_epoch(tmp_path, small_cache, small_sampler, expected):
    data = module(small_cache, small_sampler, val=small_cache, val_mode="queue")
    model, _ = fit(tmp_path, data, overfit_batches=2, max_epochs=3)
    assert model.trained == expected[:2] * 3


def test_a_state_of_another_run_is_refused(tmp_path, small_cache, small_sampler):
    _, trainer = fit(tmp_path, module(small_cache, small_sampler), max_steps=2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(pf.ArgumentError, match="cannot be resumed: its seed is 3, this queue's is 4"):
        fit(tmp_path, module(small_cache, small_sampler, seed=4), ckpt_path=tmp_path / "a.ckpt", max_steps=4)


def test_the_grid_gives_every_window_once(tmp_path, small_cache, small_sampler):
    data = module(small_cache, small_sampler, val=small_cache, patch_size=SIZE, patch_overlap=(2, 0, 4), num_workers=1)
    model, _ = fit(tmp_path, data, max_epochs=2, num_sanity_val_steps=0)
    for epoch in range(2):
        seen = [
            (name, tuple(box)) for e, (_, names, _), boxes in model.validated if e == epoch for name, box in zip(names, boxes, strict=True)
        ]
        grids = [pf.GridSampler(entry, SIZE, (2, 0, 4)) for entry in small_cache]
        assert seen == [(grid.name, tuple(box)) for grid in grids for box in grid.locations.tolist()]


def test_the_grid_gives_the_values_of_the_windows(small_cache, small_sampler):
    data = module(small_cache, small_sampler, val=small_cache, patch_size=None, fill=-3)
    data.setup("validate")
    for batch in data.val_dataloader():
        for row, (name, box) in enumerate(zip(batch["subject"], batch["location"], strict=True)):
            location = pf.PatchLocation.from_array(box)
            assert (batch["image"][row].numpy() == small_cache[name].read("image", location, fill=-3)).all()
            assert (batch["label"][row].numpy() == small_cache[name].read("label", location)).all()
            assert pf.GridSampler(small_cache[name], SIZE).locations[batch["index"][row]].tolist() == box.tolist()


def test_a_validation_queue_gives_the_same_patches_each_time(tmp_path, small_cache, small_sampler):
    data = module(small_cache, small_sampler, val=small_cache, val_mode="queue", val_samples_per_volume=2, val_batch_size=4)
    model, _ = fit(tmp_path, data, max_epochs=3)
    by_epoch = [[print_ for e, print_, _ in model.validated if e == epoch] for epoch in range(3)]
    assert len(by_epoch[1]) == 2
    assert by_epoch[1] == by_epoch[2] == by_epoch[0][-2:]  # the sanity check came before, in epoch 0


def test_without_validation_subjects_there_is_no_validation(tmp_path, small_cache, small_sampler):
    model, _ = fit(tmp_path, module(small_cache, small_sampler), max_epochs=1)
    assert model.validated == []


def test_subjects_are_built_once_and_opened(tmp_path, small_sampler):
    subjects = make_subjects()
    data = pf.PatchDataModule(subjects[:3], subjects[3:], sampler=small_sampler, cache_dir=tmp_path / "c", samples_per_volume=1)
    model, _ = fit(tmp_path, data, max_epochs=1)
    assert pf.open_cache(tmp_path / "c" / "train").names == ("s0", "s1", "s2")
    assert pf.open_cache(tmp_path / "c" / "val").names == ("s3",)
    assert sorted(name for _, names, _ in model.trained for name in names) == ["s0", "s1", "s2"]
    built = (tmp_path / "c" / "train" / "entries").stat().st_mtime_ns
    from_folder = pf.PatchDataModule(tmp_path / "c" / "train", str(tmp_path / "c" / "val"), sampler=small_sampler, samples_per_volume=1)
    again, _ = fit(tmp_path, from_folder, max_epochs=1)
    assert again.trained == model.trained
    assert (tmp_path / "c" / "train" / "entries").stat().st_mtime_ns == built


def test_without_a_folder_the_users_cache_folder_is_used(tmp_path, small_sampler, monkeypatch):
    monkeypatch.setenv("PATCHFLOW_CACHE", str(tmp_path))
    data = pf.PatchDataModule(make_subjects(2), sampler=small_sampler, preprocess=pf.Pipeline([pf.preprocess.ZNormalize()]))
    data.prepare_data()
    data.setup("fit")
    assert data.train_cache.names == ("s0", "s1")
    assert data.train_cache.folder.parent == tmp_path


def test_the_queue_of_the_run_can_be_asked(tmp_path, small_cache, small_sampler, expected):
    data = module(small_cache, small_sampler)
    assert data.train_queue is None
    fit(tmp_path, data, max_steps=2)
    assert data.train_queue.stats().batches == 2
    assert len(data.train_dataloader()) == STEPS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": []}, "train must be a list of subjects, a cache, or the folder of a cache"),
        ({"train": 3}, "train must be a list of subjects"),
        ({"val": []}, "val must be a list of subjects"),
        ({"val_mode": "windows"}, 'val_mode must be "grid" or "queue"'),
        ({"train": "folder", "preprocess": pf.Pipeline([])}, "preprocess is for subjects, before they are cached"),
        ({"train": None}, "there are no subjects: give train, val or predict"),
        ({"train": "folder", "sampler": None}, "training needs a sampler"),
        ({"predict": "folder", "predict_overlap": 8.5}, "patch_overlap is counted in voxels"),
        ({"predict": "folder", "outside": "nothing"}, 'outside must be "constant"'),
        ({"predict": "folder", "sampler": None, "train": None}, "windows need a size: give patch_size="),
        ({"predict": 5}, "predict must be a list of subjects"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(small_sampler, settings, message):
    with pytest.raises(pf.ArgumentError, match=message):
        pf.PatchDataModule(**{"train": "folder", "sampler": small_sampler, **settings})


def test_prediction_alone_needs_neither_training_subjects_nor_a_sampler(tmp_path, small_cache):
    data = pf.PatchDataModule(predict=small_cache, patch_size=SIZE, batch_size=3, fill={"image": -3})
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert {len(batch["index"]) for batch in batches[:-1]} == {3}
    boxes = [(name, tuple(box)) for batch in batches for name, box in zip(batch["subject"], batch["location"].tolist(), strict=True)]
    grids = [pf.GridSampler(entry, SIZE, (4, 3, 5)) for entry in small_cache]
    assert boxes == [(grid.name, tuple(box)) for grid in grids for box in grid.locations.tolist()]
    with pytest.raises(pf.ArgumentError, match="no subjects to train: give train="):
        fit(tmp_path, data, max_epochs=1)
    with pytest.raises(pf.ArgumentError, match="no subjects to predict: give predict="):
        module(small_cache, pf.UniformSampler(8)).predict_dataloader()


def test_each_stage_builds_its_own_caches(tmp_path, small_sampler):
    subjects = make_subjects()
    given = {"sampler": small_sampler, "cache_dir": tmp_path / "c", "samples_per_volume": 1}
    data = pf.PatchDataModule(subjects[:2], subjects[2:3], predict=subjects[3:], **given)
    quiet_trainer(tmp_path).predict(Mixer(), data, return_predictions=False)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["predict"]
    assert data.predict_cache.names == ("s3",)
    assert data.train_cache is None
    fit(tmp_path, data, max_epochs=1)
    assert (data.train_cache.names, data.val_cache.names) == (("s0", "s1"), ("s2",))


def test_two_processes_under_ddp_share_each_step_and_resume(tmp_path, small_cache, small_sampler):
    support = Path(__file__).parent / "support"
    environment = {**os.environ, "PYTHONPATH": str(support), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(support / "ddp_run.py"), str(small_cache.folder), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    whole, first, second = (
        [json.loads((tmp_path / f"{name}.{r}.json").read_text()) for r in range(2)] for name in ("whole", "first", "second")
    )

    transform = pf.Recipe([pf.augment.RandomFlip(axes=(0, 1, 2))])
    queue = pf.Queue(small_cache, small_sampler, transform=transform, batch_size=4, samples_per_volume=5)
    steps = [fingerprint(batch)[:2] for _ in range(2) for batch in queue]  # of one process, with the same global batch
    assert [rank["length"] for rank in whole] == [5, 5]
    for rank in range(2):
        assert first[rank]["trained"] + second[rank]["trained"] == whole[rank]["trained"]
    for step, (indices, names) in enumerate(steps):
        a, b = (rank["trained"][step] for rank in whole)
        assert (a[0] + b[0], a[1] + b[1]) == (list(indices), list(names))
    assert whole[0]["weights"] == whole[1]["weights"] == second[0]["weights"]
    windows = [(entry.name, box) for entry in small_cache for box in pf.GridSampler(entry, 12).locations.tolist()]
    seen = [(name, box) for rank in whole for names, boxes in rank["validated"] for name, box in zip(names, boxes, strict=True)]
    assert sorted(seen) == sorted(windows * 2)  # two epochs, each window once, on one rank or the other


class Seen(Recorder):
    """Keeps the images of its batches."""

    def __init__(self):
        super().__init__()
        self.images = []

    def training_step(self, batch):
        self.images.append(batch["image"].clone())
        return super().training_step(batch)


def test_transforms_on_the_device_give_the_batches_of_the_workers(small_cache, small_sampler, tmp_path):
    recipe = pf.Recipe([pf.augment.RandomFlip(), pf.augment.RandomAffine(degrees=20), pf.augment.RandomNoise(std=(0, 0.1))])
    seen = []
    for augment_on, workers in (("worker", 0), ("device", 0), ("device", 2)):
        data = module(small_cache, small_sampler, transform=recipe, augment_on=augment_on, num_workers=workers)
        model, _ = fit(tmp_path, data, Seen(), max_epochs=1)
        seen.append(model)
    for model in seen[1:]:
        assert [numbers for numbers, _, _ in model.trained] == [numbers for numbers, _, _ in seen[0].trained]
        for made, expected in zip(model.images, seen[0].images, strict=True):
            assert (made - expected).abs().max() < 1e-3


def test_a_run_with_transforms_on_the_device_goes_on_in_mid_epoch(small_cache, small_sampler, tmp_path, every_step):
    recipe = pf.Recipe([pf.augment.RandomFlip(), pf.augment.RandomAffine(degrees=20)])
    settings = {"transform": recipe, "augment_on": "device", "num_workers": 2}
    whole, _ = fit(tmp_path, module(small_cache, small_sampler, **settings), max_epochs=1, callbacks=[every_step])
    resumed, _ = fit(tmp_path, module(small_cache, small_sampler, **settings), max_epochs=1, ckpt_path=tmp_path / "steps" / "step=3.ckpt")
    assert resumed.trained == whole.trained[3:]
