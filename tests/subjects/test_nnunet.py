"""Raw data sets of nnU-Net."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import patchflow as pf
from patchflow.errors import ArgumentError, ImageError, SubjectError


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def describe(root: Path, **changes: Any) -> Path:
    content = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4},
        "regions_class_order": [1, 2, 3],
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "name": "Glioma",
    }
    kept = {key: value for key, value in (content | changes).items() if value is not None}
    root.mkdir(exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(kept))
    return root


@pytest.fixture
def glioma(tmp_path: Path) -> Path:
    cases = ("BraTS 1", "BraTS_0002")
    make(tmp_path, *(f"imagesTr/{case}_{channel}.nii.gz" for case in cases for channel in ("0000", "0001")))
    make(tmp_path, *(f"labelsTr/{case}.nii.gz" for case in cases), "imagesTr/._BraTS 1_0000.nii.gz", "labelsTr/notes.txt")
    make(tmp_path, "imagesTs/x_0000.nii.gz", "imagesTs/x_0001.nii.gz")
    return describe(tmp_path)


@pytest.fixture
def liver(tmp_path: Path) -> Path:
    make(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    return describe(
        tmp_path, channel_names={"0": "CT"}, labels={"background": 0, "liver": 1, "tumour": 2}, regions_class_order=None, numTraining=1
    )


class TestInfo:
    def test_regions_and_ignore_label(self, glioma: Path) -> None:
        assert pf.read_dataset_info(glioma) == pf.DatasetInfo(
            name="Glioma",
            channels=("T1", "FLAIR"),
            label_names={0: "background", 3: "enhancing"},
            labels=(0, 1, 2, 3, 4),
            regions={"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)},
            region_labels=(1, 2, 3),
            ignore_label=4,
            file_ending=".nii.gz",
            training_cases=2,
        )

    def test_labels(self, liver: Path) -> None:
        info = pf.read_dataset_info(str(liver))
        assert info.label_names == {0: "background", 1: "liver", 2: "tumour"}
        assert info.labels == (0, 1, 2)
        assert (info.regions, info.region_labels, info.ignore_label) == ({}, (), None)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"labels": {"0": "background", "1": "liver"}}, "nnU-Net v1 or the Medical Segmentation Decathlon"),
            ({"labels": {"liver": 1}}, "labels must have background, which is 0, not None"),
            ({"labels": {"background": 1, "liver": 0}}, "labels must have background, which is 0, not 1"),
            ({"labels": {"background": 0, "liver": 1.5}}, "label 'liver' must be an int of at least 0"),
            ({"labels": {"background": 0, "liver": -1}}, "label 'liver' must be an int"),
            ({"labels": {"background": 0, "liver": []}}, "label 'liver' must be an int"),
            ({"labels": {"background": 0, "ignore": 1, "liver": 2}}, "the ignore label must be the highest, 3, not 1"),
            ({"labels": {"background": 0, "liver": 1, "ignore": [2, 3]}}, "label 'ignore' must be one int"),
            ({"labels": {}}, "labels must be an object that is not empty"),
            ({"regions_class_order": None}, r"regions_class_order must give one of the labels \[0, 1, 2, 3\] for each of"),
            ({"regions_class_order": [1, 2]}, "regions_class_order must"),
            ({"regions_class_order": [1, 2, 9]}, "regions_class_order must"),
            ({"channel_names": {"0": "T1", "2": "T2"}}, "channel_names must be numbered from '0' on"),
            ({"channel_names": ["T1"]}, "channel_names must be an object"),
            ({"file_ending": None}, "file_ending must be text"),
            ({"numTraining": "2"}, "numTraining must be an int"),
        ],
    )
    def test_what_cannot_be_used(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(SubjectError, match=message):
            pf.read_dataset_info(describe(tmp_path, **changes))

    def test_no_file_and_no_json(self, tmp_path: Path) -> None:
        with pytest.raises(SubjectError, match=r"dataset\.json cannot be read"):
            pf.read_dataset_info(tmp_path)
        for content in ("{", "[1]"):
            (tmp_path / "dataset.json").write_text(content)
            with pytest.raises(SubjectError, match=r"dataset\.json (is no JSON|must hold an object)"):
                pf.read_dataset_info(tmp_path)


class TestSubjects:
    def test_training_cases(self, glioma: Path) -> None:
        first, second = pf.subjects_from_nnunet(glioma)
        assert (first.name, second.name) == ("BraTS 1", "BraTS_0002")
        assert {key: image.paths for key, image in first.images.items()} == {
            "image": (glioma / "imagesTr" / "BraTS 1_0000.nii.gz", glioma / "imagesTr" / "BraTS 1_0001.nii.gz"),
            "label": (glioma / "labelsTr" / "BraTS 1.nii.gz",),
        }
        assert type(second["label"]) is pf.LabelMap

    def test_test_cases(self, glioma: Path) -> None:
        (subject,) = pf.subjects_from_nnunet(glioma, "test")
        assert (subject.name, list(subject.images), len(subject["image"].paths)) == ("x", ["image"], 2)
        make(glioma, "labelsTs/x.nii.gz")
        assert pf.subjects_from_nnunet(glioma, "test")[0]["label"].path == glioma / "labelsTs" / "x.nii.gz"
        make(glioma, "imagesTs/y_0000.nii.gz", "imagesTs/y_0001.nii.gz")
        with pytest.raises(SubjectError, match="'y' lacks its labels"):
            pf.subjects_from_nnunet(glioma, "test")

    def test_one_channel(self, liver: Path) -> None:
        assert list(pf.subjects_from_nnunet(liver)[0].images) == ["image", "label"]
        assert list(pf.subjects_from_nnunet(liver, image="ct", label="organs")[0].images) == ["ct", "organs"]
        with pytest.raises(ArgumentError, match="cannot be called 'image'"):
            pf.subjects_from_nnunet(liver, label="image")
        with pytest.raises(ArgumentError, match='part must be "train" or "test"'):
            pf.subjects_from_nnunet(liver, "val")  # type: ignore[arg-type]

    def test_channels_are_those_of_one_image(self, glioma: Path) -> None:
        voxels = np.arange(2 * 24, dtype=np.int16).reshape(2, 2, 3, 4)
        for channel in (0, 1):
            nib.Nifti1Image(voxels[channel], np.eye(4)).to_filename(glioma / "imagesTr" / f"BraTS_0002_000{channel}.nii.gz")
        nib.Nifti1Image(voxels[0].astype(np.uint8), np.eye(4)).to_filename(glioma / "labelsTr" / "BraTS_0002.nii.gz")
        subject = pf.subjects_from_nnunet(glioma)[1]
        subject.check()
        np.testing.assert_array_equal(subject["image"].data, voxels)

    def test_channels_on_two_grids(self, glioma: Path) -> None:
        for channel in (0, 1):
            nib.Nifti1Image(np.zeros((2, 3, 4)), np.eye(4) + channel * np.eye(4, k=3)).to_filename(
                glioma / "imagesTr" / f"BraTS_0002_000{channel}.nii.gz"
            )
        with pytest.raises(ImageError, match=r"subject 'BraTS_0002', image 'image': .*_0000\.nii\.gz and .*_0001\.nii\.gz cannot be"):
            pf.subjects_from_nnunet(glioma)[1].check()

    def test_endings_in_upper_case(self, liver: Path) -> None:
        (liver / "imagesTr" / "a_0000.nii.gz").rename(liver / "imagesTr" / "a_0000.NII.GZ")
        assert pf.subjects_from_nnunet(liver)[0]["image"].path == liver / "imagesTr" / "a_0000.NII.GZ"

    @pytest.mark.parametrize(
        ("remove", "add", "message"),
        [
            ("imagesTr/BraTS 1_0001.nii.gz", None, r"1 files are missing .*'BraTS 1' lacks channel 1 \(.*BraTS 1_0001\.nii\.gz\)"),
            ("labelsTr/BraTS 1.nii.gz", None, r"'BraTS 1' lacks its labels \(.*labelsTr/BraTS 1\.nii\.gz\)"),
            (None, "labelsTr/other.nii.gz", r"labelsTr/other\.nii\.gz is of no case"),
            (None, "imagesTr/other.nii.gz", r"other\.nii\.gz is no image of a case: before the ending stands one of _0000, _0001"),
            (None, "imagesTr/BraTS 1_0002.nii.gz", r"BraTS 1_0002\.nii\.gz is no image of a case"),
            (None, "imagesTr/BraTS 1_0000.NII.GZ", r"are files of one name"),
        ],
    )
    def test_files_that_are_missing_or_too_many(self, glioma: Path, remove: str | None, add: str | None, message: str) -> None:
        if remove:
            (glioma / remove).unlink()
        if add:
            make(glioma, add)
        with pytest.raises(SubjectError, match=message):
            pf.subjects_from_nnunet(glioma)

    def test_folders_that_are_empty_or_missing(self, tmp_path: Path) -> None:
        describe(tmp_path)
        with pytest.raises(SubjectError, match=r"imagesTr is not there"):
            pf.subjects_from_nnunet(tmp_path)
        (tmp_path / "imagesTr").mkdir()
        with pytest.raises(SubjectError, match=r"holds no file that ends in '\.nii\.gz'"):
            pf.subjects_from_nnunet(tmp_path)

    def test_another_number_of_cases(self, glioma: Path) -> None:
        describe(glioma, numTraining=3)
        with pytest.raises(SubjectError, match="declares 3 training cases, and there are 2: mend numTraining"):
            pf.subjects_from_nnunet(glioma)

    def test_cases_that_the_file_lists(self, glioma: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GLIOMA", str(glioma))
        files = ["$GLIOMA/imagesTr/BraTS 1_0000.nii.gz", "imagesTr/BraTS 1_0001.nii.gz"]
        describe(glioma, numTraining=1, dataset={"one": {"images": files, "label": "labelsTr/BraTS 1.nii.gz"}})
        (subject,) = pf.subjects_from_nnunet(glioma)
        assert (subject.name, subject["image"].paths[0]) == ("one", glioma / "imagesTr" / "BraTS 1_0000.nii.gz")
        for case, message in (
            ({"images": files[:1], "label": "x"}, "has 1 images, and there are 2 channels"),
            ({"images": files, "label": "x"}, r"1 files of 1 cases are not there: 'one': .*/x"),
            ({"images": files}, "must hold a list of images and a label"),
        ):
            describe(glioma, numTraining=1, dataset={"one": case})
            with pytest.raises(SubjectError, match=message):
                pf.subjects_from_nnunet(glioma)

    def test_a_link_that_leads_nowhere(self, liver: Path) -> None:
        (liver / "labelsTr" / "a.nii.gz").unlink()
        (liver / "labelsTr" / "a.nii.gz").symlink_to("gone")
        with pytest.raises(SubjectError, match="is a link to gone"):
            pf.subjects_from_nnunet(liver)
