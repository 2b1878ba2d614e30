"""Kernels are compiled once per machine, also where the package itself cannot be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "patchflow"
CODE = """
import numpy as np
from patchflow.kernels import pointwise
out = pointwise.apply_map(np.arange(8, dtype=np.int16).reshape(1, 2, 2, 2), pointwise.IntensityMap(2.0, 1.0))
assert pointwise.__file__.startswith({root!r}), pointwise.__file__
assert out.ravel().tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
stats = pointwise._map_box.stats
print("loaded" if stats.cache_hits else "compiled", stats.cache_path)
"""


@pytest.fixture
def read_only(tmp_path):
    """A copy of the package in which no folder for compiled code can be made: a file of that name is in the way, which stops root too."""
    root = tmp_path / "site"
    shutil.copytree(PACKAGE, root / "patchflow", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "patchflow" / "kernels" / "__pycache__").touch()
    return root


def run(root, cache):
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(root), "HOME": str(cache), "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-c", CODE.format(root=str(root))]
    done = subprocess.run(command, env=given, cwd=root, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0], done.stdout.split(maxsplit=1)[1].strip(), done.stderr


def test_a_read_only_installation_keeps_kernels_in_the_users_cache_folder(read_only, tmp_path):
    first, folder, _ = run(read_only, tmp_path / "cache")
    assert first == "compiled"
    assert folder.startswith(str(tmp_path / "cache"))
    assert run(read_only, tmp_path / "cache")[0] == "loaded"


def test_where_nothing_can_be_written_kernels_work_all_the_same_and_it_is_said(read_only, tmp_path):
    (tmp_path / "file").touch()
    how, _, told = run(read_only, tmp_path / "file" / "cache")
    assert how == "compiled"
    assert told.count("NUMBA_CACHE_DIR") == 1


def test_kernels_are_compiled_anew_when_one_that_they_may_call_has_changed(read_only, tmp_path):
    run(read_only, tmp_path / "cache")
    assert run(read_only, tmp_path / "cache")[0] == "loaded"
    with (read_only / "patchflow" / "kernels" / "elementary.py").open("a") as file:
        file.write("# changed\n")
    assert run(read_only, tmp_path / "cache")[0] == "compiled"
