"""What a subject is, and when its images belong together."""

import pickle
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

import patchflow as pf
from patchflow.errors import ImageFileError, SubjectError, UnknownNameError
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

    @pytest.mark.parametrize(
        "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a:b", "a\nb", " a", "a ", "a*", None, 3, "ä" * 101, "\udcff"]
    )
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
            pf.Subject("s1", image="image.docx")
        with pytest.raises(SubjectError, match=r"'label' is a bare array: wrap it"):
            pf.Subject("s1", image=image(), label=np.zeros((10, 20, 30)))

    @pytest.mark.parametrize(
        ("value", "mend"),
        [
            ("seg.nii.gz", r"label=pf.LabelMap('seg.nii.gz') or label=pf.ScalarImage('seg.nii.gz')"),
            (Path("a/SEG.NRRD"), "label=pf.LabelMap('a/SEG.NRRD')"),
            ("all.h5:/seg", "label=pf.LabelMap('all.h5:/seg')"),
            (["seg.nii", Path("b.mha")], "write label=pf.ScalarImage(['seg.nii', 'b.mha']);"),
        ],
    )
    def test_the_path_of_an_image_is_no_metadata(self, value: object, mend: str) -> None:
        with pytest.raises(SubjectError, match=r"'s1': 'label' is the path of an image file, .*" + re.escape(mend)):
            pf.Subject("s1", image=image(), label=value)

    def test_metadata_that_is_meant_so(self) -> None:
        subject = pf.Subject("s1", image=image(), notes="see seg.nii.gz for more", folder=Path("a.nii.gz/b"), sizes=[1, "nii"], dicom=[])
        subject.metadata["label"] = "seg.nii.gz"
        processed = pf.Pipeline()(subject)
        assert (
            processed.metadata
            == subject.metadata
            == {
                "notes": "see seg.nii.gz for more",
                "folder": Path("a.nii.gz/b"),
                "sizes": [1, "nii"],
                "dicom": [],
                "label": "seg.nii.gz",
            }
        )
        assert processed.metadata is not subject.metadata

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
