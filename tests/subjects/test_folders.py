"""Subjects found in a folder by patterns."""

import os
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import patchflow as pf
from patchflow.errors import ArgumentError, SubjectError


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(subjects: list[pf.Subject]) -> list[str]:
    return [subject.name for subject in subjects]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("s10", "s2", "s1"):
        (tmp_path / name).mkdir()
        for file in ("image.nii.gz", "label.nii.gz"):
            nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_filename(tmp_path / name / file)
    (tmp_path / "notes").mkdir()
    return make(tmp_path, "readme.txt")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """As nnU-Net lays files out."""
    cases = ("case_1", "case_2")
    make(tmp_path, *(f"imagesTr/{name}_{channel}.nii.gz" for name in cases for channel in ("0000", "0001")))
    make(tmp_path, *(f"labelsTr/{name}.nii.gz" for name in cases))
    return make(tmp_path, "imagesTr/._case_1_0000.nii.gz", "labelsTr/.DS_Store")  # what macOS leaves on other disks


def test_a_folder_per_subject(folders: Path) -> None:
    subjects = pf.find_subjects(folders, image="*/image.nii.gz", label="*/label.nii.gz")
    assert names(subjects) == ["s1", "s10", "s2"]
    assert [type(image) for image in subjects[0].images.values()] == [pf.ScalarImage, pf.LabelMap]
    assert subjects[1]["label"].path == folders / "s10" / "label.nii.gz"
    assert subjects[1].shape == (2, 2, 2)
    assert subjects[1].metadata == {}


def test_a_folder_per_kind(raw: Path) -> None:
    found = pf.find_subjects(str(raw), t1="imagesTr/*_0000.nii.gz", t2="imagesTr/*_0001.nii.gz", label="labelsTr/*.nii.gz")
    assert names(found) == ["case_1", "case_2"]
    assert found[1]["t2"].path == raw / "imagesTr" / "case_2_0001.nii.gz"


def test_other_characters_stand_for_themselves(tmp_path: Path) -> None:
    make(tmp_path, "sub-a_[t1](x).nii", "sub-b_t(x).nii", "sub-c_[t1](x)_nii", "sub-d_{1}{}.nii")
    assert names(pf.find_subjects(tmp_path, image="sub-*_[t1](x).nii")) == ["a"]
    assert names(pf.find_subjects(tmp_path, image="sub-*_{1}{}.nii")) == ["d"]


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("image", pf.ScalarImage),
        ("label", pf.LabelMap),
        ("labels", pf.LabelMap),
        ("tumour_mask", pf.LabelMap),
        ("seg_2", pf.LabelMap),
        ("segmentation", pf.LabelMap),
        ("Label", pf.LabelMap),
        ("masked_image", pf.ScalarImage),
        ("labelled", pf.ScalarImage),
    ],
)
def test_which_are_label_maps(folders: Path, key: str, kind: type) -> None:
    assert type(pf.find_subjects(folders, **{key: "*/label.nii.gz"})[0][key]) is kind


def test_label_maps_named_outright(folders: Path) -> None:
    patterns = {"label": "*/image.nii.gz", "tissue": "*/label.nii.gz"}
    for chosen in ("tissue", ["tissue"]):
        subject = pf.find_subjects(folders, label_maps=chosen, **patterns)[0]
        assert [type(subject[key]) for key in patterns] == [pf.ScalarImage, pf.LabelMap]
    assert type(pf.find_subjects(folders, label_maps=(), **patterns)[0]["label"]) is pf.ScalarImage
    with pytest.raises(ArgumentError, match=r"label_maps names \['tisue'\]"):
        pf.find_subjects(folders, label_maps=["tisue"], **patterns)
    with pytest.raises(ArgumentError, match=r"optional names \['lable'\]"):
        pf.find_subjects(folders, optional="lable", **patterns)


