"""DICOM files that the wheels of pydicom and nibabel carry: read as SimpleITK and nibabel read them, or refused by name."""

import gzip
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import patchflow as pf
from patchflow.errors import ImageError, ImageFileError
from patchflow.images import guard

pydicom = pytest.importorskip("pydicom")

from dicom_files import LPS_TO_RAS, corners_apart, refuse, values_and_affine, with_simpleitk  # noqa: E402
from pydicom.encaps import encapsulate, generate_frames  # noqa: E402

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def with_nibabel(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself experimental
        from nibabel.nicom import dicomwrappers

        return dicomwrappers.wrapper_from_file(path)


def needs_decoders() -> None:
    """Those of the extra "dicom"."""
    for name in ("gdcm", "pylibjpeg"):
        pytest.importorskip(name)


def write_jpeg_lossless(source: Path, path: Path) -> None:
    gdcm = pytest.importorskip("gdcm")
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


class TestFilesOfPydicom:
    """One slice each: the voxels that pydicom decodes, the place that SimpleITK gives it."""

    @pytest.mark.parametrize("name", ["CT_small", "MR_small", "MR_small_implicit", "MR_small_bigendian", "MR_small_padded", "image_dfl"])
    def test_are_read(self, name: str) -> None:
        path = FILES / f"{name}.dcm"
        ds = pydicom.dcmread(path)
        if name == "image_dfl":
            refuse(path, "has no ImagePositionPatient")
            return
        if name == "MR_small_padded":
            refuse(path, "its voxels take 8192 bytes")
            return
        image = pf.ScalarImage(path)
        np.testing.assert_array_equal(image.load().array[0, :, :, 0], ds.pixel_array.T)
        scale = float(ds.get("RescaleSlope", 1))
        np.testing.assert_allclose(image.data[0, :, :, 0], ds.pixel_array.T * scale + float(ds.get("RescaleIntercept", 0)), rtol=1e-6)
        sitk = pytest.importorskip("SimpleITK")
        _, affine = values_and_affine(sitk.ReadImage(str(path)))
        np.testing.assert_allclose(image.affine[:, [0, 1, 3]], affine[:, [0, 1, 3]], atol=1e-4)

    @pytest.mark.parametrize(
        ("name", "like"),
        [
            ("MR_small_RLE", "MR_small"),
            ("MR_small_jp2klossless", "MR_small"),
            ("MR_small_jpeg_ls_lossless", "MR_small"),
            ("JPEG2000", ""),
            ("JPEG-lossy", ""),
            ("rtdose_rle", "rtdose"),
            ("J2K_pixelrep_mismatch", ""),
            ("693_J2KI", ""),
        ],
    )
    def test_compressed_ones_are_decoded_in_the_child(self, name: str, like: str) -> None:
        needs_decoders()
        ds = pydicom.dcmread(FILES / f"{name}.dcm")
        if "ImagePositionPatient" not in ds:
            refuse(FILES / f"{name}.dcm", "has no ImagePositionPatient")
            return
        values = pf.ScalarImage(FILES / f"{name}.dcm").load().array[0]
        expected = ds.pixel_array if not like else pydicom.dcmread(FILES / f"{like}.dcm").pixel_array
        np.testing.assert_array_equal(values, np.atleast_3d(expected.transpose(*range(expected.ndim)[::-1])))

    @pytest.mark.parametrize("name", ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "JPEG lossless"])
    def test_a_frame_that_was_cut_is_refused(self, tmp_path: Path, name: str) -> None:
        needs_decoders()
        path = tmp_path / "a.dcm"
        if name == "JPEG lossless":
            write_jpeg_lossless(FILES / "MR_small.dcm", path)
        else:
            shutil.copy(FILES / f"{name}.dcm", path)
        np.testing.assert_array_equal(pf.ScalarImage(path).load().array, pf.ScalarImage(FILES / "MR_small.dcm").load().array)
        ds = pydicom.dcmread(path)
        frame = next(generate_frames(ds.PixelData, number_of_frames=1))
        for part in (len(frame) // 4, len(frame) // 2, len(frame) * 9 // 10):
            ds.PixelData = encapsulate([frame[:part]])
            ds.save_as(path)
            with pytest.raises(ImageFileError, match=r"a\.dcm cannot be read: frame 0 of .* cannot be decoded"):
                pf.ScalarImage(path).load()

    def test_a_deflated_file(self, tmp_path: Path) -> None:
        ds = pydicom.dcmread(FILES / "CT_small.dcm")
        ds.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        ds.save_as(tmp_path / "a.dcm")
        one, two = (pf.ScalarImage(path) for path in (tmp_path / "a.dcm", FILES / "CT_small.dcm"))
        np.testing.assert_array_equal(one.data, two.data)
        np.testing.assert_array_equal(one.affine, two.affine)

    def test_without_a_decoder_its_package_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(guard, "_idle", [])
        hidden = tmp_path / "hidden"
        for name in ("gdcm", "_gdcm", "pylibjpeg", "PIL", "jpeg_ls"):
            (hidden / name).mkdir(parents=True)
            (hidden / name / "__init__.py").write_text("raise ImportError('hidden')")
        monkeypatch.syspath_prepend(str(hidden))
        with pytest.raises(ImageFileError, match=r"nothing is installed that decodes JPEG-LS Lossless.*: pip install 'patchflow\[dicom\]'"):
            pf.ScalarImage(FILES / "MR_small_jpeg_ls_lossless.dcm").load()
        guard._idle.pop().end()

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("MR_truncated", "is truncated, or its header is wrong: its voxels take 8192 bytes"),
            ("SC_rgb_small_odd", "is in colour"),
            ("examples_palette", "is in colour"),
            ("liver_1frame", "1 frames, and describes 3"),
            ("no_meta", "is not a DICOM file"),
            ("meta_missing_tsyntax", "holds no image"),
            ("rtdose_1frame", "does not say how thick it is"),
            ("badVR", "invalid literal"),
            ("rtplan", "holds no image"),
            ("rtstruct", "is not a DICOM file"),
            ("waveform_ecg", "holds no image"),
        ],
    )
    def test_others_are_refused_by_name(self, name: str, message: str) -> None:
        with pytest.raises(ImageError, match=message) as caught:
            pf.ScalarImage(FILES / f"{name}.dcm").load()
        assert f"{name}.dcm" in str(caught.value)

    def test_a_real_series_is_what_simpleitk_reads(self) -> None:
        folder = FILES / "dicomdirtests" / "98892001" / "CT5N"
        values, affine = with_simpleitk(folder)
        image = pf.ScalarImage(folder)
        np.testing.assert_array_equal(image.data[0], values)
        assert corners_apart(image.affine, affine, values.shape) < 1e-4

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("", "holds no image"),
            ("98892003/MR1", "holds 3 series"),
            ("77654033/CT2", "161 slices are missing"),
            ("98892001/CT2N", "differ in orientation"),
            ("98892003/MR700", "differ in orientation"),
            ("77654033/CR1", "has no ImagePositionPatient"),
            ("TINY_ALPHA", "holds no image"),
        ],
    )
    def test_folders_that_are_no_volume(self, name: str, message: str) -> None:
        refuse(FILES / "dicomdirtests" / name, message)


