"""The data that the pages of documentation take to be there: the MNI152 template and its tissues at 2 mm, as several kinds of folder."""

import json
import shutil
from pathlib import Path

import numpy as np

from patchflow import demo, seeding
from patchflow.images.write import write_nifti

TISSUES = {"grey_matter": 1, "white_matter": 2}


def write_page_data(folder: Path) -> None:
    """Write data/, of three subjects; and the same as a BIDS data set, a raw data set of nnU-Net, and a table."""
    t1, grey, white, affine = demo.template()
    affine = affine @ np.diag([2.0, 2, 2, 1])
    t1, grey, white = (volume[::2, ::2, ::2] for volume in (t1, grey, white))
    truth = np.argmax(np.stack([1 - grey - white, grey, white]), axis=0).astype(np.uint8)
    rows = ["subject,t1,seg,age,site"]
    for number, name in enumerate(("s01", "s02", "s03")):
        rng = seeding.generator(number)
        cut = slice(2 * number, None)  # subjects of different sizes
        image = np.clip(t1[cut] * (3 + number) + rng.normal(0, 10, t1[cut].shape), 0, None).astype(np.int16)
        write_nifti(_made(folder / "data" / name) / "image.nii.gz", image, affine)
        write_nifti(folder / "data" / name / "label.nii.gz", truth[cut].copy(), affine)
        rows.append(f"{name},data/{name}/image.nii.gz,data/{name}/label.nii.gz,{50 + number},{'AB'[number % 2]}")
        _copy(folder, name, f"bids/sub-{name}/anat/sub-{name}_T1w.nii.gz", "image")
        _copy(folder, name, f"bids/derivatives/manual/sub-{name}/anat/sub-{name}_dseg.nii.gz", "label")
        _copy(folder, name, f"Dataset001_Brain/imagesTr/{name}_0000.nii.gz", "image")
        _copy(folder, name, f"Dataset001_Brain/labelsTr/{name}.nii.gz", "label")
    (folder / "subjects.csv").write_text("\n".join(rows) + "\n")
    described = {"channel_names": {"0": "T1"}, "labels": {"background": 0, **TISSUES}, "numTraining": 3, "file_ending": ".nii.gz"}
    (folder / "Dataset001_Brain" / "dataset.json").write_text(json.dumps(described))


def _copy(folder: Path, name: str, path: str, image: str) -> None:
    shutil.copyfile(folder / "data" / name / f"{image}.nii.gz", _made((folder / path).parent) / Path(path).name)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
