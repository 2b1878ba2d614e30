"""The files in configs/ as they stand, for a few steps: from files on disk to trained weights to label maps on the files' own voxels."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml

from patchflow import seeding
from patchflow.cli import main
from patchflow.images.write import write_nifti

ROOT = Path(__file__).parents[1]
AFFINE = np.array([[0, -1, 0, 3], [1, 0, 0, 4], [0, 0, 2.0, 5], [0, 0, 0, 1]])  # no RAS+, so that ToCanonical turns it
SMALL = ["--cache.num_workers", "0", "--trainer.enable_progress_bar", "false"]

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's, about few workers and short runs


def volumes(number, shape=(40, 44, 36), low=0, high=300):
    rng = seeding.generator(number)
    truth = np.zeros(shape, np.uint8)
    i, j, k = (size // 4 for size in shape)
    truth[i : 3 * i, j : 3 * j, k : 3 * k] = 1
    truth[i + 4 : 3 * i - 4, j + 4 : 3 * j - 4, k + 2 : 3 * k - 2] = 2
    return (low + truth / 2 * (high - low) + rng.normal(0, 20, shape)).astype(np.int16), truth


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    """The folder of the demonstration's data, small, after `fit` as configs/brain.yaml says, shortened."""
    folder = tmp_path_factory.mktemp("brain")
    for number in range(3, 6):
        place = folder / "patchflow-demo" / "data" / f"subject{number}"
        place.mkdir(parents=True)
        image, label = volumes(number)
        write_nifti(place / "t1.nii.gz", image, AFFINE)
        write_nifti(place / "tissue.nii.gz", label, AFFINE)
    os.symlink(ROOT / "configs", folder / "configs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        short = ["--trainer.max_epochs", "2", "--trainer.limit_train_batches", "3", "--trainer.log_every_n_steps", "1"]
        assert main(["fit", "--config", "configs/brain.yaml", *SMALL, *short]) == 0
    return folder


def logged(folder):
    (path,) = folder.glob("lightning_logs/version_0/metrics.csv")
    return path.read_text()


def test_fit_trains_validates_whole_volumes_and_leaves_weights(brain):
    header, *rows = logged(brain / "patchflow-brain").splitlines()
    assert "val_dice" in header.split(",")
    assert "loss" in header.split(",")
    assert rows
    (last,) = brain.glob("patchflow-brain/lightning_logs/version_0/checkpoints/last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 6


def test_validate_tells_what_is_logged(brain, monkeypatch, capsys):
    monkeypatch.chdir(brain)
    assert main(["validate", "--config", "configs/brain.yaml", *SMALL]) == 0
    said = dict(line.split(": ") for line in capsys.readouterr().out.splitlines() if ": " in line)
    assert float(said["val_loss"]) > 0
    assert 0 <= float(said["val_dice"]) <= 1


def test_predict_takes_the_last_weights_and_the_files_own_voxels(brain, monkeypatch, capsys):
    monkeypatch.chdir(brain)
    assert main(["predict", "--config", "configs/brain.yaml"]) == 0
    assert capsys.readouterr().out.split() == ["patchflow-brain/predictions/subject5.nii.gz"]
    written = nibabel.load("patchflow-brain/predictions/subject5.nii.gz")
    assert written.shape == (40, 44, 36)
    assert np.allclose(written.affine, AFFINE)
    assert set(np.unique(np.asarray(written.dataobj))) <= {0, 1, 2}
    names = json.loads(Path("patchflow-brain/predictions/subject5.json").read_text())["labels"]
    assert names == {"1": "grey matter", "2": "white matter"}
    assert main(["predict", "--config", "configs/brain.yaml", "--prediction.mirror_axes", "[]"]) == 2
    assert "predicted with other settings (mirror_axes)" in capsys.readouterr().err


def test_fit_goes_on_where_it_stopped(brain, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(brain)
    more = ["--trainer.default_root_dir", str(tmp_path), "--trainer.callbacks", "null", "--trainer.max_epochs", "-1"]
    assert main(["fit", "--config", "configs/brain.yaml", *SMALL, *more, "--trainer.max_steps", "2"]) == 0
    assert "weights after 2 steps" in capsys.readouterr().out
    assert main(["fit", "--config", "configs/brain.yaml", *SMALL, *more, "--trainer.max_steps", "3", "--ckpt_path", "last"]) == 0
    assert "weights after 3 steps" in capsys.readouterr().out


def test_fit_twice_gives_the_same_weights_and_another_seed_others(brain, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(brain)
    weights = []
    for run, seed in (("one", "0"), ("two", "0"), ("three", "1")):
        more = [
            f"--trainer.default_root_dir={tmp_path / run}",
            "--trainer.callbacks=null",
            "--trainer.max_epochs=-1",
            "--trainer.max_steps=2",
        ]
        assert main(["fit", "--config", "configs/brain.yaml", *SMALL, *more, "--patches.seed", seed]) == 0
        path = capsys.readouterr().out.split(":")[0]
        weights.append(torch.cat([value.flatten().double() for value in torch.load(path, weights_only=True)["state_dict"].values()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.timeout(120)
def test_ctrl_c_leaves_a_checkpoint_and_exits_with_130(brain, tmp_path):
    more = [
        f"--trainer.default_root_dir={tmp_path}",
        "--trainer.callbacks=null",
        "--trainer.max_epochs=1000",
        "--trainer.log_every_n_steps=1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "patchflow.cli", "fit", "--config", "configs/brain.yaml", *SMALL, *more],
        cwd=brain,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "lightning_logs" / "version_0" / "checkpoints"
    while process.poll() is None and not any(log.glob("*.ckpt")):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert torch.load(tmp_path / "interrupted.ckpt", weights_only=True)["global_step"] > 0


def test_an_ensemble_of_checkpoints_is_averaged(brain, monkeypatch, capsys):
    monkeypatch.chdir(brain)
    (last,) = brain.glob("patchflow-brain/lightning_logs/version_0/checkpoints/last.ckpt")
    weights = torch.load(last, weights_only=True)["state_dict"]
    for number in range(2):
        moved = {name: value * (1 + 0.2 * number) if value.is_floating_point() else value for name, value in weights.items()}
        torch.save(moved, f"{number}.pt")
    options = ["--prediction.output", "probabilities", "--prediction.mirror_axes", "[]", "--prediction.more", "{average: probabilities}"]
    for name, checkpoints in (("a", "[0.pt]"), ("b", "[1.pt]"), ("both", "[0.pt, 1.pt]")):
        where = ["--prediction.checkpoints", checkpoints, "--prediction.folder", name]
        assert main(["predict", "--config", "configs/brain.yaml", *options, *where]) == 0
    a, b, both = (np.asarray(nibabel.load(f"{name}/subject5.nii.gz").dataobj) for name in ("a", "b", "both"))
    assert np.abs(a - b).max() > 1e-3
    np.testing.assert_allclose(both, (a + b) / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("command", "options", "what"),
    [
        ("fit", ["--model.class_path", "patchflow.segmentation.VNet"], "VNet"),
        ("fit", ["--model.init_args.depth", "3"], "depth"),
        ("fit", ["--trainer.max_step", "3"], "max_step"),
        ("fit", ["--trainer.accelerator", "abacus"], "trainer: "),
        ("fit", ["--patches.more", "{nonsense: 1}"], "nonsense"),
        ("fit", ["--patches.more", "{batch_size: 1}"], "which the section patches says already"),
        ("fit", ["--split.held_out", "[carl]"], "no subject 'carl'"),
        ("fit", ["--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt is no checkpoint"),
        ("validate", ["--split.held_out", "null"], "nobody validates"),
        ("predict", ["--prediction.more", "{overlap: 3}"], "overlap"),
        ("predict", ["--prediction.output", "classes"], "prediction.output"),
        ("predict", ["--prediction.patch_overlap", "64", "--prediction.folder", "x"], "smaller than patch_size"),
        ("predict", ["--prediction.checkpoints", "[nowhere.pt]"], "nowhere.pt cannot be read"),
        ("predict", ["--prediction.data.folder", "nowhere", "--prediction.data.images", "{image: '*/t1.nii.gz'}"], "nowhere"),
        ("predict", ["--model.init_args.network.init_args.width", "5", "--prediction.folder", "x"], "another architecture"),
        ("predict", ["--prediction.part", "test"], "nobody in its part test"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(brain, monkeypatch, capsys, command, options, what):
    monkeypatch.chdir(brain)
    assert main([command, "--config", "configs/brain.yaml", *SMALL, *options]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("patchflow: error: ")]
    assert len(lines) == 1
    assert what in lines[0]


def test_a_printed_configuration_trains_as_the_file_does(brain, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(brain)
    assert main(["fit", "--config", "configs/brain.yaml", "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["model"]["init_args"]["network"]["init_args"]["width"] == 8
    (tmp_path / "printed.yaml").write_text(printed)
    for command in ("fit", "predict"):
        assert main([command, "--config", str(tmp_path / "printed.yaml"), "--print_config"]) == 0
        assert capsys.readouterr().out == printed


def test_a_network_of_the_users_own_is_found_in_the_current_folder(brain, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_networks.py").write_text(
        "import patchflow.segmentation\n\n\nclass Mine(patchflow.segmentation.Segmentation):\n    pass\n"
    )
    named = ["--model.class_path", "my_networks.Mine"]
    assert main(["fit", "--config", str(brain / "configs" / "brain.yaml"), *named, "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["class_path"] == "my_networks.Mine"


def test_abdominal_ct_from_a_raw_data_set(tmp_path, monkeypatch, capsys):
    raw = tmp_path / "nnUNet_raw" / "Dataset001_Abdomen"
    affine = np.diag([-1.0, -1, 2.5, 1])
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (raw / folder).mkdir(parents=True)
    for number in range(6):
        image, label = volumes(number, (36, 40, 24), low=-1000, high=150)
        part = "Tr" if number < 5 else "Ts"
        write_nifti(raw / f"images{part}" / f"case{number}_0000.nii.gz", image, affine)
        if number < 5:
            write_nifti(raw / "labelsTr" / f"case{number}.nii.gz", label, affine)
    labels = {"background": 0, "liver": 1, "tumour": 2}
    told = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 5, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(told))
    os.symlink(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    small = ["--patches.size", "[32, 32, 16]", "--model.init_args.network.init_args.width", "4"]
    short = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    assert main(["fit", "--config", "configs/abdomen.yaml", *SMALL, *small, *short]) == 0
    size = ["--prediction.patch_size", "[32, 32, 16]"]
    assert main(["predict", "--config", "configs/abdomen.yaml", *small, *size]) == 0
    assert capsys.readouterr().out.split()[-1] == "patchflow-abdomen/predictions/case5.nii.gz"
    written = nibabel.load("patchflow-abdomen/predictions/case5.nii.gz")
    assert written.shape == (36, 40, 24)
    assert np.allclose(written.affine, affine)
    names = json.loads(Path("patchflow-abdomen/predictions/case5.json").read_text())["labels"]
    assert names == {"1": "liver", "2": "tumour"}


def test_slices_train_a_2d_network_and_become_volumes(brain, monkeypatch):
    monkeypatch.chdir(brain)
    small = ["--patches.size", "[32, 32, 1]", "--model.init_args.network.init_args.width", "4"]
    short = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    assert main(["fit", "--config", "configs/slices.yaml", *SMALL, *small, *short]) == 0
    size = ["--prediction.patch_size", "[32, 32, 1]", "--prediction.patch_overlap", "[16, 16, 0]"]
    assert main(["predict", "--config", "configs/slices.yaml", *small, *size]) == 0
    written = sorted(path.name for path in Path("patchflow-slices/predictions").glob("*.nii.gz"))
    assert len(written) == 1
    assert nibabel.load(f"patchflow-slices/predictions/{written[0]}").shape == (40, 44, 36)
