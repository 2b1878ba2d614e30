"""Labels become integers that PyTorch has, exactly or not at all."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import patchflow as pf
from patchflow.errors import ImageError
from patchflow.images.labels import as_labels


def labels(values: list[float], dtype: str) -> np.ndarray:
    return np.array(values, dtype).reshape(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("dtype", "values", "kept"),
    [
        ("u1", [0, 255], "u1"),
        ("i1", [-128, 127], "i1"),
        ("i2", [-5, 1], "i2"),
        ("i4", [0, 1], "i4"),
        ("i8", [0, 2**60], "i8"),
        ("u2", [0, 65535], "i4"),
        ("u4", [0, 2**32 - 1], "i8"),
        ("u8", [0, 2**63 - 1], "i8"),
        ("f4", [0, 3], "u1"),
        ("f8", [-1, 300], "i2"),
        ("f4", [0, 40000], "i4"),
        ("f8", [0, 2.0**40], "i8"),
        ("f8", [-0.0, 255], "u1"),
    ],
)
def test_labels_stay_what_they_are(dtype: str, values: list[float], kept: str) -> None:
    found = as_labels(labels(values, dtype), 1, 0, "labels")
    assert found.dtype == np.dtype(kept)
    assert found.reshape(-1).tolist() == values
    torch.from_numpy(found)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4"])
@pytest.mark.parametrize(("slope", "inter", "expected"), [(2, 1, [1, 3, 7]), (-1, 0, [0, -1, -3]), (1, 300, [300, 301, 303])])
def test_scaled_labels(dtype: str, slope: float, inter: float, expected: list[int]) -> None:
    found = as_labels(labels([0, 1, 3], dtype), slope, inter, "labels")
    assert found.reshape(-1).tolist() == expected
    assert found.dtype == (np.uint8 if expected == [1, 3, 7] else np.int16)


def test_scaling_negative_integers_by_table() -> None:
    assert as_labels(labels([-3, -1, 1], "i2"), 0.5, 0.5, "labels").reshape(-1).tolist() == [-1, 0, 1]
    assert as_labels(labels([-3, -1, 1], "i1"), 0.5, 0.5, "labels").reshape(-1).tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    ("array", "slope", "message"),
    [
        (labels([0, 1, 0.5], "f4"), 1, r"file\.nii: .*channel 0 of voxel \(0, 0, 2\) holds 0\.5"),
        (labels([0, np.nan], "f8"), 1, r"voxel \(0, 0, 1\) holds nan"),
        (labels([np.inf, 0], "f8"), 1, r"voxel \(0, 0, 0\) holds inf"),
        (labels([0, 1, 3], "u1"), 0.5, r"voxel \(0, 0, 1\) holds 0\.5"),
        (labels([0, 1, 3], "i4"), 0.5, r"voxel \(0, 0, 1\) holds 0\.5"),
        (labels([0, 2**63], "u8"), 1, "too large"),
        (labels([0, 1e30], "f8"), 1, "do not fit"),
        (labels([1, 200], "u1"), 1e30, "do not fit"),
    ],
)
def test_what_is_no_integer_is_refused(array: np.ndarray, slope: float, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        as_labels(array, slope, 0, "file.nii")


def test_a_wrong_label_is_found_beyond_the_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchflow.images.labels._BLOCK", 7)
    array = np.zeros((2, 3, 4, 5), np.float32)
    array[1, 2, 1, 3] = 0.25
    with pytest.raises(ImageError, match=r"channel 1 of voxel \(2, 1, 3\) holds 0\.25"):
        as_labels(array, 1, 0, "labels")


def test_label_maps_of_files(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.nii.gz", tmp_path / "bad.nii.gz"
    nib.Nifti1Image(np.array([[[0, 1, 4]]], np.float32), np.eye(4)).to_filename(good)
    nib.Nifti1Image(np.array([[[0, 1, 4.5]]], np.float32), np.eye(4)).to_filename(bad)
    assert pf.LabelMap(good).dtype == np.float32  # as stored
    assert pf.LabelMap(good).data.dtype == np.uint8
    assert pf.LabelMap(good).data.tolist() == [[[[0, 1, 4]]]]
    with pytest.raises(ImageError, match=r"bad\.nii\.gz: labels must be integers.*ScalarImage"):
        pf.LabelMap(bad).load()
    assert pf.ScalarImage(bad).data[0, 0, 0, 2] == 4.5


def test_masks_of_bools_are_labels() -> None:
    mask = np.zeros((2, 2, 2), bool)
    mask[1, 0, 1] = True
    assert pf.LabelMap(mask).data.dtype == np.uint8
    assert pf.LabelMap(mask).data[0, 1, 0, 1] == 1
