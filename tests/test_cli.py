import numpy as np
import pytest

import patchflow as pf
from patchflow import seeding
from patchflow.cli import main
from patchflow.images.write import write_nifti


@pytest.fixture
def data(tmp_path):
    rng = seeding.generator(0)
    for name in ("anna", "ben"):
        (tmp_path / "data" / name).mkdir(parents=True)
        write_nifti(tmp_path / "data" / name / "t1.nii.gz", rng.integers(0, 900, (12, 13, 14)).astype(np.int16), np.eye(4))
        write_nifti(tmp_path / "data" / name / "seg.nii.gz", rng.integers(0, 3, (12, 13, 14)).astype(np.uint8), np.eye(4))
    return tmp_path


def build(folder, *more):
    return main(["cache", "build", str(folder / "data"), str(folder / "cache"), "image=*/t1.nii.gz", "label=*/seg.nii.gz", *more])


def test_build_info_and_verify(data, capsys):
    assert build(data, "--preprocess", "Clamp(low=0, high=500)", "Rescale(out=(0, 1))", "--layout", "compressed") == 0
    cache = pf.open_cache(data / "cache")
    volume = cache["anna"].read("image", pf.PatchLocation((0, 0, 0), (12, 13, 14)))
    source = pf.ScalarImage(data / "data" / "anna" / "t1.nii.gz").data
    assert np.abs(volume - np.clip(source, 0, 500) / 500).max() < 1e-6
    capsys.readouterr()
    assert main(["cache", "info", str(data / "cache")]) == 0
    shown = capsys.readouterr().out
    assert "anna" in shown
    assert "compressed" in shown
    assert main(["cache", "verify", str(data / "cache")]) == 0
    assert "2 entries, every block as it was written" in capsys.readouterr().out


def test_verify_finds_damage_and_exits_with_1(data, capsys):
    assert build(data, "--layout", "contiguous") == 0
    path = data / "cache" / "entries" / "ben.h5"
    content = bytearray(path.read_bytes())
    voxels = pf.ScalarImage(data / "data" / "ben" / "t1.nii.gz").load().array.tobytes()
    content[content.index(voxels) + 100] ^= 1
    labels = pf.LabelMap(data / "data" / "ben" / "seg.nii.gz").load().array.tobytes()
    content[content.index(labels) + 100] ^= 1
    path.write_bytes(content)
    assert main(["cache", "verify", str(data / "cache")]) == 1
    shown = capsys.readouterr().out
    assert "ben" in shown
    assert "image" in shown
    assert "2 entries, 1 damaged: delete" in shown


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--preprocess", "Sharpen"], "no preprocessing step"),
        (["--preprocess", "__import__('os')"], "no preprocessing step"),
        (["--preprocess", "Clamp(low=0, hihg=1)"], "hihg"),
        (["--preprocess", "Clamp(low=open('x'), high=1)"], "Clamp"),
        (["nonsense"], "NAME=PATTERN"),
        (["image=*/seg.nii.gz"], "named twice"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(data, capsys, more, what):
    assert build(data, *more) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("patchflow: error: ")
    assert what in errors[0]


def test_a_folder_that_is_no_cache_is_an_error_and_debug_shows_where(tmp_path, capsys):
    assert main(["cache", "info", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    with pytest.raises(pf.PatchflowError):
        main(["cache", "info", str(tmp_path), "--debug"])


@pytest.mark.parametrize(("option", "value"), [("--steps", "0"), ("--seed", "-1")])
def test_a_demonstration_that_cannot_run_is_refused_before_it_begins(tmp_path, capsys, option, value):
    assert main(["demo", "--folder", str(tmp_path / "demo"), option, value]) == 2
    assert option[2:] in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_show_draws_a_sheet(data, capsys):
    assert build(data) == 0
    capsys.readouterr()
    out = data / "sheet.png"
    assert main(["show", str(data / "cache"), "--out", str(out), "--count", "3", "--patch-size", "8", "--seed", "5"]) == 0
    assert capsys.readouterr().out == f"{out}: 3 patches\n"
    first = out.read_bytes()
    assert first.startswith(b"\x89PNG")
    assert main(["show", str(data / "cache"), "--out", str(out), "--count", "3", "--patch-size", "8", "8", "8", "--seed", "5"]) == 0
    assert out.read_bytes() == first
    more = ["--subjects", "ben", "--image", "image", "--label", "label", "--window", "-10", "500"]
    assert main(["show", str(data / "cache"), "--out", str(out), "--count", "1", "--patch-size", "8", *more]) == 0
    assert out.read_bytes() != first


@pytest.mark.parametrize("name", ["nnunet", "mri", "ct", "own.yaml"])
def test_show_takes_presets_and_files(data, capsys, name):
    assert build(data) == 0
    (data / "own.yaml").write_text("transforms:\n  - RandomNoise: {std: [1, 2]}\n")
    source = str(data / name) if name.endswith("yaml") else name
    assert main(["show", str(data / "cache"), source, "--out", str(data / "sheet.png"), "--count", "2", "--patch-size", "10"]) == 0
    assert (data / "sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["nowhere"], "nowhere"),
        (["cache", "sharpen"], "no recipe 'sharpen'"),
        (["cache", "--count", "0"], "--count must be an int of at least 1, not 0"),
        (["cache", "--seed", "-1"], "seed"),
        (["cache", "--patch-size", "8", "8"], "--patch-size"),
        (["cache", "--patch-size", "0"], "--patch-size"),
        (["cache", "--subjects", "carl"], "no subject 'carl'"),
        (["cache", "--image", "label"], "no ScalarImage 'label'"),
        (["cache", "--label", "seg"], "no LabelMap 'seg'"),
        (["cache", "--window", "5", "5", "--patch-size", "8"], "window"),
        (["cache", "--out", "nowhere/sheet.png", "--patch-size", "8"], "nowhere/sheet.png"),
    ],
)
def test_show_refuses_what_it_cannot_draw(data, capsys, monkeypatch, arguments, what):
    assert build(data) == 0
    capsys.readouterr()
    monkeypatch.chdir(data)
    assert main(["show", *arguments]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("patchflow: error: ")
    assert what in errors[0]
    assert not (data / "sheet.png").exists()
