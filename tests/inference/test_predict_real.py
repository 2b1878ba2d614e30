"""Prediction of a real image: the MNI152 T1 template and its tissue maps, which come with nilearn (extra `demo`)."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

import patchflow as pf

DATA = Path(pytest.importorskip("nilearn").__file__).parent / "datasets" / "data"


def template(kind: str) -> Path:
    return DATA / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"


def test_the_template_comes_back_through_windows_and_a_file(tmp_path) -> None:
    subject = pf.Subject("mni152", image=pf.ScalarImage(template("t1")))
    source = nib.load(template("t1"))
    pf.predict(nn.Identity(), subject, patch_size=96, output="logits", path=tmp_path / "t1.nii", batch_size=2, progress=False)
    written = nib.load(tmp_path / "t1.nii")
    expected = source.get_fdata(dtype=np.float32)
    assert written.shape == expected.shape
    np.testing.assert_allclose(written.get_fdata(dtype=np.float32), expected, rtol=0, atol=1e-6 * np.ptp(expected))
    np.testing.assert_array_equal(written.affine, source.affine)


def test_tissues_of_the_template_are_told_apart_voxel_by_voxel(tmp_path) -> None:
    subject = pf.Subject("mni152", gm=pf.ScalarImage(template("gm")), wm=pf.ScalarImage(template("wm")))

    def tissue(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.full_like(x[:, :1], 127.5), x], dim=1)  # the maps hold 0 to 255

    pf.predict(
        tissue, subject, patch_size=(64, 80, 96), patch_overlap=16, images=("gm", "wm"), path=tmp_path / "labels.nii.gz", progress=False
    )
    values = [np.asarray(nib.load(template(kind)).dataobj) for kind in ("gm", "wm")]
    expected = np.argmax([np.full(values[0].shape, 127.5), *values], axis=0)
    written = nib.load(tmp_path / "labels.nii.gz")
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(written.dataobj), expected)
    np.testing.assert_array_equal(written.affine, nib.load(template("gm")).affine)
    assert np.bincount(expected.ravel(), minlength=3).min() > 100_000
