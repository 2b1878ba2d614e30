"""Images of files and of arrays: what is known from the header, what is read, and what is refused."""

import hashlib
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import patchflow as pf
from patchflow.errors import ArgumentError, ImageError, ImageFileError
from patchflow.images import nifti
from patchflow.images.image import Image
from patchflow.kernels.pointwise import IntensityMap

AFFINE = np.array([[0.0, 2, 0, 5], [-3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image.nii.gz"
    nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), AFFINE).to_filename(path)
    return path


def test_only_the_header_is_read_until_voxels_are_asked_for(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(nifti, "read", lambda path: pytest.fail("voxels were read"))
    image = pf.ScalarImage(path)
    assert image.shape == (1, 2, 3, 4)
    assert image.dtype == np.int16
    assert image.spacing == (3, 2, 4)
    np.testing.assert_array_equal(image.affine, AFFINE)
    monkeypatch.setattr(nifti, "read_header", lambda path: pytest.fail("the header was read twice"))
    assert image.shape == (1, 2, 3, 4)


def test_making_an_image_reads_nothing(tmp_path: Path) -> None:
    image = pf.ScalarImage(str(tmp_path / "none.nii"))
    assert image.path == tmp_path / "none.nii"
    assert repr(image) == f"ScalarImage({tmp_path / 'none.nii'})"
    for use in (lambda: image.shape, lambda: image.affine, image.load, image.digest, lambda: image.data):
        with pytest.raises(ImageFileError, match=r"none\.nii does not exist"):
            use()


def test_voxels_and_digest_of_a_file(path: Path) -> None:
    volume, digest = pf.ScalarImage(path).load_with_digest()
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, np.arange(24).reshape(1, 2, 3, 4))
    assert volume.values().dtype == np.float32
    np.testing.assert_array_equal(volume.values(), volume.array)
    assert digest == pf.LabelMap(path).digest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert volume.source == str(path)


def test_a_scaled_file_keeps_its_integers(tmp_path: Path) -> None:
    path = tmp_path / "scaled.nii"
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    image.to_filename(path)
    with open(path, "r+b") as file:  # nibabel scales the integers to keep the values
        file.seek(352)
        file.write(np.arange(24, dtype=np.int16).tobytes())
    volume = pf.ScalarImage(path).load()
    assert volume.array.dtype == np.int16
    assert volume.map == IntensityMap(0.5, -3)
    np.testing.assert_array_equal(volume.values()[0], nib.load(path).get_fdata())
    assert pf.ScalarImage(path).data[0, 0, 0, 3] == 2 * 3 * 3 * 0.5 - 3  # I is fastest in the file


def test_a_file_that_changed_since_its_header_was_read(path: Path) -> None:
    image = pf.ScalarImage(path)
    assert image.shape == (1, 2, 3, 4)
    nib.Nifti1Image(np.zeros((2, 3, 5), np.int16), AFFINE).to_filename(path)
    with pytest.raises(ImageFileError, match=r"image\.nii\.gz has changed"):
        image.load()


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_is_not_the_folder_one_is_in(path: str) -> None:
    with pytest.raises(ArgumentError, match="the path of an image is empty"):
        pf.ScalarImage(path)


@pytest.mark.parametrize("name", ["scan.jpg", "scan.img", "scan.hdr", "scan.gz", "scan"])
def test_other_formats_are_refused_at_once(name: str) -> None:
    with pytest.raises(ImageFileError, match=rf"{name} is of no format"):
        pf.ScalarImage(name)


def test_names_may_be_upper_case(tmp_path: Path, path: Path) -> None:
    path.rename(tmp_path / "IMAGE.NII.GZ")
    assert pf.ScalarImage(tmp_path / "IMAGE.NII.GZ").data.sum() == 276


class TestArrays:
    @pytest.mark.parametrize("kind", [pf.ScalarImage, pf.LabelMap])
    def test_three_and_four_axes(self, kind: type[Image]) -> None:
        array = np.arange(24).reshape(2, 3, 4)
        assert kind(array).shape == (1, 2, 3, 4)
        assert kind(array[None]).shape == (1, 2, 3, 4)
        np.testing.assert_array_equal(kind(array).data[0], array)
        np.testing.assert_array_equal(kind(array).affine, np.eye(4))
        assert kind(array, affine=AFFINE.tolist()).spacing == (3, 2, 4)

    @pytest.mark.parametrize(
        ("dtype", "kept"),
        [
            (torch.int16, "i2"),
            (torch.uint8, "u1"),
            (torch.bool, "u1"),
            (torch.float16, "f4"),
            (torch.bfloat16, "f4"),
            (torch.float64, "f8"),
        ],
    )
    def test_tensors(self, dtype: torch.dtype, kept: str) -> None:
        tensor = torch.tensor([[[0, 1], [1, 0]]], dtype=dtype)
        image = pf.ScalarImage(tensor.requires_grad_() if dtype.is_floating_point else tensor)
        assert image.dtype == np.dtype(kept)
        assert image.data.tolist() == [[[[0, 1], [1, 0]]]]

    def test_any_memory_layout_and_byte_order(self) -> None:
        array = np.arange(24, dtype=">i2").reshape(4, 3, 2)
        for view in (array.transpose(2, 1, 0), array[::-1], np.asfortranarray(array), array[:, ::2]):
            volume = pf.ScalarImage(view).load()
            np.testing.assert_array_equal(volume.array[0], view)
            assert volume.array.flags.c_contiguous
            assert volume.array.dtype == np.int16

    def test_memory_is_shared_and_safe(self) -> None:
        array = np.zeros((2, 3, 4), np.int16)
        for image in (pf.ScalarImage(array), pf.LabelMap(array)):
            volume = image.load()
            assert np.shares_memory(volume.array, array)
            with pytest.raises(ValueError, match="read-only"):
                volume.array[0] = 1
            image.data[:] = 1  # an array of the caller's own
            assert not array.any()
        array[:] = 0  # the caller's array stays writable

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((3, 4)), r"array\[\.\.\., None\]"),
            (np.zeros(3), r"\(I, J, K\) or \(C, I, J, K\)"),
            (np.zeros((1, 1, 2, 3, 4)), r"\(I, J, K\) or \(C, I, J, K\)"),
            (np.zeros((3, 0, 4)), "no voxels"),
            (np.zeros((3, 3, 4), complex), "complex128"),
            (np.zeros((3, 3, 4), np.longdouble), r"longdouble|float128"),
            (np.full((3, 3, 4), "a"), "<U1"),
            (np.full((3, 3, 4), None), "object"),
        ],
    )
    def test_what_is_no_volume_is_refused(self, array: np.ndarray, message: str) -> None:
        with pytest.raises(ImageError, match=message):
            pf.ScalarImage(array)

    @pytest.mark.parametrize("source", [None, 3, [[[1]]], {"a": 1}])
    def test_what_is_no_array_is_refused(self, source: object) -> None:
        with pytest.raises(ArgumentError, match="a path, an array or a tensor"):
            pf.ScalarImage(source)

    @pytest.mark.parametrize(
        ("affine", "message"),
        [
            (np.eye(3), r"4x4, not of shape \(3, 3\)"),
            (np.zeros((4, 4)), "last row"),
            (np.diag([1, 1, 0, 1]), "singular"),
            (np.diag([1, np.nan, 1, 1]), "not finite"),
            ([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "singular"),
            ("identity", "4x4 numbers"),
        ],
    )
    def test_affines_that_place_no_voxel_are_refused(self, affine: object, message: str) -> None:
        with pytest.raises(ImageError, match=message):
            pf.ScalarImage(np.zeros((2, 2, 2)), affine=affine)

    def test_tiny_and_sheared_voxels_are_fine(self) -> None:
        affine = np.diag([1e-4, 1e-4, 1e-4, 1])
        affine[0, 1] = 1e-4
        np.testing.assert_array_equal(pf.ScalarImage(np.zeros((2, 2, 2)), affine=affine).affine, affine)

    def test_a_file_brings_its_own_affine(self, path: Path) -> None:
        with pytest.raises(ArgumentError, match="its own affine"):
            pf.ScalarImage(path, affine=np.eye(4))

    def test_the_digest_tells_values_shape_dtype_and_affine_apart(self) -> None:
        array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
        other = array.copy()
        other[1, 2, 3] = 0
        images = [
            pf.ScalarImage(array),
            pf.ScalarImage(other),
            pf.ScalarImage(array.reshape(4, 3, 2)),
            pf.ScalarImage(array.astype(np.int32)),
            pf.ScalarImage(array.view(np.uint16)),
            pf.ScalarImage(array, affine=AFFINE),
        ]
        assert len({image.digest() for image in images}) == len(images)
        assert pf.ScalarImage(np.asfortranarray(array)).digest() == images[0].digest() == images[0].load_with_digest()[1]


@pytest.mark.parametrize("kind", [pf.ScalarImage, pf.LabelMap])
def test_images_can_be_sent_to_another_process(path: Path, kind: type[Image]) -> None:
    for image in (kind(path), kind(np.arange(24).reshape(2, 3, 4), affine=AFFINE)):
        copy = pickle.loads(pickle.dumps(image))
        assert copy.digest() == image.digest()
        np.testing.assert_array_equal(copy.affine, AFFINE)
        np.testing.assert_array_equal(copy.data, image.data)
        assert not copy.load().array.flags.writeable or copy.path is not None
