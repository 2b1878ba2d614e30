import numpy as np
import pytest
from broken_subjects import AFFINE, told, voxels, write

import patchflow as pf
from patchflow.quality import check_subjects
from patchflow.quality.cohort import robust_z


def cohort(change=None, count=8):
    """Subjects of arrays, alike; `change` takes (number, image, label, affine) and gives them back."""
    subjects = []
    for number in range(count):
        image, label = voxels(number)
        parts = image, label, AFFINE
        if change is not None:
            parts = change(number, *parts)
        subjects.append(pf.Subject(f"s{number}", image=pf.ScalarImage(parts[0], parts[2]), label=pf.LabelMap(parts[1], parts[2])))
    return subjects


def test_a_sound_cohort_has_no_findings():
    assert told(check_subjects(cohort(), classes=[1, 2], num_workers=2)) == []


def test_robust_z_by_hand():
    # median 3, deviations 2 1 0 1 97, MAD 1
    np.testing.assert_allclose(robust_z([1, 2, 3, 4, 100]), 0.6745 * np.array([-2, -1, 0, 1, 97]))
    assert robust_z([5, 5, 5, 6], least=0.6745) == [0, 0, 0, 1]


def test_copies_across_subjects(tmp_path):
    subjects = [write(tmp_path, number) for number in range(3)]
    write(tmp_path / "other", 1)  # the same voxels, packed again under another name
    copied = pf.Subject(
        "copy", image=pf.ScalarImage(tmp_path / "other/s1/image.nii.gz"), label=pf.LabelMap(tmp_path / "other/s1/label.nii.gz")
    )
    report = check_subjects([*subjects, copied])
    assert told(report, "error") == [("duplicate", "copy", "image")]
    assert told(report, "warning") == [("duplicate", "copy", "label")]
    assert "'image' of subject 's1'" in report.findings[0].sentence


def test_a_copy_within_a_subject_is_a_warning_and_empty_label_maps_are_none():
    image, label = voxels(0)
    one = pf.Subject("one", t1=pf.ScalarImage(image), t2=pf.ScalarImage(image), label=pf.LabelMap(np.zeros_like(label)))
    two = pf.Subject("two", t1=pf.ScalarImage(image + 1), t2=pf.ScalarImage(image + 2), label=pf.LabelMap(np.zeros_like(label)))
    assert told(check_subjects([one, two], skip=["empty"])) == [("duplicate", "one", "t2")]


def test_images_that_not_all_have_and_channels_that_differ():
    subjects = cohort(lambda n, image, label, affine: (np.stack([image, image + 1]) if n == 2 else image, label, affine))
    image, _ = voxels(99)
    subjects.append(pf.Subject("bare", image=pf.ScalarImage(image, AFFINE)))
    report = check_subjects(subjects)
    assert told(report, "error") == [("images", "s2", "image")]
    assert told(report, "warning") == [("images", "bare", "label")]


def test_an_image_that_few_have_is_one_finding():
    image, _ = voxels(99)
    extra = pf.Subject(
        "extra", image=pf.ScalarImage(image, AFFINE), label=pf.LabelMap(voxels(99)[1], AFFINE), pet=pf.ScalarImage(image + 1, AFFINE)
    )
    report = check_subjects([*cohort(), extra])
    assert told(report, "warning") == [("images", None, "pet")]
    assert report.findings[0].sentence == "only 1 of 9 subjects have this image: extra"


def test_other_dtypes_and_orientations():
    def change(number, image, label, affine):
        if number == 3:
            image = image.astype(np.float32)
        if number == 5:
            image, label, affine = image[::-1], label[::-1], affine @ np.array([[-1, 0, 0, 23], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        return image, label, affine

    report = check_subjects(cohort(change))
    assert told(report, "note") == [("dtype", "s3", "image")]
    assert told(report, "warning") == [("orientation", "s5", "image"), ("orientation", "s5", "label")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n, image, label, affine: (image, label, affine if n != 4 else affine @ np.diag([2, 1, 1, 1])), "spacing"),
        (lambda n, image, label, affine: (image if n != 4 else image[:14], label if n != 4 else label[:14], affine), "extent"),
        (lambda n, image, label, affine: (image if n != 4 else image * 3, label, affine), "intensity"),
    ],
)
def test_outliers(change, words):
    report = check_subjects(cohort(change), skip=["clipped", "range"])
    own = [finding for finding in report.findings if finding.image == "image" and finding.sentence.startswith(words)]
    assert [(finding.level, finding.check, finding.subject) for finding in own] == [("warning", "outlier", "s4")]
    assert {finding.subject for finding in report.findings} == {"s4"}
    assert not [finding for finding in report.of(check="outlier") if finding.image == "label"]  # it lies as the image does


def test_five_subjects_have_no_outliers():
    subjects = cohort(lambda number, image, label, affine: (image if number != 4 else image * 3, label, affine), count=5)
    assert told(check_subjects(subjects, skip="clipped")) == []


def test_classes_that_nobody_or_hardly_anybody_has():
    report = check_subjects(cohort(), classes={1: "rim", 2: "core", 3: "halo"})
    assert told(report, "warning") == [("labels", None, "label")]
    assert "class 3 (halo)" in report.findings[0].sentence

    def change(number, image, label, affine):
        label = label.copy()
        label[0, 0, :8] = 9 if number == 6 else 0
        return image, label, affine

    assert told(check_subjects(cohort(change))) == [("labels", "s6", "label")]
