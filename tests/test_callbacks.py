"""Whole volumes through Lightning: written by `trainer.predict`, scored while a network is trained."""

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning_runs import KNOWN_WARNINGS, Mixer, quiet_trainer
from small_subjects import make_subjects

import patchflow as pf

pytestmark = [
    *KNOWN_WARNINGS,
    pytest.mark.filterwarnings("ignore:predict returned None"),
    pytest.mark.filterwarnings("ignore:Total length of .* across ranks is zero"),
]
SIZE = (8, 6, 10)
NAMES = {1: "liver", 2: "spleen"}


def batches(cache, **settings):
    return pf.PatchDataModule(predict=cache, **{"patch_size": SIZE, "predict_batch_size": 4, **settings})


def predict(folder, data, model=None, **settings):
    """Predict into folder/out; gives the model."""
    model = Mixer() if model is None else model
    writer = pf.PredictionWriter(folder / "out", **settings)
    result = quiet_trainer(folder, callbacks=[writer]).predict(model, data, return_predictions=False)
    assert result is None
    return model


def volume(path):
    return np.asanyarray(nib.load(path).dataobj)


def expected(entry, **settings):
    given = {"patch_size": SIZE, "batch_size": 4, "progress": False, **settings}
    return pf.predict(Mixer(), entry, **given).numpy()


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_files_are_those_of_predict(tmp_path, small_cache, average):
    model = predict(tmp_path, batches(small_cache), label_names=NAMES, average=average)
    assert {len(names) for names in model.seen[:-1]} == {4}
    assert any(len(set(names)) == 2 for names in model.seen)  # batches reach from one subject into the next
    for entry in small_cache:
        file = pf.predict(Mixer(), entry, patch_size=SIZE, average=average, path=tmp_path / "one.nii.gz", progress=False, label_names=NAMES)
        assert (tmp_path / "out" / f"{entry.name}.nii.gz").read_bytes() == file.read_bytes()
        record = json.loads((tmp_path / "out" / f"{entry.name}.json").read_text())
        assert record["labels"] == {"1": "liver", "2": "spleen"}
        assert record["made_with"]["patch_size"] == list(SIZE)
    assert len(list((tmp_path / "out").iterdir())) == 2 * len(small_cache)


def test_several_outputs_scales_and_grids(tmp_path, small_cache):
    class Two(Mixer):
        def predict_step(self, batch):
            logits = self(batch["image"])
            return {"tissue": logits, "coarse": torch.nn.functional.avg_pool3d(logits, 2)}

    entry = small_cache[0]
    finer = pf.LabelMap(np.zeros((1, 28, 34, 24), np.uint8), entry.affine @ np.diag([0.5, 0.5, 0.5, 1]))
    settings = {"output": {"tissue": "labels", "coarse": "probabilities"}, "scale": {"tissue": 1, "coarse": "1/2"}}
    predict(tmp_path, batches(small_cache.subset([entry.name])), Two(), suffix=".nii", grids={entry.name: finer}, **settings)

    def two(image):
        logits = Mixer().eval()(image)
        return {"tissue": logits, "coarse": torch.nn.functional.avg_pool3d(logits, 2)}

    paths = {name: tmp_path / f"{name}.nii" for name in ("tissue", "coarse")}
    with torch.inference_mode():
        pf.predict(two, entry, patch_size=SIZE, batch_size=4, grid=finer, path=paths, progress=False, **settings)
    for name, path in paths.items():
        assert volume(tmp_path / "out" / f"s0_{name}.nii").shape[:3] == (28, 34, 24)
        assert (tmp_path / "out" / f"s0_{name}.nii").read_bytes() == path.read_bytes()


def test_predictions_go_back_to_the_grids_of_the_sources(tmp_path):
    subjects = make_subjects(2)
    pipeline = pf.Pipeline([pf.preprocess.Resample(spacing=(1.2, 1.7, 0.9)), pf.preprocess.CropOrPad((14, 15, 16))])
    cache = pf.build_cache(subjects, tmp_path / "cache", preprocess=pipeline, progress=False)
    predict(tmp_path, batches(cache), grids="native")
    for subject, entry in zip(subjects, cache, strict=True):
        file = nib.load(tmp_path / "out" / f"{entry.name}.nii.gz")
        assert file.shape == subject.shape != entry.shape
        np.testing.assert_allclose(file.affine, subject.affine, atol=1e-5)
        np.testing.assert_array_equal(np.asanyarray(file.dataobj), expected(entry, grid="native")[0])
    again = batches(cache)
    predict(tmp_path, again, grids="native")  # done: no windows are left
    with pytest.raises(pf.InferenceError, match=r"other settings \(grid\)"):
        predict(tmp_path, batches(cache))