class TestFilesOfNibabel:
    @pytest.fixture
    def unpacked(self, tmp_path: Path) -> Callable[[str], Path]:
        folder = Path(nib.__file__).parent / "nicom" / "tests" / "data"

        def unpack(name: str) -> Path:
            content = (folder / name).read_bytes()
            path = tmp_path / name.removesuffix(".gz")
            path.write_bytes(gzip.decompress(content) if name.endswith(".gz") else content)
            return path

        return unpack

    def test_an_enhanced_file_lies_where_nibabel_and_simpleitk_say(self, unpacked: Callable[[str], Path]) -> None:
        path = unpacked("philips_mprage.dcm.gz")
        wrapper = with_nibabel(path)
        image = pf.ScalarImage(path)
        assert image.shape == (1, 256, 256, 176)
        turned = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 175], [0, 0, 0, 1]])  # its axes are rows, columns, and slices as stored
        # nibabel steps by 1 mm along the normal, and the positions in the file are 1.3 micrometres off that in the end: as SimpleITK has it
        assert corners_apart(image.affine, LPS_TO_RAS @ wrapper.affine @ turned, image.shape[1:]) < 2e-3
        sitk = pytest.importorskip("SimpleITK")
        values, affine = values_and_affine(sitk.ReadImage(str(path)))
        assert corners_apart(image.affine, affine, image.shape[1:]) < 1e-4
        np.testing.assert_array_equal(image.data[0], values)

    def test_a_slice_with_a_decimal_scaling(self, unpacked: Callable[[str], Path]) -> None:
        path = unpacked("decimal_rescale.dcm")
        wrapper = with_nibabel(path)
        image = pf.ScalarImage(path)
        np.testing.assert_allclose(image.data[0, :, :, 0], wrapper.get_data().T, rtol=1e-6)
        turned = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
        assert corners_apart(image.affine, LPS_TO_RAS @ wrapper.affine @ turned, image.shape[1:]) < 1e-4

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("siemens_dwi_1000.dcm.gz", "is a mosaic of Siemens"),
            ("0.dcm", "is a mosaic of Siemens"),
            ("csa_slice_norm.dcm", "no pixel data"),
            ("slicethickness_empty_string.dcm", "does not say how thick it is"),
        ],
    )
    def test_others_are_refused_by_name(self, unpacked: Callable[[str], Path], name: str, message: str) -> None:
        refuse(unpacked(name), message)
