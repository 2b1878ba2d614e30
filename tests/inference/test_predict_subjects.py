"""Many subjects, one after the other: files, batches that reach across subjects, going on after an interruption."""

import json
import os

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

import patchflow as pf
from patchflow.errors import ArgumentError, ImageFileError, InferenceError
from patchflow.inference.checkpoints import load_weights

AFFINE = np.diag([2.0, 1, 1.5, 1])
SIZES = {"patch_size": 6, "progress": False}


def make_subjects(number: int = 3) -> list[pf.Subject]:
    rng = np.random.default_rng(0)
    return [
        pf.Subject(f"s{n}", image=pf.ScalarImage(rng.normal(size=(1, 9 + 2 * n, 7, 8)).astype(np.float32), AFFINE)) for n in range(number)
    ]


def two_classes(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([0 * x, x], dim=1)


class Counting:
    def __init__(self, fails_at: int = -1) -> None:
        self.batches, self.fails_at = [], fails_at

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if len(self.batches) == self.fails_at:
            raise RuntimeError("power cut")
        self.batches.append(len(x))
        return two_classes(x)


def test_each_subject_gets_the_file_that_predict_writes(tmp_path) -> None:
    subjects = make_subjects()
    paths = pf.predict_subjects(two_classes, subjects, tmp_path / "out", batch_size=4, label_names={1: "liver"}, **SIZES)
    assert paths == {f"s{n}": tmp_path / "out" / f"s{n}.nii.gz" for n in range(3)}
    for subject in subjects:
        alone = pf.predict(two_classes, subject, **SIZES)
        written = nib.load(paths[subject.name])
        np.testing.assert_array_equal(np.asarray(written.dataobj), alone[0])
        np.testing.assert_allclose(written.affine, AFFINE)
        assert json.loads((tmp_path / "out" / f"{subject.name}.json").read_text())["labels"] == {"1": "liver"}
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_batches_reach_across_subjects(tmp_path) -> None:
    model = Counting()
    pf.predict_subjects(model, make_subjects(), tmp_path, batch_size=5, patch_overlap=0, **SIZES)
    windows = sum(len(pf.GridSampler(subject, 6)) for subject in make_subjects())
    assert model.batches == [5] * (windows // 5) + [windows % 5] * (windows % 5 > 0)


def test_an_interrupted_run_goes_on_with_the_subjects_that_are_not_finished(tmp_path) -> None:
    subjects = make_subjects()
    with pytest.raises(RuntimeError, match="power cut"):
        pf.predict_subjects(Counting(fails_at=14), subjects, tmp_path, patch_overlap=0, **SIZES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s0.json", "s0.nii.gz"]
    before = os.stat(tmp_path / "s0.nii.gz").st_mtime_ns
    model = Counting()
    paths = pf.predict_subjects(model, subjects, tmp_path, patch_overlap=0, **SIZES)
    assert os.stat(tmp_path / "s0.nii.gz").st_mtime_ns == before
    assert len(model.batches) == sum(len(pf.GridSampler(subject, 6)) for subject in subjects[1:])
    assert list(paths) == ["s0", "s1", "s2"]
    for subject in subjects:
        np.testing.assert_array_equal(np.asarray(nib.load(paths[subject.name]).dataobj), (subject["image"].data[0] > 0))


def test_several_outputs_get_a_file_each_and_are_found_again(tmp_path) -> None:
    def model(x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"tissue": two_classes(x), "depth": x}

    options = {"output": {"tissue": "labels", "depth": "logits"}, "suffix": ".nii", **SIZES}
    paths = pf.predict_subjects(model, make_subjects(1), tmp_path, **options)
    assert paths == {"s0": {"tissue": tmp_path / "s0_tissue.nii", "depth": tmp_path / "s0_depth.nii"}}
    assert pf.predict_subjects(lambda x: pytest.fail("called"), make_subjects(1), tmp_path, **options) == paths


def test_a_folder_of_other_predictions_is_refused(tmp_path) -> None:
    pf.predict_subjects(two_classes, make_subjects(1), tmp_path, **SIZES)
    with pytest.raises(InferenceError, match=r's0\.json: subject "s0" was predicted with other settings \(mirror_axes\)'):
        pf.predict_subjects(two_classes, make_subjects(1), tmp_path, mirror_axes=(0,), **SIZES)
    with pytest.raises(InferenceError, match=r"other settings \(mask\)"):
        pf.predict_subjects(two_classes, make_subjects(1), tmp_path, masks={"s0": pf.PatchLocation((0, 0, 0), (3, 3, 3))}, **SIZES)
    with pytest.raises(InferenceError, match=r"other settings \(grid\)"):
        pf.predict_subjects(two_classes, make_subjects(1), tmp_path, grids={"s0": make_subjects(1)[0]}, **SIZES)
    with pytest.raises(InferenceError, match="checkpoint"):
        pf.predict_subjects(two_classes, make_subjects(1), tmp_path, made_with={"checkpoint": "b"}, **SIZES)


def test_a_sidecar_of_the_user_is_kept_and_what_is_none_refused(tmp_path) -> None:
    (tmp_path / "out.json").write_text('{"EchoTime": 0.03}')
    pf.predict(two_classes, make_subjects(1)[0], path=tmp_path / "out.nii.gz", label_names={1: "liver"}, **SIZES)
    assert json.loads((tmp_path / "out.json").read_text()) == {"EchoTime": 0.03, "labels": {"1": "liver"}}
    (tmp_path / "other.json").write_text("notes")
    with pytest.raises(ImageFileError, match=r"other\.json holds something else"):
        pf.predict(two_classes, make_subjects(1)[0], path=tmp_path / "other.nii.gz", label_names={1: "liver"}, **SIZES)


def test_names_that_cannot_be_files_or_come_twice_are_refused(tmp_path) -> None:
    image = pf.ScalarImage(np.zeros((1, 6, 6, 6), np.float32))
    with pytest.raises(ArgumentError, match='two subjects are called "a"'):
        pf.predict_subjects(two_classes, [pf.Subject("a", image=image)] * 2, tmp_path, **SIZES)
    with pytest.raises(ArgumentError, match="an array has no name"):
        pf.predict_subjects(two_classes, [np.zeros((1, 6, 6, 6))], tmp_path, **SIZES)
    with pytest.raises(ArgumentError, match="let the name end in"):
        pf.predict_subjects(two_classes, [], tmp_path, suffix=".mha", **SIZES)


def test_subjects_are_preprocessed_when_their_turn_comes_and_masks_and_grids_go_by_name(tmp_path) -> None:
    subjects, pipeline = make_subjects(2), pf.Pipeline([pf.preprocess.Rescale()])
    options = {"output": "logits", "patch_overlap": 0, "suffix": ".nii", **SIZES}
    box = pf.PatchLocation((0, 0, 0), (1, 1, 1))
    paths = pf.predict_subjects(nn.Identity(), subjects, tmp_path, preprocess=pipeline, masks={"s1": box}, **options)
    for subject in subjects:
        written, expected = nib.load(paths[subject.name]).get_fdata(dtype=np.float32), pipeline(subject)["image"].data[0]
        if subject.name == "s1":  # the first window alone
            window = pf.PatchLocation.from_array(pf.GridSampler(subject, 6).locations[0]).overlap(expected.shape).volume
            assert (np.delete(written, np.s_[: window[0].stop], axis=0) == 0).all()
            written, expected = written[window], expected[window]
        np.testing.assert_allclose(written, expected, atol=1e-6)
    coarse = pf.ScalarImage(np.zeros((1, 4, 7, 8), np.float32), AFFINE @ np.diag([2, 1, 1, 1]))
    paths = pf.predict_subjects(nn.Identity(), subjects, tmp_path / "b", grids={"s0": coarse}, **options)
    np.testing.assert_allclose(nib.load(paths["s0"]).get_fdata(), subjects[0]["image"].data[0, :8:2], atol=1e-6)
    assert nib.load(paths["s1"]).shape == subjects[1]["image"].shape[1:]


class Net(nn.Module):
    """Two classes, by a convolution of one voxel."""

    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()


def test_weights_of_a_part_and_of_lightning_are_found(tmp_path) -> None:
    whole = Whole()
    torch.save({"state_dict": whole.state_dict(), "hyper_parameters": {"channels": 2}, "epoch": 3}, tmp_path / "a.ckpt")
    torch.save(whole.net.state_dict(), tmp_path / "b.pt")
    for name in ("a.ckpt", "b.pt"):
        model = Net()
        load_weights(model, tmp_path / name)
        assert torch.equal(model.conv.weight, whole.net.conv.weight)
        assert torch.equal(model.conv.bias, whole.net.conv.bias)


def test_weights_of_another_architecture_are_refused(tmp_path) -> None:
    torch.save(Net().state_dict(), tmp_path / "a.pt")
    with pytest.raises(ArgumentError, match=r"a\.pt is of another architecture than Net .*conv.bias \(2,\) instead of \(3,\)"):
        load_weights(Net(3), tmp_path / "a.pt")


def test_checkpoints_that_could_run_code_or_are_none_are_refused(tmp_path) -> None:
    torch.save(Net(), tmp_path / "pickled.pt")
    (tmp_path / "text.pt").write_text("weights")
    torch.save([1], tmp_path / "list.pt")
    for name, message in [
        ("pickled.pt", "no checkpoint of weights"),
        ("text.pt", "no checkpoint"),
        ("list.pt", "holds a list"),
        ("no.pt", "cannot be read"),
    ]:
        with pytest.raises(ImageFileError, match=message):
            load_weights(Net(), tmp_path / name)
    torch.save({"conv.weight": torch.zeros(2, 1, 1, 1, 1), "head": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ArgumentError, match=r"1 missing: conv\.bias; 1 unexpected: head"):
        load_weights(Net(), tmp_path / "other.pt")


def test_what_is_no_list_of_subjects_is_told_so(tmp_path) -> None:
    subject = pf.Subject("p7", image=pf.ScalarImage(np.zeros((4, 4, 4), np.float32)))
    entry = pf.build_cache([subject], tmp_path / "cache", progress=False)[0]
    for one in (subject, entry, "cache", tmp_path, pf.ScalarImage(np.zeros((4, 4, 4))), np.zeros((1, 4, 4, 4))):
        with pytest.raises(ArgumentError, match=rf"list of subjects or entries, \[subject\] for one, not {type(one).__name__}"):
            pf.predict_subjects(lambda x: x, one, tmp_path / "out", patch_size=4, progress=False)
    with pytest.raises(ArgumentError, match=r"not from str 's1\.nii\.gz': write pf\.Subject"):
        pf.predict_subjects(lambda x: x, ["s1.nii.gz"], tmp_path / "out", patch_size=4, progress=False)
    with pytest.raises(ArgumentError, match="an array has no name for its file"):
        pf.predict_subjects(lambda x: x, [np.zeros((1, 4, 4, 4))], tmp_path / "out", patch_size=4, progress=False)