class TestMissing:
    def test_missing_images_are_listed(self, folders: Path) -> None:
        (folders / "s2" / "label.nii.gz").unlink()
        (folders / "s10" / "image.nii.gz").unlink()
        with pytest.raises(SubjectError) as caught:
            pf.find_subjects(folders, image="*/image.nii.gz", label="*/label.nii.gz")
        message = str(caught.value)
        assert "of 3 subjects, 2 images are missing" in message
        assert f"'s10' lacks 'image' ({folders / 's10' / 'image.nii.gz'})" in message
        assert f"'s2' lacks 'label' ({folders / 's2' / 'label.nii.gz'})" in message
        assert "'s1' lacks" not in message
        assert "optional=['image', 'label']" in message

    def test_optional_images(self, folders: Path) -> None:
        (folders / "s2" / "label.nii.gz").unlink()
        subjects = pf.find_subjects(folders, image="*/image.nii.gz", label="*/label.nii.gz", optional="label")
        assert {subject.name: list(subject.images) for subject in subjects} == {
            "s1": ["image", "label"],
            "s10": ["image", "label"],
            "s2": ["image"],
        }

    def test_nothing_there(self, folders: Path) -> None:
        with pytest.raises(SubjectError, match=r"no subject in .*nothing matches '\*/scan\.nii'"):
            pf.find_subjects(folders, image="*/scan.nii")
        with pytest.raises(SubjectError, match="is not a folder"):
            pf.find_subjects(folders / "none", image="*/scan.nii")

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SubjectError, match="no subject"):
            pf.find_subjects(tmp_path, image="*.nii")

    def test_a_link_that_leads_nowhere(self, folders: Path) -> None:
        (folders / "s2" / "label.nii.gz").unlink()
        (folders / "s2" / "label.nii.gz").symlink_to("gone.nii.gz")
        with pytest.raises(SubjectError, match=r"s2/label\.nii\.gz fits .* is a link to gone\.nii\.gz, which is not there"):
            pf.find_subjects(folders, image="*/image.nii.gz", label="*/label.nii.gz", optional="label")


class TestPatterns:
    @pytest.mark.parametrize("pattern", ["image.nii", "**/image.nii", "*{a}.nii", "{a}{b}.nii", "/abs/*.nii", "", 3])
    def test_patterns_without_a_place(self, folders: Path, pattern: object) -> None:
        with pytest.raises(ArgumentError, match="exactly one"):
            pf.find_subjects(folders, image=pattern)  # type: ignore[arg-type]

    def test_no_pattern(self, folders: Path) -> None:
        with pytest.raises(ArgumentError, match="a pattern as in image="):
            pf.find_subjects(folders)
        with pytest.raises(ArgumentError, match="'image' is an empty list"):
            pf.find_subjects(folders, image=[])

    def test_several_patterns_for_an_image(self, tmp_path: Path) -> None:
        make(tmp_path, "a/t1.nii.gz", "b/t1.nii")
        subjects = pf.find_subjects(tmp_path, image=["*/t1.nii.gz", "*/t1.nii"])
        assert [subject["image"].path for subject in subjects] == [tmp_path / "a" / "t1.nii.gz", tmp_path / "b" / "t1.nii"]
        make(tmp_path, "b/t1.nii.gz")
        with pytest.raises(SubjectError, match=r"1 subjects have more than one image 'image': 'b' has .*b/t1\.nii and .*b/t1\.nii\.gz"):
            pf.find_subjects(tmp_path, image=["*/t1.nii.gz", "*/t1.nii"])

    def test_words_of_the_path_are_metadata(self, tmp_path: Path) -> None:
        make(tmp_path, "site A/s1/t1.nii", "site A/s1/seg.nii", "site B/007/t1.nii", "site B/007/seg.nii")
        subjects = pf.find_subjects(tmp_path, image="{site}/*/t1.nii", label="{site}/*/seg.nii")
        assert [(subject.name, subject.metadata) for subject in subjects] == [("007", {"site": "site B"}), ("s1", {"site": "site A"})]

    def test_words_name_subjects_without_a_star(self, tmp_path: Path) -> None:
        make(tmp_path, "p1/pre/t1.nii", "p1/post/t1.nii", "labels/pre_p1.nii", "labels/post_p1.nii")
        subjects = pf.find_subjects(tmp_path, image="{patient}/{visit}/t1.nii", label="labels/{visit}_{patient}.nii")
        assert names(subjects) == ["p1_post", "p1_pre"]
        assert subjects[0].metadata == {"patient": "p1", "visit": "post"}
        assert subjects[0]["label"].path == tmp_path / "labels" / "post_p1.nii"

    def test_patterns_name_subjects_in_one_way(self, tmp_path: Path) -> None:
        for label in ("{patient}/seg.nii", "*/seg.nii"):
            with pytest.raises(ArgumentError, match="name subjects in different ways"):
                pf.find_subjects(tmp_path, image="{patient}/{visit}/t1.nii", label=label)

    def test_a_place_that_stands_twice(self, tmp_path: Path) -> None:
        make(tmp_path, "s1/s1_t1.nii", "s1/s1_old_t1.nii", "s2/s2_t1.nii")
        assert [subject["image"].path for subject in pf.find_subjects(tmp_path, image="*/*_t1.nii")] == [
            tmp_path / "s1" / "s1_t1.nii",
            tmp_path / "s2" / "s2_t1.nii",
        ]
        make(tmp_path, "s3/S3_t1.nii")
        with pytest.raises(SubjectError, match=r"s3/S3_t1\.nii fits .* only with two texts for one place"):
            pf.find_subjects(tmp_path, image="*/*_t1.nii")

    def test_one_name_at_two_places(self, tmp_path: Path) -> None:
        make(tmp_path, "a/s1/t1.nii", "b/s1/t1.nii")
        with pytest.raises(SubjectError, match=r"'s1' has .*a/s1/t1\.nii and .*b/s1/t1\.nii"):
            pf.find_subjects(tmp_path, image="{site}/*/t1.nii")
        (tmp_path / "b" / "s1" / "t1.nii").rename(tmp_path / "b" / "s1" / "seg.nii")
        with pytest.raises(SubjectError, match=r"'s1': site is 'a' in .*t1\.nii and 'b' in .*seg\.nii"):
            pf.find_subjects(tmp_path, image="{site}/*/t1.nii", label="{site}/*/seg.nii")

    def test_two_ways_to_read_a_name(self, tmp_path: Path) -> None:
        make(tmp_path, "a_1.nii")
        assert pf.find_subjects(tmp_path, image="*_{run}.nii")[0].metadata == {"run": "1"}
        make(tmp_path, "a_b_1.nii")
        with pytest.raises(SubjectError, match=r"a_b_1\.nii fits .* in two ways"):
            pf.find_subjects(tmp_path, image="*_{run}.nii")

    def test_words_called_as_an_image(self, tmp_path: Path) -> None:
        make(tmp_path, "a/t1.nii")
        with pytest.raises(SubjectError, match="'image' names an image and a piece of metadata of subject 't1'"):
            pf.find_subjects(tmp_path, image="{image}/*.nii")


