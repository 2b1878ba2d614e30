"""The README's Python and the example run as they stand, on a small folder."""

import re
import runpy
import sys
from pathlib import Path

import lightning
import nibabel
import numpy as np
import pytest
import torch
import yaml

from patchflow import seeding
from patchflow.images.write import write_nifti

ROOT = Path(__file__).parents[1]


@pytest.fixture
def make_folder(tmp_path, monkeypatch):
    """Makes data/NAME/IMAGE.nii.gz of three subjects in a folder of its own, which is the working folder then."""
    monkeypatch.chdir(tmp_path)
    affine = np.array([[0, -1, 0, 3], [1, 0, 0, 4], [0, 0, 2.0, 5], [0, 0, 0, 1]])

    def make(image, label, shape=(40, 44, 36)):
        for number in range(3):
            rng = seeding.generator(number)
            truth = np.zeros(shape, np.uint8)
            truth[10:30, 12:30, 8:28] = 1
            truth[14:24, 16:26, 12:22] = 2
            values = truth * 300.0 + rng.normal(0, 30, shape)
            (tmp_path / "data" / f"s{number}").mkdir(parents=True)
            write_nifti(tmp_path / "data" / f"s{number}" / f"{image}.nii.gz", values.astype(np.int16), affine)
            write_nifti(tmp_path / "data" / f"s{number}" / f"{label}.nii.gz", truth, affine)
        return affine

    return make


def model(image):
    return torch.cat([-image, image, 0 * image], dim=1)


class Module(lightning.LightningModule):
    def predict_step(self, batch):
        return model(batch["image"])


@pytest.mark.filterwarnings("ignore")  # Lightning's, about few workers
def test_the_readmes_python_runs(make_folder):
    affine = make_folder("image", "label")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    names = {"model": model, "module": Module(), "torch": torch}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    for name in ("s0", "s1", "s2"):
        assert nibabel.load(f"predictions/{name}.nii.gz").shape == (40, 44, 36)
    assert nibabel.load("s1.nii.gz").shape == (40, 44, 36)
    written = nibabel.load("prediction.nii.gz")
    assert written.shape == (40, 44, 36)
    assert np.allclose(written.affine, affine)


@pytest.mark.filterwarnings("ignore")  # Lightning's, about few workers and short runs
def test_the_example_trains_and_predicts_as_configured(make_folder, monkeypatch):
    affine = make_folder("t1", "tissue")
    config = yaml.safe_load((ROOT / "configs" / "segment.yaml").read_text())
    config["data"] |= {"folder": "data", "held_out": ["s2"]}
    config["patches"] |= {"size": [16, 16, 16], "batch_size": 2}
    config["training"] |= {"steps": 3, "width": 4}
    config["prediction"] |= {"window": [16, 16, 16], "overlap": 4}
    Path("small.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(sys, "argv", ["segment.py", "small.yaml"])
    runpy.run_path(str(ROOT / "examples" / "segment.py"), run_name="__main__")
    written = nibabel.load("segment-out/s2.nii.gz")
    assert written.shape == (40, 44, 36)
    assert np.allclose(written.affine, affine)
    assert np.unique(np.asarray(written.dataobj)).max() <= 2
