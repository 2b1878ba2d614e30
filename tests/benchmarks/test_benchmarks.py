"""The benchmarks run, and say what they did not measure."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmark_runs import REPOSITORY, run_benchmark


@pytest.fixture(autouse=True)
def _repository_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))


def test_subjects_are_the_same_for_the_same_seed_and_hold_every_class() -> None:
    from benchmarks import data

    image, label = data.subject((128, 128, 64), seed=1)
    again, _ = data.subject((128, 128, 64), seed=1)
    np.testing.assert_array_equal(image, again)
    assert image.dtype == np.int16
    assert label.dtype == np.uint8
    assert set(np.unique(label)) == {0, *data.CLASSES}
    assert image[0, 0].mean() < -980  # air around the body
    assert abs(float(image[label == 1].mean()) - 60) < 2  # the liver has the level that its row states


def test_memory_counts_what_a_process_holds_and_not_what_it_maps(tmp_path: Path) -> None:
    from benchmarks import memory

    (tmp_path / "file").write_bytes(bytes(64 * 2**20))
    code = (
        "import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); sum(m[::4096]);"
        "print(0, flush=True); sys.stdin.readline(); b = b'x' * (50 * 2**20); print(len(b), flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "file")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        before = memory.unreclaimable(child.pid)
        child.stdin.write("\n")
        child.stdout.readline()
        after = memory.unreclaimable(child.pid)
        child.stdin.write("\n")
    assert before < 32 * 2**20
    assert 49 * 2**20 < after - before < 60 * 2**20


def test_the_loading_benchmark_runs_and_writes_its_numbers(tmp_path: Path) -> None:
    arguments = [
        "--quick",
        "--data",
        str(tmp_path),
        "--json",
        str(tmp_path / "numbers.json"),
        "--only",
        "patchflow, threads",
        "--races-only",
    ]
    said = run_benchmark("loading", *arguments, log=tmp_path / "quick" / "log")
    numbers = json.loads((tmp_path / "numbers.json").read_text())["numbers"]
    assert numbers["patchflow, threads: patches/s"] > 0
    assert "memory grown over 50 batches" in said


def test_the_augmented_loading_benchmark_runs_and_times_the_first_batch(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    arguments = ["--quick", "--augment", "nnunet", "--data", str(tmp_path), "--json", str(numbers), "--only", "patchflow, threads"]
    run_benchmark("loading", *arguments, log=tmp_path / "quick" / "log")
    found = json.loads(numbers.read_text())
    assert found["course"]["augment"] == "nnunet"
    assert found["numbers"]["patchflow, threads: patches/s"] > 0
    assert 0 < found["numbers"]["first augmented batch, every transform happening, s"] < 60


def test_a_package_without_transforms_is_left_out_of_the_augmented_race() -> None:
    from benchmarks import race

    course = race.Course(Path(), "64x64x48", subjects=1, patch=32, augment="nnunet")
    problem = race.race(course, reference=None, name="medh5 PatchDataset").problem  # type: ignore[arg-type]
    assert problem.startswith(("has no transforms of its own", "not installed"))


def test_the_augment_benchmark_runs_every_row_and_writes_its_numbers(tmp_path: Path) -> None:
    from benchmarks.contestants.augment.rows import ROWS

    numbers = tmp_path / "numbers.json"
    said = run_benchmark("augment", "--quick", "--json", str(numbers))
    found = json.loads(numbers.read_text())["rows"]
    assert list(found) == [row.name for row in ROWS]
    assert {name: row["patchflow"] for name, row in found.items() if not isinstance(row.get("patchflow"), float)} == {}
    assert all(row["ratio"] > 0 for name, row in found.items() if name.endswith("against torch"))
    assert "bound" in said


def test_ratios_count_the_read_only_where_it_is_part_of_the_work() -> None:
    from benchmarks import augment
    from benchmarks.contestants.augment.rows import Row

    times: dict[str, float | str] = {"patchflow": 3.0, "read": 1.0, "bgv2": 8.0, "MONAI": 6.0, "TorchIO": "not there: TypeError"}
    assert augment.ratios(Row("blur"), times) == {"bound": 1, "without read": 2, "ratio with read": 2, "ratio": 3}
    assert augment.ratios(Row("affine", spatial=True, bound=3), times)["ratio"] == 2
    assert augment.ratios(Row("blur"), {"patchflow": "not there", "read": 1.0, "bgv2": 8.0}) == {"bound": 1}


def test_a_transform_that_is_not_there_is_reported_and_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import augment
    from benchmarks.contestants.augment import patchflow_recipe, rows

    material = rows.make_material(tmp_path, 16, (24, 24, 24))
    row = rows.Row("of another world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(patchflow_recipe.RECIPES, row.name, patchflow_recipe.recipe("RandomMiracle"))
        numbers = augment.measure(row, material, {}, rounds=1)
    assert str(numbers["patchflow"]).startswith("not there: AttributeError")
    assert float(numbers["read"]) > 0
    assert "RandomMiracle" in capsys.readouterr().out


def test_a_peer_of_the_transforms_that_is_not_installed_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import augment
    from benchmarks.contestants.augment import bgv2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bgv2, "NEEDS", ("batchgenerators_of_another_world",))
        assert "bgv2" not in augment.installed_peers()
    assert "bgv2: not installed: batchgenerators_of_another_world" in capsys.readouterr().out


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import race
    from benchmarks.contestants import nnunet

    monkeypatch.setattr(nnunet, "NEEDS", ("nnunetv2_of_another_world",))
    course = race.Course(Path(), "64x64x48", subjects=1, patch=32)
    result = race.race(course, reference=None, name="nnU-Net v2")  # type: ignore[arg-type]
    assert "not installed: nnunetv2_of_another_world" in result.problem
