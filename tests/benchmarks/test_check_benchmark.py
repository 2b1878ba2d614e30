"""The benchmark of the check runs, and reads in both arms what it says."""

import re
from pathlib import Path

import pytest
from benchmark_runs import REPOSITORY, run_benchmark

from patchflow.errors import ImageFileError


def test_it_prints_a_row_for_each_kind_of_file(tmp_path: Path) -> None:
    said = run_benchmark("check", "--small", "--rounds", "1", "--workers", "2", "--folder", str(tmp_path))
    rows = [line for line in said.splitlines() if re.match(r"\| .* \| 2 \|", line)]
    names = [row.split("|")[1].strip() for row in rows]
    assert [names[0], names[1], names[-1]] == ["CT int16", "CT labels uint8", "all together"]
    assert all(re.fullmatch(r"\|.*\| \d+\.\d \| \d+\.\d \| \d+% \| \d+\.\d \| \d+% \|", row) for row in rows)


def test_reading_goes_to_the_end_and_sees_the_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    from benchmarks import check

    path = check.write_subjects(tmp_path, (16, 16, 8), 1)[0][0].with_suffix(".nii.gz")
    check.read(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ImageFileError, match="truncated"):
        check.read(path)
