"""A file read in its own order says what the same voxels in memory say."""

import gzip
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from broken_subjects import AFFINE, voxels

import patchflow as pf
from patchflow.quality import check_subjects
from patchflow.quality import reading as reading_module

IMAGE, LABEL = voxels(3)


def facts_of(one, **options):
    """What is known of its images, their source left out, and what was found."""
    report = check_subjects([one], **options)
    (subject,) = report.subjects
    return {name: replace(facts, source="") for name, facts in subject.images.items()}, report.findings, subject.picture


def files(folder, image, label, order="<", ending=".nii.gz"):
    """A subject of files in a byte order."""
    paths = []
    for name, array in (("image", image), ("label", label)):
        array = array.transpose(1, 2, 3, 0) if array.ndim == 4 else array
        nifti = nib.Nifti1Image(array, AFFINE)
        header = nifti.header if order == "<" else nifti.header.as_byteswapped(order)
        header.set_data_dtype(array.dtype)
        paths.append(folder / f"{name}{ending}")
        nib.save(nib.Nifti1Image(array, AFFINE, header), paths[-1])
    return pf.Subject("s", image=pf.ScalarImage(paths[0]), label=pf.LabelMap(paths[1]))


@pytest.mark.parametrize("pieces", [1 << 22, 4096, 1000])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_files_and_arrays_agree(tmp_path, monkeypatch, dtype, order, ending, pieces):
    monkeypatch.setattr(reading_module, "_PIECE", pieces)
    image, label = np.stack([IMAGE, IMAGE // 2]).astype(dtype), LABEL.copy()
    label[1, 2, 3] = 2  # an island, whose place must be right
    arrays = pf.Subject("s", image=pf.ScalarImage(image, AFFINE), label=pf.LabelMap(label, AFFINE))
    mine, others = facts_of(files(tmp_path, image, label, order, ending)), facts_of(arrays)
    for name in ("image", "label"):
        np.testing.assert_allclose(mine[0][name].affine, others[0][name].affine, atol=1e-6)
        rounded = {"affine": (), "spacing": (), "classes": ()}
        assert replace(mine[0][name], **rounded) == replace(others[0][name], **rounded)
    assert mine[1] == others[1]
    assert "the first at (1, 2, 3)" in mine[1][-1].sentence
    assert mine[2] == others[2]


def test_labels_with_a_fraction_are_placed_in_the_volume(tmp_path):
    label = LABEL.astype(np.float32)
    label[1, 2, 3] = 0.5
    (_, (finding,), _) = facts_of(files(tmp_path, IMAGE, label))
    assert finding.check == "readable"
    assert "channel 0 of voxel (1, 2, 3) holds 0.5" in finding.sentence


def test_a_file_that_goes_on_is_not_readable(tmp_path):
    one = files(tmp_path, IMAGE, LABEL)
    path = tmp_path / "image.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"more"))
    (_, (finding,), _) = facts_of(one)
    assert (finding.check, finding.image) == ("readable", "image")
    assert "goes on after" in finding.sentence


def test_other_formats_are_checked_too(tmp_path):
    np.save(tmp_path / "image.npy", IMAGE)
    mine = facts_of(pf.Subject("s", image=pf.ScalarImage(tmp_path / "image.npy", AFFINE)))
    assert mine == facts_of(pf.Subject("s", image=pf.ScalarImage(IMAGE, AFFINE)))
