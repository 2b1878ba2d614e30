"""What goes wrong on the way: nothing half-written, nothing left running, nothing of other people's touched."""

import itertools
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

import patchflow as pf
from patchflow.errors import ImageFileError, InferenceError

IMAGE = np.random.default_rng(0).normal(size=(1, 30, 9, 8)).astype(np.float32)
SUBJECT = pf.Subject("p7", image=pf.ScalarImage(IMAGE))
OPTIONS = {"patch_size": (6, 6, 8), "patch_overlap": (3, 3, 0), "progress": False}
NAMES = ["out.nii", "out.nii.gz", "out.h5"]


@pytest.fixture(autouse=True)
def nothing_keeps_running():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("patchflow")]


class Failing:
    """The identity, until at one call it does something else."""

    def __init__(self, call: int, does) -> None:
        self.call, self.does, self.calls = call, does, 0

    def __call__(self, x: torch.Tensor):
        self.calls += 1
        return self.does(x) if self.calls == self.call else x


def raising(error: BaseException):
    def does(x: torch.Tensor) -> torch.Tensor:
        raise error

    return does


LATE = r'subject "p7", window \[(15|18|21|24):'
FAILURES = [
    (lambda x: x[:, :, :-1], InferenceError, LATE + r".*not \(2, 1, 5, 6, 8\)"),
    (lambda x: x[:1], InferenceError, LATE + r".*not \(1, 1, 6, 6, 8\)"),
    (lambda x: torch.cat([x, x], 1), InferenceError, LATE + ".*has 2 channels, but that of window .* has 1"),
    (lambda x: torch.where(torch.arange(8) == 3, torch.nan, x), InferenceError, LATE + ".*36 of 288 predicted values are NaN"),
    (lambda x: None, InferenceError, LATE + ".*not None"),
    (lambda x: {"a": x}, InferenceError, LATE + '.*"a", but one tensor before'),
    (lambda x: x.half(), InferenceError, LATE + ".*float16, but that of window .* is torch.float32"),
]


def untouched(folder: Path, name: str) -> tuple[Path, bytes]:
    """An older file of that name."""
    (folder / name).write_bytes(b"older")
    return folder / name, b"older"


def only(path: Path, content: bytes) -> None:
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("does", "error", "message"), FAILURES)
def test_a_model_that_goes_wrong_late_leaves_an_older_file_as_it_was(tmp_path, name: str, does, error, message: str) -> None:
    path, content = untouched(tmp_path, name)
    with pytest.raises(error, match=message):
        pf.predict(Failing(7, does), SUBJECT, path=path, output="logits", batch_size=2, **OPTIONS)
    only(path, content)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("call", [1, 2, 9])
def test_a_model_that_raises(tmp_path, name: str, call: int) -> None:
    path, content = untouched(tmp_path, name)
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        pf.predict(Failing(call, raising(RuntimeError("out of memory"))), SUBJECT, path=path, batch_size=2, **OPTIONS)
    assert caught.value.__notes__[0].startswith('while predicting subject "p7", window [')
    assert caught.value.__notes__[0].endswith(" and 1 more of its batch")
    only(path, content)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_an_interruption_inside_the_model(tmp_path, error: BaseException) -> None:
    path, content = untouched(tmp_path, "out.nii.gz")
    model = nn.Sequential(nn.Dropout(0.5), nn.Identity())
    model[1].forward = Failing(8, raising(error))
    with pytest.raises(type(error)):
        pf.predict(model, SUBJECT, path=path, **OPTIONS)
    assert model[0].training
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    only(path, content)


@pytest.mark.parametrize("name", NAMES)
def test_an_output_function_that_raises(tmp_path, name: str) -> None:
    path, content = untouched(tmp_path, name)
    calls = itertools.count(1)

    def output(slab: torch.Tensor) -> torch.Tensor:
        if next(calls) == 4:
            raise ZeroDivisionError("no voxels")
        return slab

    with pytest.raises(ZeroDivisionError, match="no voxels") as caught:
        pf.predict(nn.Identity(), SUBJECT, output=output, path=path, **OPTIONS)
    assert caught.value.__notes__ == ['in the output function, for subject "p7", the slab of slices 9 to 12 along I']
    only(path, content)


def test_a_test_for_emptiness_that_raises() -> None:
    def skip(window: torch.Tensor) -> bool:
        raise TypeError("no such test")

    with pytest.raises(TypeError, match="no such test") as caught:
        pf.predict(nn.Identity(), SUBJECT, skip_empty=skip, **OPTIONS)
    assert caught.value.__notes__ == ['in skip_empty, for subject "p7", window [0:6, 3:9, 0:8]']


def test_a_failure_of_one_output_leaves_none(tmp_path) -> None:
    paths = {"a": tmp_path / "a.nii.gz", "b": tmp_path / "b.h5"}
    for spoil, message in ((lambda b: b.half(), "float16"), (lambda b: b / 0, "NaN or infinite")):
        model = Failing(9, lambda given, spoil=spoil: {"a": given["a"], "b": spoil(given["b"])})
        with pytest.raises(InferenceError, match=message):
            pf.predict(lambda x, model=model: model({"a": x, "b": x}), SUBJECT, output="logits", path=paths, **OPTIONS)
        assert list(tmp_path.iterdir()) == []


