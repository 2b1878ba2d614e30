"""What a folder of which nothing is said is taken for."""

import json

import numpy as np
import pytest

import patchflow as pf
from patchflow.errors import SubjectError
from patchflow.images.write import write_nifti
from patchflow.subjects import guess_subjects

VOXELS = np.ones((3, 4, 5), np.int16)


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, VOXELS, np.eye(4))


def names(subjects):
    return {subject.name: {name: type(image) for name, image in subject.images.items()} for subject in subjects}


def test_a_folder_with_images_is_a_subject_called_by_its_path(tmp_path):
    for path in ("b/t1.nii.gz", "b/lesion-mask.nii.gz", "a/visit 1/t1.nii", "a/visit 2/t1.nii", ".hidden/t1.nii", "b/notes.txt"):
        put(tmp_path / path) if "nii" in path else (tmp_path / path).write_text("")
    assert names(guess_subjects(tmp_path)) == {
        "a_visit 1": {"t1": pf.ScalarImage},
        "a_visit 2": {"t1": pf.ScalarImage},
        "b": {"t1": pf.ScalarImage, "lesion_mask": pf.LabelMap},
    }


def test_files_beside_each_other_are_subjects_of_their_own(tmp_path):
    for name in ("case1.nii.gz", "case1_seg.nii.gz", "7.nii.gz"):
        put(tmp_path / name)
    assert names(guess_subjects(tmp_path)) == {
        "image_7": {"image_7": pf.ScalarImage},
        "case1": {"case1": pf.ScalarImage},
        "case1_seg": {"case1_seg": pf.LabelMap},
    }


def test_a_folder_of_dicom_files_is_an_image_of_the_folder_above(tmp_path):
    pytest.importorskip("pydicom")
    from dicom_files import oblique, write_series

    (tmp_path / "p1" / "CT abdomen").mkdir(parents=True)
    write_series(tmp_path / "p1" / "CT abdomen", VOXELS, oblique())
    (subject,) = guess_subjects(tmp_path)
    assert subject.name == "p1"
    assert subject["CT_abdomen"].path == tmp_path / "p1" / "CT abdomen"


def test_a_raw_data_set_is_read_as_it_says(tmp_path):
    put(tmp_path / "imagesTr" / "c_0000.nii.gz")
    put(tmp_path / "labelsTr" / "c.nii.gz")
    told = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "numTraining": 1, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(told))
    assert names(guess_subjects(tmp_path)) == {"c": {"image": pf.ScalarImage, "label": pf.LabelMap}}


def test_what_cannot_be_guessed_is_refused(tmp_path):
    with pytest.raises(SubjectError, match="is not a folder"):
        guess_subjects(tmp_path / "nowhere")
    with pytest.raises(SubjectError, match="holds no file that can be read"):
        guess_subjects(tmp_path)
    put(tmp_path / "a" / "t1.nii.gz")
    put(tmp_path / "a" / "t1.nii")
    with pytest.raises(SubjectError, match=r"t1\.nii.* and .*t1\.nii.* would both be image 't1' of subject 'a'"):
        guess_subjects(tmp_path)