def test_masks_overlap_and_the_images_that_batches_hold(tmp_path):
    subjects = make_subjects(2)
    cache = pf.build_cache(subjects, tmp_path / "cache", progress=False)
    data = batches(cache, predict_mask="label", predict_overlap=0, patch_size=4, outside="border")
    first = next(iter(data.predict_dataloader()))
    model = predict(tmp_path, data)
    assert set(first) == {"image", "location", "index", "subject"}
    windows = [len(pf.GridSampler(entry, 4, mask="label")) for entry in cache]
    assert len(list(chain.from_iterable(model.seen))) == sum(windows)
    for entry in cache:
        whole = expected(entry, patch_size=4, patch_overlap=0, mask="label", outside="border")
        np.testing.assert_array_equal(volume(tmp_path / "out" / f"{entry.name}.nii.gz"), whole[0])


def test_what_was_finished_before_an_interruption_is_not_predicted_again(tmp_path, small_cache, caplog):
    windows = [len(pf.GridSampler(entry, SIZE, [4, 3, 5])) for entry in small_cache]
    stop = (windows[0] + windows[1] // 2) // 4  # in the middle of the second subject

    def fail(number, prediction):
        if number == stop:
            raise RuntimeError("the power went")
        return prediction

    with pytest.raises(RuntimeError, match="the power went"):
        predict(tmp_path, batches(small_cache), Mixer(fail))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["s0.json", "s0.nii.gz"]
    before = (tmp_path / "out" / "s0.nii.gz").stat().st_mtime_ns
    model = predict(tmp_path, batches(small_cache))
    assert "1 of 4 subjects were predicted before" in caplog.text
    assert [name for names in model.seen for name in names] == list(
        chain.from_iterable([entry.name] * number for entry, number in zip(list(small_cache)[1:], windows[1:], strict=True))
    )
    assert (tmp_path / "out" / "s0.nii.gz").stat().st_mtime_ns == before
    for entry in small_cache:
        np.testing.assert_array_equal(volume(tmp_path / "out" / f"{entry.name}.nii.gz"), expected(entry)[0])
    assert predict(tmp_path, batches(small_cache)).seen == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"overlap_mode": "crop"}, "overlap_mode"),
        ({"patch_size": 9}, "patch_overlap, patch_size"),
        ({"bias": 0.25}, "weights"),
    ],
)
def test_a_folder_of_other_predictions_is_refused(tmp_path, small_cache, change, named):
    cache = small_cache[:1]
    predict(tmp_path, batches(cache))
    model = Mixer()
    with torch.no_grad():
        model.net[0].bias += change.pop("bias", 0)
    data = batches(cache, patch_size=change.pop("patch_size", SIZE))
    with pytest.raises(pf.InferenceError, match=rf"s0.*other settings \({named}\)"):
        predict(tmp_path, data, model, **change)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda number, prediction: None, r'"s0", window \[0:8, 0:6, 0:10\].*not None'),
        (lambda number, prediction: prediction[..., :-1], r'"s0", window \[0:8, 0:6, 0:10\].*must be \(4, C, 8, 6, 10\)'),
        (lambda number, prediction: prediction[:-1], r'"s0", window \[0:8, 0:6, 0:10\].*must be \(4, C, 8, 6, 10\)'),
        (lambda number, prediction: prediction / (number != 2), r'"s0", window .*NaN or infinite'),
        (lambda number, prediction: prediction[:, : 3 - (number > 2)], r'"s0", window .*2 channels.*3'),
    ],
    ids=["None", "size", "rows", "NaN", "channels"],
)
def test_predictions_that_cannot_be_stitched_are_errors_and_leave_no_file(tmp_path, small_cache, spoil, message):
    with pytest.raises(pf.InferenceError, match=message):
        predict(tmp_path, batches(small_cache), Mixer(spoil))
    assert list((tmp_path / "out").iterdir()) == []