class TestOddNames:
    def test_spaces_unicode_and_links(self, tmp_path: Path) -> None:
        make(tmp_path, "data/Jürgen M (2)/bild 1.nii.gz", "data/患者/bild 1.nii.gz")
        (tmp_path / "data" / "linked").symlink_to(tmp_path / "data" / "患者")
        assert names(pf.find_subjects(tmp_path / "data", image="*/bild 1.nii.gz")) == ["Jürgen M (2)", "linked", "患者"]

    def test_one_name_composed_in_two_ways(self, tmp_path: Path) -> None:
        apart, together = (unicodedata.normalize(form, "Jürgen") for form in ("NFD", "NFC"))
        make(tmp_path, f"images/{apart}.nii", f"labels/{together}.nii", f"{apart}/x.nii")
        subject = pf.find_subjects(tmp_path, image="images/*.nii", label="labels/*.nii")[0]
        assert subject.name == together
        assert subject["image"].path == tmp_path / "images" / f"{apart}.nii"
        assert names(pf.find_subjects(tmp_path, image=f"{together}/*.nii")) == ["x"]

    def test_the_case_of_endings(self, tmp_path: Path) -> None:
        make(tmp_path, "a.NII.GZ", "b.nii.gz", "B.Nii.gz", "c/t1.NII", "d/T1.nii")
        assert names(pf.find_subjects(tmp_path, image="*.nii.gz")) == ["B", "a", "b"]
        assert names(pf.find_subjects(tmp_path, image="*/t1.nii")) == ["c"]
        make(tmp_path, "a.nii.gz")
        with pytest.raises(SubjectError, match=r"'a' has .*a\.NII\.GZ and .*a\.nii\.gz"):
            pf.find_subjects(tmp_path, image="*.nii.gz")

    def test_names_that_are_no_subjects(self, tmp_path: Path) -> None:
        make(tmp_path, "a:b/t1.nii")
        with pytest.raises(SubjectError, match="'a:b' cannot name a subject"):
            pf.find_subjects(tmp_path, image="*/t1.nii")

    def test_names_that_are_no_text(self, tmp_path: Path) -> None:
        os.close(os.open(os.fsencode(tmp_path) + b"/\xff.nii", os.O_CREAT))
        with pytest.raises(SubjectError, match="cannot name a subject"):
            pf.find_subjects(tmp_path, image="*.nii")
