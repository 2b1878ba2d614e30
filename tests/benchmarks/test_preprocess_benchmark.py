"""The preprocessing benchmark runs on small subjects."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import patchflow as pf
from patchflow.seeding import generator

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    from benchmarks import preprocess

    values = np.pad(generator(0).random((17, 21, 13)).astype(np.float32), 2)
    monkeypatch.setattr(preprocess, "template", lambda: (values, np.eye(4)))
    preprocess.make_subjects(tmp_path / "data", 2)
    return tmp_path / "data"


def test_patchflows_part(small: Path, tmp_path: Path) -> None:
    from benchmarks import preprocess

    preprocess.run_patchflow(sorted(small.glob("*.nii.gz")), tmp_path / "cache", True, 0)
    cache = pf.open_cache(tmp_path / "cache")
    assert cache.names == ("subject000", "subject001")
    assert [change.step for change in cache[0].changes] == ["ToCanonical", "Resample"]
    assert cache[0].native.shape == (21, 25, 17)
    assert cache[0].shape == (14, 17, 11)
    assert abs(cache[0].images["image"].statistics.std - 1) < 1e-5


def test_the_whole(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import preprocess

    calls = []

    def timed(name: str, data: Path, count: int, anti_alias: bool, workers: int) -> tuple[float, int]:
        calls.append((name, anti_alias))
        return (1.0 if name == "patchflow" else 2.0), 3 << 20

    monkeypatch.setattr(preprocess, "timed", timed)
    monkeypatch.setattr(
        sys, "argv", ["preprocess", "--data", str(small), "--subjects", "2", "--rounds", "2", "--json", str(tmp_path / "n.json")]
    )
    preprocess.main()
    found = json.loads((tmp_path / "n.json").read_text())
    assert found == json.loads(capsys.readouterr().out)
    assert found["plain"] == {"patchflow": {"seconds": [1.0, 1.0], "MiB": 3}, "torchio": {"seconds": [2.0, 2.0], "MiB": 3}, "ratio": 0.5}
    assert calls[1:5] == [("patchflow", False), ("torchio", False)] * 2
