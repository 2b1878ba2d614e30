"""The benchmark of inference runs where no peer is installed, and says which are not."""

import json
import math
from pathlib import Path

import pytest
import torch
from benchmark_runs import REPOSITORY, run_benchmark


@pytest.fixture(autouse=True)
def _repository_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))


def test_every_part_runs_and_writes_its_numbers(tmp_path: Path) -> None:
    from benchmarks.contestants.inference.registry import CACHED, HANN, PEERS

    numbers, parts = tmp_path / "numbers.json", ("stitch", "memory", "unet")
    chosen = [argument for part in parts for argument in ("--part", part)]
    chosen += [argument for name in (CACHED, HANN, *PEERS) for argument in ("--only", name)]
    said = run_benchmark("inference", "--quick", "--data", str(tmp_path), "--json", str(numbers), "--classes", "7", *chosen)
    found = json.loads(numbers.read_text())["numbers"]
    assert list(found) == ["stitch", "memory", "classes", "unet"]
    for name in (CACHED, HANN):
        for product in ("logits", "labels"):
            row = found["stitch"][name][product]
            assert row["whole"] > row["model"] > 0
            assert row["rest"] == pytest.approx(row["whole"] - row["model"])
            assert row["calls"] == math.prod(math.ceil((n - 16) / 8) + 1 for n in (40, 36, 28))
            assert found["memory"][name][product]["held"] < 2**30
        assert found["stitch"][name]["error"] < 1e-6
    for name in PEERS:
        assert (name in found["stitch"]) != (f"{name}: not installed: " in said)
    assert found["classes"]["all logits"] == 4 * 7 * 40 * 36 * 28
    assert found["unet"]["whole"][0] > 0
    assert "add" in said


def test_a_peer_of_inference_that_is_not_installed_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import inference
    from benchmarks.contestants.inference import monai_sliding
    from benchmarks.contestants.inference.registry import CACHED, MONAI

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monai_sliding, "NEEDS", ("monai_of_another_world",))
        assert inference.installed([CACHED, MONAI]) == [CACHED]
    assert f"{MONAI}: not installed: monai_of_another_world" in capsys.readouterr().out


def test_rest_and_strict_are_medians_of_what_is_left_of_each_run() -> None:
    from benchmarks import inference

    runs = [{"whole": 5.0, "model": 1.0, "alone": 2.0, "calls": 8}, {"whole": 9.0, "model": 8.0, "alone": 1.0, "calls": 8}]
    found = inference.seconds([{"logits": run, "labels": run} for run in [*runs, runs[0]]])["labels"]
    assert found == {"whole": 5, "model": 1, "alone": 2, "calls": 8, "rest": 4, "strict": 3, "least": 1}


def test_a_child_answers_lines_and_one_that_dies_leaves_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.process import Child

    code = (
        "import json, sys\n"
        "for line in ['0', *sys.argv[1:]]:\n"
        "    print(json.dumps({'said': line}), flush=True)\n"
        "for line in sys.stdin:\n"
        "    print(json.dumps({'twice': 2 * int(line)}), flush=True)\n"
    )
    (tmp_path / "echo_of_lines.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Child("echo_of_lines", [], tmp_path / "log") as child:
        assert child.ready == {"said": "0"}
        assert [child.ask("7"), child.ask("8")] == [{"twice": 14}, {"twice": 16}]
        with pytest.raises(RuntimeError, match=r"(?s)a contestant ended; its last words.*invalid literal for int.*'seven"):
            child.ask("seven")


def test_models_give_fresh_tensors_of_their_classes_and_are_timed() -> None:
    from benchmarks.contestants.inference import material

    x = torch.arange(512.0).view(1, 1, 8, 8, 8)
    cheap = material.model("cheap")
    assert torch.equal(cheap(x), torch.cat((x, -x), 1))
    assert cheap.shapes == [(1, 1, 8, 8, 8)]
    assert cheap.seconds > 0
    many = material.model("classes 5")(x)
    assert torch.equal(many[0, :, 0, 0, 1], torch.tensor([-1, -0.5, 0, 0.5, 1]))
    assert material.model("unet")(x).shape == (1, 2, 8, 8, 8)