def test_subjects_that_were_cut_short_have_no_file(tmp_path, small_cache, caplog):
    trainer = quiet_trainer(tmp_path, callbacks=[pf.PredictionWriter(tmp_path / "out")], limit_predict_batches=3)
    trainer.predict(Mixer(), batches(small_cache))
    told = caplog.text
    assert "not kept in memory too: trainer.predict returns None" in told
    assert "not all windows of s0 were predicted" in told
    assert list((tmp_path / "out").iterdir()) == []


def test_a_module_without_a_predict_step_gets_a_note(tmp_path, small_cache):
    class Plain(LightningModule):
        def forward(self, image):
            return image.mean(1, keepdim=True)

    with pytest.raises(AttributeError) as caught:
        predict(tmp_path, batches(small_cache), Plain())
    assert 'return self(batch["image"])' in caught.value.__notes__[0]


def test_two_processes_under_ddp_share_subjects_and_scores(tmp_path, small_cache):
    support = Path(__file__).parent / "support"
    environment = {**os.environ, "PYTHONPATH": str(support), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(support / "predict_ddp_run.py"), str(small_cache.folder), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    shares = [set(chain.from_iterable(rank["all"])) for rank in ranks]
    assert shares[0] | shares[1] == set(small_cache.names)
    assert not shares[0] & shares[1]
    assert min(map(len, shares)) == 2
    assert [bool(rank["one"]) for rank in ranks] == [True, False]
    for entry in small_cache:
        np.testing.assert_array_equal(volume(tmp_path / "4" / f"{entry.name}.nii"), expected(entry, patch_size=8)[0])
    scores = numpy_dice(small_cache, patch_size=8)
    for rank in ranks:
        assert rank["scores"] == pytest.approx(scores, abs=1e-6)


def numpy_dice(cache, **settings):
    """What WholeVolumeDice(3) logs, from whole label maps."""
    by_class = {}
    for number in (1, 2):
        found = []
        for entry in cache:
            predicted, truth = expected(entry, **settings) == number, entry.read("label", whole(entry)) == number
            total = predicted.sum() + truth.sum()
            found += [2 * (predicted & truth).sum() / total] if total else []
        by_class[f"val_dice_{number}"] = float(np.mean(found)) if found else float("nan")
    return by_class | {"val_dice": float(np.nanmean(list(by_class.values())))}


def whole(entry):
    return pf.PatchLocation((0, 0, 0), entry.shape)


def validate(folder, cache, dice, model=None, **settings):
    """What is logged by trainer.validate."""
    trainer = quiet_trainer(folder, callbacks=[dice])
    trainer.validate(Mixer() if model is None else model, pf.PatchDataModule(val=cache, patch_size=SIZE, **settings), verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_dice_is_that_of_the_whole_label_maps(tmp_path, small_cache):
    scores = validate(tmp_path, small_cache, pf.WholeVolumeDice(3, batch_size=3))
    assert scores == pytest.approx(numpy_dice(small_cache), abs=1e-6)
    assert len(set(scores.values())) == 3
    named = validate(tmp_path, small_cache, pf.WholeVolumeDice(3, class_names=NAMES, prefix="test", patch_overlap=0, overlap_mode="crop"))
    other = numpy_dice(small_cache, patch_overlap=0, overlap_mode="crop")
    assert named == pytest.approx(
        {"test_dice": other["val_dice"], "test_dice_liver": other["val_dice_1"], "test_dice_spleen": other["val_dice_2"]}, abs=1e-6
    )


class Channels(Mixer):
    """Gives out chosen channels of the image, times 1000."""

    def __init__(self, *wanted):
        super().__init__()
        self.wanted = list(wanted)

    def forward(self, image):
        return 1000 * image[:, self.wanted]


def masks(folder, *channels):
    """Two subjects with a label map of these channels, as bool arrays (2, C, I, J, K)."""
    truth = np.stack([channels, channels]).astype(np.uint8)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 2, *truth.shape[2:])).astype(np.float32)
    subjects = [pf.Subject(f"m{n}", image=pf.ScalarImage(images[n]), label=pf.LabelMap(truth[n])) for n in range(2)]
    return pf.build_cache(subjects, folder, progress=False), images, truth


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_a_class_that_is_nowhere_does_not_count(tmp_path):
    truth = np.zeros((9, 9, 9))
    truth[2:5] = 1
    cache, images, _ = masks(tmp_path / "cache", truth)

    class Three(Channels):
        def forward(self, image):
            first = image[:, :1]
            return torch.cat([0 * first, first, 0 * first - 1e6], 1)

    scores = validate(tmp_path, cache, pf.WholeVolumeDice(3, overlap_mode="crop"), Three())
    right = np.mean([dice(image[0] > 0, truth == 1) for image in images])
    assert scores == pytest.approx({"val_dice": right, "val_dice_1": right, "val_dice_2": float("nan")}, abs=1e-6, nan_ok=True)


