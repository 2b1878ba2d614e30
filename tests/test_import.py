"""What `import patchflow` costs and what it offers."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import patchflow

HEAVY = ("torch", "numba", "lightning", "SimpleITK", "matplotlib", "blosc2", "nilearn", "h5py", "nibabel", "pydicom")
ALLOWED_SECONDS = 0.5


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120).stdout


def seconds_to(statement: str) -> float:
    return float(run(f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"))


def test_import_costs_at_most_half_a_second_more_than_torch() -> None:
    rounds = [(seconds_to("import torch"), seconds_to("import torch, patchflow")) for _ in range(3)]  # A B A B: a busy machine slows both
    torch_alone, both = (statistics.median(column) for column in zip(*rounds, strict=True))
    assert both - torch_alone <= ALLOWED_SECONDS


def test_import_loads_nothing_heavy() -> None:
    loaded = run(f"import sys, patchflow; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_work_without_training_never_loads_lightning_or_plots() -> None:
    names = [name for name in patchflow.__all__ if name not in ("PatchDataModule", "PredictionWriter", "WholeVolumeDice")]
    code = f"import sys, patchflow\nfor name in {names!r}: getattr(patchflow, name)\n"
    loaded = run(code + "print([name for name in ('lightning', 'SimpleITK', 'matplotlib', 'nilearn', 'blosc2') if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_type_checkers_and_the_interpreter_are_told_the_same() -> None:
    tree = ast.parse(Path(patchflow.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    pairs = {(alias.name, node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    rooms = {(room, "patchflow") for room in patchflow._ROOMS}
    assert pairs == set(patchflow._HOMES.items()) | rooms


def test_all_is_the_errors_and_the_lazy_names() -> None:
    errors = {
        name for name, value in vars(patchflow.errors).items() if isinstance(value, type) and issubclass(value, patchflow.PatchflowError)
    }
    assert set(patchflow.__all__) == errors | set(patchflow._HOMES) | set(patchflow._ROOMS)
    assert set(patchflow.__all__) <= set(dir(patchflow))


def test_every_public_name_resolves_to_a_documented_object() -> None:
    code = "import patchflow\nfor name in patchflow.__all__: print(name, bool(getattr(patchflow, name).__doc__))\n"
    lines = run(code).split("\n")[:-1]
    assert lines == [f"{name} True" for name in patchflow.__all__]


def test_rooms_are_there_after_a_bare_import() -> None:
    names = ("sampling.Sampler", "quality.Finding", "preprocess.Clamp", "augment.RandomFlip", "show.sheet", "testing.check_sampler")
    code = "import patchflow as pf\n" + "\n".join(f"print(pf.{name}.__module__)" for name in names)
    for name, line in zip(names, run(code).split(), strict=True):
        assert line.startswith(f"patchflow.{name.split('.')[0]}")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Quueue'"):
        _ = patchflow.Quueue
