"""The benchmarks run, and say what they did not measure."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]


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
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.loading", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "quick" / "log").read_text()
    numbers = json.loads((tmp_path / "numbers.json").read_text())["numbers"]
    assert numbers["patchflow, threads: patches/s"] > 0
    assert "memory grown over 50 batches" in done.stdout


def test_a_peer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import race
    from benchmarks.contestants import nnunet

    monkeypatch.setattr(nnunet, "NEEDS", ("nnunetv2_of_another_world",))
    course = race.Course(Path(), "64x64x48", subjects=1, patch=32)
    result = race.race(course, reference=None, name="nnU-Net v2")  # type: ignore[arg-type]
    assert "not installed: nnunetv2_of_another_world" in result.problem