def test_one_channel_is_two_classes_and_sigmoids_are_regions(tmp_path):
    halves, thirds = np.zeros((2, 9, 9, 9))
    halves[:4], thirds[:, :3] = 1, 1
    cache, images, truth = masks(tmp_path / "one", halves)
    scores = validate(tmp_path, cache, pf.WholeVolumeDice(2, overlap_mode="crop"), Channels(0))
    right = np.mean([dice(image[0] > 0, truth[0, 0] > 0) for image in images])
    assert scores == pytest.approx({"val_dice": right, "val_dice_1": right}, abs=1e-6)
    cache, images, truth = masks(tmp_path / "two", halves, thirds)
    scores = validate(tmp_path, cache, pf.WholeVolumeDice(2, activation="sigmoid", overlap_mode="crop"), Channels(0, 1))
    for region in range(2):
        right = np.mean([dice(image[region] > 0, truth[0, region] > 0) for image in images])
        assert scores[f"val_dice_{region}"] == pytest.approx(right, abs=1e-6)
    assert scores["val_dice"] == pytest.approx((scores["val_dice_0"] + scores["val_dice_1"]) / 2)


def test_training_is_scored_at_the_end_of_each_epoch_and_watched(tmp_path, small_cache, small_sampler):
    class Watched(Mixer):
        def on_validation_epoch_end(self):
            self.modes.append([module.training for module in self.modules()])

        def on_train_epoch_end(self):
            self.modes.append([module.training for module in self.modules()])

    model = Watched()
    model.modes = []
    best = ModelCheckpoint(tmp_path / "best", "{epoch}-{val_dice:.6f}", monitor="val_dice", mode="max", save_top_k=-1)
    stop = EarlyStopping("val_dice", mode="max", patience=5)
    trainer = quiet_trainer(tmp_path, callbacks=[pf.WholeVolumeDice(3), best, stop], max_epochs=2)
    data = pf.PatchDataModule(small_cache, small_cache, sampler=small_sampler, samples_per_volume=2)
    trainer.fit(model, data)
    scores = []
    for path in sorted((tmp_path / "best").iterdir()):
        again = Mixer()
        again.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
        scores.append(validate(tmp_path, small_cache, pf.WholeVolumeDice(3), again)["val_dice"])
        assert f"val_dice={scores[-1]:.6f}" in path.name
    assert len(scores) == 2
    assert scores[0] != scores[1]
    assert float(best.best_model_score) == pytest.approx(max(scores), abs=1e-6)
    assert all(all(modes) for modes in model.modes[-1:])
    assert not any(model.modes[-2])


def test_modes_are_restored_after_scoring(tmp_path, small_cache):
    model = Mixer()
    model.frozen.eval()
    before = [module.training for module in model.modules()]
    validate(tmp_path, small_cache, pf.WholeVolumeDice(3), model)
    assert [module.training for module in model.modules()] == before


def test_epochs_between_are_not_scored(tmp_path, small_cache, small_sampler):
    scored = []

    class Watch(pf.WholeVolumeDice):
        def _scores(self, trainer, pl_module):
            scored.append(trainer.current_epoch)
            return super()._scores(trainer, pl_module)

    data = pf.PatchDataModule(small_cache, small_cache[:1], sampler=small_sampler, samples_per_volume=1)
    quiet_trainer(tmp_path, callbacks=[Watch(3, every_n_epochs=2)], max_epochs=4).fit(Mixer(), data)
    assert scored == [1, 3]


