"""What a subject is, and when its images belong together."""

import pickle
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import patchflow as pf
from patchflow.errors import ArgumentError, ImageFileError, SubjectError, UnknownNameError
from patchflow.images.write import write_nifti

AFFINE = np.array([[0.0, 2, 0, 5], [-3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])


def image(*shape: int, affine: np.ndarray = AFFINE) -> pf.ScalarImage:
    return pf.ScalarImage(np.zeros(shape or (10, 20, 30), np.int16), affine=affine)


class TestSubject:
    def test_images_and_metadata(self) -> None:
        scan, label = image(), pf.LabelMap(np.zeros((2, 10, 20, 30), np.uint8), affine=AFFINE)
        subject = pf.Subject("s1", image=scan, age=61, label=label, name="a name")
        assert subject.name == "s1"
        assert dict(subject.images) == {"image": scan, "label": label}
        assert subject.metadata == {"age": 61, "name": "a name"}
        assert subject["label"] is label
        assert "label" in subject
        assert "age" not in subject
        assert subject.shape == (10, 20, 30)
        assert subject.spacing == (3, 2, 4)
        np.testing.assert_array_equal(subject.affine, AFFINE)
        assert "age=61" in repr(subject)
        subject.check()

    def test_an_unknown_image_is_named_with_those_there_are(self) -> None:
        with pytest.raises(UnknownNameError, match=r"subject 's1' has no image 'lable': it has 'image', 'label'"):
            pf.Subject("s1", image=image(), label=image())["lable"]

    def test_the_images_cannot_be_exchanged(self) -> None:
        with pytest.raises(TypeError):
            pf.Subject("s1", image=image()).images["image"] = image()  # type: ignore[index]

    @pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a:b", "a\nb", " a", "a ", "a*", None, 3, "ä" * 101])
    def test_names_that_are_no_file_names(self, name: object) -> None:
        with pytest.raises(SubjectError, match=r"name"):
            pf.Subject(name, image=image())  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["s1", "BraTS20_Training_001", "sub-01 (pre)", "Jürgen", "a.b"])
    def test_names_that_are(self, name: str) -> None:
        assert pf.Subject(name, image=image()).name == name

    @pytest.mark.parametrize("key", ["location", "index", "subject", "", "a/b", ".a"])
    def test_image_names_that_batches_or_files_need(self, key: str) -> None:
        with pytest.raises(SubjectError, match="cannot be named"):
            pf.Subject("s1", **{key: image()})

    def test_no_image_and_bare_arrays(self) -> None:
        with pytest.raises(SubjectError, match="'s1' has no image"):
            pf.Subject("s1", image="image.nii.gz")
        with pytest.raises(SubjectError, match=r"'label' is a bare array: wrap it"):
            pf.Subject("s1", image=image(), label=np.zeros((10, 20, 30)))

    def test_it_can_be_sent_to_another_process(self) -> None:
        copy = pickle.loads(pickle.dumps(pf.Subject("s1", image=image(), age=3)))
        assert (copy.name, copy.metadata, copy.shape) == ("s1", {"age": 3}, (10, 20, 30))


class TestCheck:
    def test_channels_may_differ_and_one_voxel_is_an_axis(self) -> None:
        pf.Subject("s1", one=image(10, 20, 1), four=image(4, 10, 20, 1)).check()

    def test_shapes(self, tmp_path: Path) -> None:
        write_nifti(tmp_path / "label.nii.gz", np.zeros((10, 20, 31), np.uint8), AFFINE)
        subject = pf.Subject("s1", image=image(), label=pf.LabelMap(tmp_path / "label.nii.gz"))
        with pytest.raises(
            SubjectError, match=r"'s1': 'image' \(array.*\) and 'label' \(.*label\.nii\.gz\).*\(10, 20, 30\) and \(10, 20, 31\)"
        ):
            subject.check()

    @pytest.mark.parametrize(
        ("change", "apart"),
        [
            (lambda a: a.astype(np.float32), None),
            (lambda a: a * [1 + 1e-6, 1, 1, 1], None),
            (lambda a: a + np.outer([0.19, 0, 0, 0], [0, 0, 0, 1]), None),
            (lambda a: a + np.outer([0.21, 0, 0, 0], [0, 0, 0, 1]), 0.21),  # more than a tenth of 2 mm
            (lambda a: a + np.outer([0, 0, 2, 0], [0, 0, 0, 1]), 2),  # half a voxel
            (lambda a: a * [-1, 1, 1, 1], 2 * 3 * 9),  # a flip: the last voxel of ten
            (lambda a: a * [1.01, 1, 1, 1], 0.01 * 3 * 9),
        ],
    )
    def test_affines_may_differ_by_rounding(self, change: Callable[[np.ndarray], np.ndarray], apart: float | None) -> None:
        subject = pf.Subject("s1", image=image(), label=image(affine=change(AFFINE)))
        message = rf"'image' .* and 'label' .*up to {apart} mm apart, and 0\.2 mm are allowed"
        with nullcontext() if apart is None else pytest.raises(SubjectError, match=message):
            subject.check()

    def test_every_pair_is_compared(self) -> None:
        moved = AFFINE.copy()
        moved[0, 3] += 50
        with pytest.raises(SubjectError, match=r"'a' .* and 'c'"):
            pf.Subject("s1", a=image(), b=image(), c=image(affine=moved)).check()

    def test_a_header_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(ImageFileError, match=r"subject 's1', image 'image': .*none\.nii does not exist"):
            pf.Subject("s1", image=pf.ScalarImage(tmp_path / "none.nii")).check()


