"""The benchmark of reading .nii.gz runs, and compares what it says."""

import json
import zlib
from pathlib import Path

import pytest
from benchmark_runs import REPOSITORY, run_benchmark


def test_it_runs_and_writes_its_numbers(tmp_path: Path) -> None:
    said = run_benchmark("reading", "--small", "--rounds", "1", "--folder", str(tmp_path), "--json", str(tmp_path / "numbers.json"))
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    found = numbers["image 96x96x40 int16"]
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert found["times as fast"]["zlib against nibabel"] == found["seconds"]["nibabel"] / found["seconds"]["patchflow, zlib"]
    assert "image 96x96x40 int16" in said


def test_each_way_undoes_deflate_by_what_it_is_called_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    from benchmarks import reading
    from patchflow.images import stream

    before = stream._deflate
    assert reading.undone_by(zlib, lambda: stream._deflate)() is zlib
    assert stream._deflate is before
    assert reading.ratios({"patchflow, zlib": 2.0, "nibabel": 5.0}) == {"zlib against nibabel": 2.5}