@pytest.mark.parametrize(
    ("dice", "error", "message"),
    [
        ({"num_classes": 4}, pf.ArgumentError, "num_classes is 4, but the model returns 3 channels"),
        ({"num_classes": 3, "label": "image"}, pf.ArgumentError, '"image" must be a label map of 1 channels'),
        ({"num_classes": 3, "label": "mask"}, pf.UnknownNameError, 'no image "mask"'),
        ({"num_classes": 3, "output": "deep"}, pf.ArgumentError, 'the model returns one tensor: output="deep" is none of them'),
        ({"num_classes": 3, "activation": "sigmoid"}, pf.ArgumentError, "must be a label map of 3 channels"),
    ],
)
def test_classes_that_do_not_fit_are_refused(tmp_path, small_cache, dice, error, message):
    with pytest.raises(error, match=message):
        validate(tmp_path, small_cache, pf.WholeVolumeDice(**dice))


def test_a_truth_of_more_labels_and_a_model_of_several_outputs_are_refused(tmp_path, small_cache):
    with pytest.raises(pf.ImageError, match='subject "s0": the truth "label" holds the label 2, but num_classes is 2'):
        validate(tmp_path, small_cache, pf.WholeVolumeDice(2), Channels(0, 1))

    class Deep(Mixer):
        def forward(self, image):
            logits = super().forward(image)
            return [logits, logits[..., ::2]]

    with pytest.raises(pf.ArgumentError, match='the model returns "0", "1": name the one to score by output='):
        validate(tmp_path, small_cache, pf.WholeVolumeDice(3), Deep())
    scores = validate(tmp_path, small_cache, pf.WholeVolumeDice(3, output="0"), Deep())
    assert scores == pytest.approx(numpy_dice(small_cache), abs=1e-6)


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`")
def test_what_lightning_would_leave_out_in_silence_is_an_error(tmp_path, small_cache, small_sampler):
    class Untested(Mixer):
        validation_step = LightningModule.validation_step

    trainer = quiet_trainer(tmp_path, callbacks=[pf.WholeVolumeDice(3)], max_epochs=1)
    with pytest.raises(pf.ArgumentError, match="Untested has no validation_step"):
        trainer.fit(Untested(), pf.PatchDataModule(small_cache, small_cache, sampler=small_sampler))
    with pytest.raises(pf.ArgumentError, match=r"PatchDataModule\(val=...\)"):
        trainer.fit(Untested(), pf.PatchDataModule(small_cache, sampler=small_sampler))
    trainer = quiet_trainer(tmp_path, callbacks=[pf.PredictionWriter(tmp_path)])
    with pytest.raises(pf.ArgumentError, match=r"give that to trainer\.predict, and no other batches"):
        trainer.predict(Mixer(), torch.utils.data.DataLoader(torch.zeros(1, 2, 8, 8, 8)))


def test_a_model_that_writes_where_it_wrote_before_does_not_run_ahead(tmp_path, small_cache):
    class Reuses(Mixer):
        room = torch.empty(4, 3, *SIZE)

        def predict_step(self, batch):
            prediction = self(batch["image"])
            return self.room[: len(prediction)].copy_(prediction)

    predict(tmp_path, batches(small_cache), Reuses(), output="logits", suffix=".h5")
    predict(tmp_path / "again", batches(small_cache), output="logits", suffix=".h5")
    for name in small_cache.names:
        assert (tmp_path / "out" / f"{name}.h5").read_bytes() == (tmp_path / "again" / "out" / f"{name}.h5").read_bytes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pf.PredictionWriter("a", ".png"), "volumes are written as NIfTI or HDF5"),
        (lambda: pf.PredictionWriter("a", overlap_mode="gauss"), "overlap_mode"),
        (lambda: pf.PredictionWriter("a", grids="original"), 'grids must be "native", or a dict'),
        (lambda: pf.PredictionWriter("a", scratch_dir="/no/folder"), "scratch_dir"),
        (lambda: pf.WholeVolumeDice(1), "num_classes must be an int of at least 2"),
        (lambda: pf.WholeVolumeDice(3, every_n_epochs=0), "every_n_epochs"),
        (lambda: pf.WholeVolumeDice(3, class_names={3: "liver"}), "class_names names 3"),
        (lambda: pf.WholeVolumeDice(3, images="image"), "images must be a list"),
        (lambda: pf.WholeVolumeDice(3, batch_size=0), "batch_size"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(make, message):
    with pytest.raises(pf.ArgumentError, match=message):
        make()