def test_volumes_with_digests(tmp_path: Path) -> None:
    write_nifti(tmp_path / "image.nii.gz", np.full((2, 3, 4), 7, np.int16), AFFINE)
    subject = pf.Subject("s1", image=pf.ScalarImage(tmp_path / "image.nii.gz"))
    volumes, digests = subject.load_with_digests()
    assert volumes["image"].array.tolist() == np.full((1, 2, 3, 4), 7).tolist()
    assert digests == {"image": subject["image"].digest()}
    (tmp_path / "image.nii.gz").write_bytes((tmp_path / "image.nii.gz").read_bytes()[:-1])
    with pytest.raises(ImageFileError, match=r"subject 's1', image 'image': .*image\.nii\.gz is truncated"):
        subject.load_with_digests()


class TestFindSubjects:
    @pytest.fixture
    def folders(self, tmp_path: Path) -> Path:
        for name in ("s10", "s2", "s1"):
            (tmp_path / name).mkdir()
            for file in ("image.nii.gz", "label.nii.gz"):
                nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_filename(tmp_path / name / file)
        (tmp_path / "notes").mkdir()
        (tmp_path / "readme.txt").touch()
        return tmp_path

    @pytest.fixture
    def raw(self, tmp_path: Path) -> Path:
        """As nnU-Net lays files out."""
        for folder in ("imagesTr", "labelsTr"):
            (tmp_path / folder).mkdir()
        for name in ("case_1", "case_2"):
            for file in (f"imagesTr/{name}_0000.nii.gz", f"imagesTr/{name}_0001.nii.gz", f"labelsTr/{name}.nii.gz"):
                (tmp_path / file).touch()
        (tmp_path / "imagesTr" / "._case_1_0000.nii.gz").touch()  # what macOS leaves on other disks
        (tmp_path / "labelsTr" / ".DS_Store").touch()
        return tmp_path

    def test_a_folder_per_subject(self, folders: Path) -> None:
        subjects = pf.find_subjects(folders, image="*/image.nii.gz", label="*/label.nii.gz")
        assert [subject.name for subject in subjects] == ["s1", "s10", "s2"]
        assert [type(image) for image in subjects[0].images.values()] == [pf.ScalarImage, pf.LabelMap]
        assert subjects[1]["label"].path == folders / "s10" / "label.nii.gz"
        assert subjects[1].shape == (2, 2, 2)

    def test_a_folder_per_kind(self, raw: Path) -> None:
        found = pf.find_subjects(str(raw), t1="imagesTr/*_0000.nii.gz", t2="imagesTr/*_0001.nii.gz", label="labelsTr/*.nii.gz")
        assert [subject.name for subject in found] == ["case_1", "case_2"]
        assert found[1]["t2"].path == raw / "imagesTr" / "case_2_0001.nii.gz"

    def test_other_characters_stand_for_themselves(self, tmp_path: Path) -> None:
        for name in ("sub-a_[t1](x).nii", "sub-b_t(x).nii", "sub-c_[t1](x)_nii"):
            (tmp_path / name).touch()
        assert [subject.name for subject in pf.find_subjects(tmp_path, image="sub-*_[t1](x).nii")] == ["a"]

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
    def test_which_are_label_maps(self, folders: Path, key: str, kind: type) -> None:
        assert type(pf.find_subjects(folders, **{key: "*/label.nii.gz"})[0][key]) is kind

    def test_label_maps_named_outright(self, folders: Path) -> None:
        patterns = {"label": "*/image.nii.gz", "tissue": "*/label.nii.gz"}
        for names in ("tissue", ["tissue"]):
            subject = pf.find_subjects(folders, label_maps=names, **patterns)[0]
            assert [type(subject[key]) for key in patterns] == [pf.ScalarImage, pf.LabelMap]
        assert type(pf.find_subjects(folders, label_maps=(), **patterns)[0]["label"]) is pf.ScalarImage
        with pytest.raises(ArgumentError, match=r"label_maps names \['tisue'\]"):
            pf.find_subjects(folders, label_maps=["tisue"], **patterns)

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

    def test_nothing_there(self, folders: Path) -> None:
        with pytest.raises(SubjectError, match=r"no subject in .*nothing matches '\*/scan\.nii'"):
            pf.find_subjects(folders, image="*/scan.nii")
        with pytest.raises(SubjectError, match="is not a folder"):
            pf.find_subjects(folders / "none", image="*/scan.nii")

    @pytest.mark.parametrize("pattern", ["image.nii", "*/*.nii", "**/image.nii", "/abs/*.nii", 3])
    def test_patterns_without_one_star(self, folders: Path, pattern: object) -> None:
        with pytest.raises(ArgumentError, match="exactly one"):
            pf.find_subjects(folders, image=pattern)  # type: ignore[arg-type]

    def test_no_pattern(self, folders: Path) -> None:
        with pytest.raises(ArgumentError, match="give a pattern"):
            pf.find_subjects(folders)