def test_a_source_that_cannot_be_read(tmp_path) -> None:
    """A window in the middle fails in the thread that reads."""
    source = pf.build_cache([SUBJECT], tmp_path / "cache", progress=False)[0]

    class Broken:
        name, shape, affine, images = source.name, source.shape, source.affine, source.images

        def read(self, name, location, *, out=None, fill=0):
            if location.start[0] > 12:
                raise OSError("the disk is gone")
            return source.read(name, location, out=out, fill=fill)

    with pytest.raises(OSError, match="the disk is gone"):
        pf.predict(nn.Identity(), Broken(), path=tmp_path / "out.nii.gz", **OPTIONS)
    assert [file.name for file in tmp_path.iterdir()] == ["cache"]


def test_a_path_that_became_a_folder(tmp_path) -> None:
    (tmp_path / "out.nii.gz").mkdir()
    with pytest.raises(ImageFileError, match=r"out\.nii\.gz cannot be written"):
        pf.predict(nn.Identity(), SUBJECT, path=tmp_path / "out.nii.gz", **OPTIONS)
    assert [file.name for file in tmp_path.rglob("*")] == ["out.nii.gz"]


FULL = """
    import resource, signal, threading
    import numpy as np, torch, patchflow as pf
    from patchflow.errors import ImageFileError, InferenceError

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    folder = {folder!r}
    volume = np.random.default_rng(0).normal(size=(1, 40, 32, 32)).astype(np.float32)
    options = dict(patch_size=16, output="logits", progress=False)
    expected = pf.predict(lambda x: x, volume, **options)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (10, 60_000, 150_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        for name in ("out.nii", "out.nii.gz", "out.h5"):
            try:
                pf.predict(lambda x: x, volume, path=folder + "/" + name, **options)
            except ImageFileError as error:
                print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        pf.predict(lambda x: x, volume, path=folder + "/scratch.h5", memory_budget=1, **options)
    except InferenceError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    path = pf.predict(lambda x: x, volume, path=folder + "/last.nii", **options)
    print(path.name, [t.name for t in threading.enumerate() if t.name.startswith("patchflow")])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes there")
def test_a_full_disk_in_a_script_without_a_guard(tmp_path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "out.nii").write_bytes(b"older")
    (tmp_path / "script.py").write_text(textwrap.dedent(FULL.format(folder=str(tmp_path / "results"))))
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=100, env=dict(os.environ))
    assert not done.stderr
    lines = done.stdout.splitlines()
    for line, name in zip(lines[:9], NAMES * 3, strict=True):
        assert f"results/{name} cannot be written (File too large)" in line
    assert lines[9].startswith("the slices in work take 64.0 KiB, which ")
    assert "has no room for (File too large): name another folder by scratch_dir, or raise memory_budget" in lines[9]
    assert lines[10:] == ["last.nii []"]
    assert sorted(file.name for file in (tmp_path / "results").iterdir()) == ["last.nii", "out.nii"]
    assert (tmp_path / "results" / "out.nii").read_bytes() == b"older"


def test_predictions_in_threads_side_by_side(tmp_path) -> None:
    rng = np.random.default_rng(1)
    volumes = [rng.normal(size=(1, 40, 9, 8)).astype(np.float32) for _ in range(6)]
    model = nn.Conv3d(1, 3, 3, padding=1).eval()
    alone = [pf.predict(model, volume, **OPTIONS) for volume in volumes]

    def one(number: int) -> np.ndarray:
        path = pf.predict(model, volumes[number], path=tmp_path / f"{number}.nii.gz", **OPTIONS)
        return np.asarray(nib.load(path).dataobj)[None]

    with ThreadPoolExecutor(3) as pool:
        for expected, found in zip(alone, pool.map(one, range(6)), strict=True):
            np.testing.assert_array_equal(found, expected.numpy())


class Dropping(nn.Dropout):
    """Waits in each call until it is told to go on."""

    def __init__(self) -> None:
        super().__init__(0.5)
        self.called, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.called.release()
        self.go_on.acquire()
        return super().forward(x)


def test_a_model_that_two_threads_share_stays_in_evaluation_mode_until_both_are_done() -> None:
    model, volume = Dropping().train(), IMAGE[:, :6, :6]
    options = OPTIONS | {"output": "logits", "patch_overlap": 0}
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pf.predict, model, volume, **options)
        model.called.acquire()
        second = pool.submit(pf.predict, model, IMAGE[:, :12, :6], **options)
        model.called.acquire()
        model.go_on.release()  # to one of them, which may be either
        model.called.acquire(timeout=1)
        model.go_on.release(2)
        np.testing.assert_allclose(first.result().numpy(), volume, rtol=1e-6)
        np.testing.assert_allclose(second.result().numpy(), IMAGE[:, :12, :6], rtol=1e-6)
    assert model.training


def test_a_prediction_within_a_prediction() -> None:
    """A model that predicts another volume, as cascades do."""

    def cascade(x: torch.Tensor) -> torch.Tensor:
        return pf.predict(nn.Identity(), x[0], patch_size=4, output="logits", progress=False)[None]

    found = pf.predict(cascade, IMAGE, output="logits", **OPTIONS)
    np.testing.assert_allclose(found.numpy(), IMAGE, rtol=0, atol=2e-6 * np.ptp(IMAGE))
