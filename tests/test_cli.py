"""Commands as they are typed, without a configuration, and what is said of those that cannot run."""

import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import yaml

import patchflow as pf
from patchflow import seeding
from patchflow.cli import main
from patchflow.images.write import write_nifti


@pytest.fixture
def data(tmp_path, monkeypatch):
    """data/{anna,ben}/{t1,seg}.nii.gz in a folder of its own, which is the working folder then."""
    rng = seeding.generator(0)
    affine = np.diag([-1.0, 1, 2, 1])
    for name in ("anna", "ben"):
        (tmp_path / "data" / name).mkdir(parents=True)
        write_nifti(tmp_path / "data" / name / "t1.nii.gz", rng.integers(0, 900, (12, 13, 14)).astype(np.int16), affine)
        label = np.zeros((12, 13, 14), np.uint8)
        label[2 : 5 + len(name), 3:9, 4:12] = 1
        label[4:6, 5:8, 6:9] = 2
        write_nifti(tmp_path / "data" / name / "seg.nii.gz", label, affine)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(*more):
    return main(["cache", "build", "data", "cache", "image=*/t1.nii.gz", "label=*/seg.nii.gz", *more])


def refused(capsys, *arguments):
    """The one line that a command says which cannot run."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert captured.out == ""
    assert len(lines) == 1
    assert lines[0].startswith("patchflow: error: ")
    return lines[0]


def test_build_info_and_verify(data, capsys):
    assert build("--preprocess", "['Clamp(low=0, high=500)', {Rescale: {out: [0, 1]}}]", "--cache.layout", "compressed") == 0
    cache = pf.open_cache("cache")
    volume = cache["anna"].read("image", pf.PatchLocation((0, 0, 0), (12, 13, 14)))
    source = pf.ScalarImage("data/anna/t1.nii.gz").data
    assert np.abs(volume - np.clip(source, 0, 500) / 500).max() < 1e-6
    capsys.readouterr()
    assert main(["cache", "info", "cache"]) == 0
    shown = capsys.readouterr().out
    assert "anna" in shown
    assert "compressed" in shown
    assert main(["cache", "verify", "cache"]) == 0
    assert "2 entries, every block as it was written" in capsys.readouterr().out


def test_verify_finds_damage_and_exits_with_1(data, capsys):
    assert build("--cache.layout", "contiguous") == 0
    path = data / "cache" / "entries" / "ben.h5"
    content = bytearray(path.read_bytes())
    voxels = pf.ScalarImage("data/ben/t1.nii.gz").load().array.tobytes()
    content[content.index(voxels) + 100] ^= 1
    labels = pf.LabelMap("data/ben/seg.nii.gz").load().array.tobytes()
    content[content.index(labels) + 100] ^= 1
    path.write_bytes(content)
    assert main(["cache", "verify", "cache"]) == 1
    shown = capsys.readouterr().out
    assert "ben" in shown
    assert "image" in shown
    assert "2 entries, 1 damaged: delete" in shown


def test_check_looks_through_a_folder_of_which_nothing_is_said(data, capsys):
    assert main(["check", "data"]) == 0
    assert "2 subjects, 4 images" in capsys.readouterr().out
    (data / "data" / "ben" / "t1.nii.gz").write_bytes((data / "data" / "ben" / "t1.nii.gz").read_bytes()[:-50])
    assert main(["check", "data", "--json", "report.json", "--html", "report.html"]) == 1
    said = capsys.readouterr().out
    assert "error: ben t1" in said
    found = json.loads((data / "report.json").read_text())["findings"]
    assert [(finding["subject"], finding["check"]) for finding in found if finding["level"] == "error"] == [("ben", "readable")]
    assert "ben" in (data / "report.html").read_text()


def test_strict_counts_warnings_and_declared_classes_are_checked(data, capsys):
    patterns = ["data", "image=*/t1.nii.gz", "label=*/seg.nii.gz"]
    declared = ["--data.classes", "{1: bone, 2: marrow, 3: nail}"]
    assert main(["check", *patterns, *declared]) == 0
    assert "warning: label: class 3 (nail) is declared" in capsys.readouterr().out
    assert main(["check", *patterns, *declared, "--strict"]) == 1
    capsys.readouterr()
    assert main(["check", *patterns, "--data.classes", "[1]"]) == 1
    assert "error: anna label: " in capsys.readouterr().out


def test_export_writes_what_the_cache_holds(data, capsys):
    assert build("--preprocess", "ToCanonical") == 0
    capsys.readouterr()
    assert main(["export", "cache", "out", "--subjects", "ben", "--images", "label"]) == 0
    assert capsys.readouterr().out.split() == ["out/ben_label.nii.gz"]
    written = nibabel.load("out/ben_label.nii.gz")
    canonical = nibabel.as_closest_canonical(nibabel.load("data/ben/seg.nii.gz"))
    assert np.array_equal(np.asarray(written.dataobj), np.asarray(canonical.dataobj))
    assert np.allclose(written.affine, canonical.affine)
    assert "where to" in refused(capsys, "export")


def test_profile_says_where_the_time_goes(data, capsys):
    assert build() == 0
    capsys.readouterr()
    options = ["--batches", "3", "--patches.size", "8", "--patches.batch_size", "2", "--patches.augment", "mri"]
    assert main(["profile", "cache", *options]) == 0
    said = capsys.readouterr().out
    assert "6 patches in 3 batches" in said
    assert "read" in said
    assert "bottleneck:" in said


def test_show_draws_a_sheet(data, capsys):
    assert build() == 0
    capsys.readouterr()
    options = ["--out", "sheet.png", "--count", "3", "--patches.seed", "5"]
    assert main(["show", "cache", *options, "--patches.size", "8"]) == 0
    assert capsys.readouterr().out == "sheet.png: 3 patches\n"
    first = (data / "sheet.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    assert main(["show", "cache", *options, "--patches.size", "[8, 8, 8]"]) == 0
    assert (data / "sheet.png").read_bytes() == first
    more = ["--subjects", "ben", "--image", "image", "--label", "label", "--window", "-10", "500"]
    assert main(["show", "cache", "--count", "1", "--patches.size", "8", *more]) == 0
    assert (data / "sheet.png").read_bytes() != first


@pytest.mark.parametrize("name", ["nnunet", "own.yaml"])
def test_show_takes_presets_and_files(data, name):
    assert build() == 0
    (data / "own.yaml").write_text("transforms:\n  - RandomNoise: {std: [1, 2]}\n")
    assert main(["show", "cache", name, "--count", "2", "--patches.size", "10"]) == 0
    assert (data / "sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["cache", "build", "data", "cache"], "data.images is empty"),
        (["cache", "build", "data", "cache", "nonsense"], "NAME=PATTERN"),
        (["cache", "build", "data", "cache", "image=*/t1.nii.gz", "image=*/seg.nii.gz"], "named twice"),
        (["cache", "build", "data", "cache", "image=*/t1.nii.gz", "--preprocess", "Sharpen"], "no preprocessing step 'Sharpen'"),
        (["cache", "build", "data", "cache", "image=*/t1.nii.gz", "--preprocess", "__import__('os')"], "no preprocessing step"),
        (["cache", "build", "data", "cache", "image=*/t1.nii.gz", "--preprocess", "Clamp(low=0, hihg=1)"], "hihg"),
        (["cache", "build", "data", "cache", "image=*/t1.nii.gz", "--preprocess", "Clamp(low=open('x'), high=1)"], "Clamp"),
        (["cache", "build", "data", "image=*/t1.nii.gz"], "cache.folder"),
        (["cache", "info", "data"], "data"),
        (["cache", "info"], "which cache"),
        (["cache"], "subcommand"),
        ([], "command"),
        (["chek"], "'chek'"),
        (["check", "nowhere"], "nowhere is not a folder"),
        (["check"], "where subjects are"),
        (["check", "data", "--strict", "image=*/t1.nii.gz"], "write the words before the options"),
        (["check", "data", "--num_workers", "two"], "num_workers"),
        (["check", "data", "--json", "nowhere/report.json"], "nowhere/report.json"),
        (["show", "nowhere"], "nowhere"),
        (["show", "built", "sharpen"], "no recipe 'sharpen'"),
        (["show", "built", "--count", "0"], "--count must be an int of at least 1, not 0"),
        (["show", "built", "--patches.seed", "-1"], "seed"),
        (["show", "built", "--patches.size", "[8, 8]"], "patches.size"),
        (["show", "built", "--subjects", "carl"], "no subject 'carl'"),
        (["show", "built", "--image", "label"], "no ScalarImage 'label'"),
        (["show", "built", "--window", "5", "5", "--patches.size", "8"], "window"),
        (["show", "built", "--out", "nowhere/sheet.png", "--patches.size", "8"], "nowhere/sheet.png"),
        (["profile", "built", "--patches.size", "8", "--patches.sampler", "GridSampler"], "no sampler 'GridSampler'"),
        (["profile", "built", "--patches.size", "8", "--patches.sampler", "{LabelSampler: {lable: x}}"], "lable"),
        (["export", "built", "out", "--subjects", "carl"], "no subject 'carl'"),
        (["export", "a", "b", "c"], "a cache and a folder"),
        (["demo", "--folder", "demo", "--steps", "0"], "steps"),
        (["demo", "--folder", "demo", "--seed", "-1"], "seed"),
        (["profile", "--cache.layout", "dense"], "cache.layout"),
        (["profile", "--patches.batchsize", "2"], "batchsize"),
        (["fit", "--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
    ],
)
def test_what_cannot_run_is_one_line_and_exit_code_2(data, capsys, arguments, what):
    if "built" in arguments:
        main(["cache", "build", "data", "built", "image=*/t1.nii.gz", "label=*/seg.nii.gz"])
    assert what in refused(capsys, *arguments)
    assert not (data / "sheet.png").exists()
    assert not (data / "demo").exists()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("data: {folder: data", "wrong.yaml is no YAML"),
        ("- data", "must hold sections"),
        ("patchs: {size: 8}", "wrong.yaml: no key patchs: did you mean patches?"),
        ("patches: {sise: 8}", "wrong.yaml: no key patches.sise: did you mean patches.size?"),
        ("cache: {layout: dense}", "cache.layout"),
        ("data: {folder: data, table: t.csv, images: {image: '*/t1.nii.gz'}}", "data.folder and data.table"),
        ("data: {folder: data, images: {image: '*/t1.nii.gz'}, subjects: [carl]}", "no subject 'carl'"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(data, capsys, text, what):
    (data / "wrong.yaml").write_text(text)
    assert what in refused(capsys, "check", "--config", "wrong.yaml")


def test_debug_shows_where(data):
    with pytest.raises(pf.PatchflowError):
        main(["cache", "info", "data", "--debug"])


def test_a_printed_configuration_is_that_of_every_command(data, capsys):
    assert main(["check", "data", "--data.classes", "{1: bone}", "--patches.size", "[8, 9, 10]", "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["patches"]["size"] == [8, 9, 10]
    assert yaml.safe_load(printed)["data"]["classes"] == {"1": "bone"}  # JSON has no other keys; they are read as numbers
    (data / "printed.yaml").write_text(printed)
    for command in (["cache", "build"], ["profile"], ["export"]):
        assert main([*command, "--config", "printed.yaml", "--print_config"]) == 0
        assert capsys.readouterr().out == printed


def test_every_command_has_help_and_a_shell_completes(capsys):
    for command in (
        "check",
        "cache build",
        "cache info",
        "cache verify",
        "show",
        "export",
        "profile",
        "fit",
        "validate",
        "predict",
        "demo",
    ):
        with pytest.raises(SystemExit) as ended:
            main([*command.split(), "--help"])
        assert ended.value.code == 0
        said = capsys.readouterr().out
        assert said.startswith(f"usage: patchflow {command} ")
        assert "--patches.batch_size" in said
    with pytest.raises(SystemExit) as ended:
        main(["--print_completion", "shtab-bash"])
    assert ended.value.code == 0
    script = capsys.readouterr().out
    assert "--patches.batch_size" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_help_does_not_wait_for_heavy_packages():
    code = (
        "import sys; from patchflow.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'lightning', 'numba', 'h5py'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


def test_progress_bars_are_for_terminals_alone(data):
    ended = subprocess.run(
        [sys.executable, "-m", "patchflow.cli", "cache", "build", "data", "cache", "image=*/t1.nii.gz"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\r" not in ended.stderr
    assert "%" not in ended.stderr.replace("60%", "")
