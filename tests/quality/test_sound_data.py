"""No false alarms on data that others made with care."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

import patchflow as pf
from patchflow import demo
from patchflow.quality import check_subjects

NIBABEL = Path(nibabel.__file__).parent / "tests" / "data"


@pytest.fixture(scope="module")
def template():
    pytest.importorskip("nilearn")
    return demo.template()


def test_the_template_with_its_tissue_masks(template):
    t1, grey, white, affine = template
    label = np.argmax(np.stack([1 - grey - white, grey, white]), axis=0).astype(np.uint8)
    subject = pf.Subject("mni", t1=pf.ScalarImage(t1, affine), tissue=pf.LabelMap(label, affine), grey=pf.ScalarImage(grey, affine))
    report = check_subjects([subject], classes=demo.CLASSES)
    # A few single voxels of grey matter lie alone in the background, which is worth a note; scipy counts as many.
    (islands,) = report.findings
    assert (islands.level, islands.check, islands.image) == ("note", "islands", "tissue")
    parts = ndimage.label(label == 1, np.ones((3, 3, 3)))[1]
    sizes = np.bincount(ndimage.label(label > 0, np.ones((3, 3, 3)))[0].reshape(-1))
    alone = int((sizes <= 3).sum())
    assert islands.sentence.startswith(
        f"label 1 (grey matter) has {alone} of its {parts} parts of at most 3 voxels and alone in the background"
    )


def test_the_template_is_no_label_map(template):
    t1, _, _, affine = template
    (finding,) = check_subjects([pf.Subject("mni", t1=pf.LabelMap(np.rint(t1).astype(np.int16), affine))]).findings
    assert (finding.level, finding.check) == ("error", "labels")
    assert "intensities or noise" in finding.sentence


@pytest.mark.parametrize("name", ["anatomical.nii", "functional.nii", "standard.nii.gz", "example4d.nii.gz", "example_nifti2.nii.gz"])
def test_the_files_of_nibabel(name):
    report = check_subjects([pf.Subject("one", image=pf.ScalarImage(NIBABEL / name))])
    assert [str(finding) for finding in report.findings] == []
