"""DICOM series: stacked exactly as SimpleITK stacks those that lie on a grid, or refused by name."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import patchflow as pf
from patchflow.errors import ArgumentError, ImageFileError
from patchflow.seeding import generator

pydicom = pytest.importorskip("pydicom")

from dicom_files import (  # noqa: E402
    LPS_TO_RAS,
    corners_apart,
    digits,
    oblique,
    refuse,
    values_and_affine,
    with_simpleitk,
    write_enhanced,
    write_series,
)
from pydicom.dataset import Dataset  # noqa: E402

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
SHAPE = (6, 5, 7)
SHUFFLED = [3, 0, 6, 1, 5, 2, 4]


@pytest.fixture
def volume() -> np.ndarray:
    return generator(0).integers(0, 4000, SHAPE).astype(np.int16)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_an_oblique_series_out_of_order_is_what_simpleitk_reads(tmp_path: Path, volume: np.ndarray, syntax: str) -> None:
    write_series(tmp_path, volume, oblique(), order=SHUFFLED, syntax=syntax)
    image = pf.ScalarImage(tmp_path)
    assert image.shape == (1, *SHAPE)
    assert image.dtype == np.int16
    values, affine = with_simpleitk(tmp_path)
    np.testing.assert_array_equal(image.data[0], values)
    np.testing.assert_array_equal(image.data[0], volume * 2.0 - 1024)
    assert corners_apart(image.affine, affine, SHAPE) < 1e-4
    assert corners_apart(image.affine, LPS_TO_RAS @ oblique(), SHAPE) < 1e-4
    loaded = image.load()
    np.testing.assert_array_equal(loaded.array[0], volume)
    assert (loaded.map.gain, loaded.map.bias) == (2, -1024)


@pytest.mark.parametrize("flip", [0, 1, 2])
def test_directions_that_run_backwards(tmp_path: Path, volume: np.ndarray, flip: int) -> None:
    affine = oblique()
    affine[:, flip] *= -1
    write_series(tmp_path, volume, affine, order=SHUFFLED)
    image = pf.ScalarImage(tmp_path)
    values, expected = with_simpleitk(tmp_path)
    np.testing.assert_array_equal(image.data[0], values)
    assert corners_apart(image.affine, expected, SHAPE) < 1e-4
    right = LPS_TO_RAS @ affine
    step = np.eye(4)
    if flip < 2 or flip == 2:  # an odd flip turns the normal round, so that slices are stacked from the other end
        step[2, 2], step[2, 3] = -1, SHAPE[2] - 1
        right = right @ step
    assert corners_apart(image.affine, right, SHAPE) < 1e-4
    np.testing.assert_array_equal(image.load().array[0], volume[:, :, ::-1])


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2"])
def test_dtypes(tmp_path: Path, dtype: str) -> None:
    info = np.iinfo(dtype)
    volume = generator(1).integers(info.min, info.max, (3, 3, 4), endpoint=True).astype(dtype)
    write_series(tmp_path, volume, oblique())
    loaded = pf.ScalarImage(tmp_path).load()
    assert loaded.array.dtype == dtype
    np.testing.assert_array_equal(loaded.array[0], volume)


def test_a_label_map(tmp_path: Path, volume: np.ndarray) -> None:
    def unscaled(k: int, ds: Dataset) -> None:
        del ds.RescaleSlope, ds.RescaleIntercept

    write_series(tmp_path, volume, oblique(), change=unscaled)
    np.testing.assert_array_equal(pf.LabelMap(tmp_path).data[0], volume)


def test_slices_scaled_each_its_own_way_become_floats(tmp_path: Path, volume: np.ndarray) -> None:
    def scale(k: int, ds: Dataset) -> None:
        ds.RescaleSlope, ds.RescaleIntercept = f"{0.5 + k}", f"{-k}"

    write_series(tmp_path, volume, oblique(), order=SHUFFLED, change=scale)
    image = pf.ScalarImage(tmp_path)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image.data[0], (volume * (0.5 + np.arange(7.0)) - np.arange(7)).astype(np.float32))
    assert image.load().map.is_identity


def test_a_tilted_gantry_gives_an_affine_with_shear(tmp_path: Path, volume: np.ndarray) -> None:
    write_series(tmp_path, volume, oblique(shear=0.8), order=SHUFFLED)
    image = pf.ScalarImage(tmp_path)
    assert corners_apart(image.affine, LPS_TO_RAS @ oblique(shear=0.8), SHAPE) < 1e-4
    np.testing.assert_array_equal(image.load().array[0], volume)


def test_the_digest_follows_every_file_and_no_name(tmp_path: Path, volume: np.ndarray) -> None:
    paths = write_series(tmp_path / "a", volume, oblique())
    write_series(tmp_path / "b", volume, oblique(), order=SHUFFLED)
    volume[0, 0, 3] += 1
    write_series(tmp_path / "c", volume, oblique())
    digests = [pf.ScalarImage(tmp_path / name).load_with_digest()[1] for name in "abc"]
    assert digests == [pf.ScalarImage(tmp_path / name).digest() for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    files = "".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    assert digests[0] == hashlib.sha256(files.encode()).hexdigest()


def test_paths_may_be_relative_and_the_folder_changed(tmp_path: Path, volume: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        paths = write_series(tmp_path / name, volume + ord(name), oblique())
        monkeypatch.chdir(tmp_path / name)
        np.testing.assert_array_equal(pf.ScalarImage(".").load().array[0], volume + ord(name))
        np.testing.assert_array_equal(pf.ScalarImage(paths[2].name).load().array[0, :, :, 0], volume[:, :, 2] + ord(name))


def test_folders_that_links_lead_to_are_read_once(tmp_path: Path, volume: np.ndarray) -> None:
    paths = write_series(tmp_path / "elsewhere", volume, oblique())
    folder = tmp_path / "series"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(tmp_path / "elsewhere")
    (folder / "deep" / "back").symlink_to(folder)
    paths[0].rename(folder / paths[0].name)
    np.testing.assert_array_equal(pf.ScalarImage(folder).load().array[0], volume)


class TestSeveralSeries:
    @pytest.fixture
    def folder(self, tmp_path: Path, volume: np.ndarray) -> Path:
        def describe(k: int, ds: Dataset) -> None:
            ds.SeriesDescription, ds.Modality, ds.ImageType = "Scout", "MR", ["ORIGINAL", "PRIMARY", "LOCALIZER"]

        write_series(tmp_path / "deep" / "one", volume, oblique(), uid="1.2.3.41")
        write_series(tmp_path / "two", volume[:, :, :3] + 1, oblique(), uid="1.2.3.42", change=describe)
        (tmp_path / "DICOMDIR").write_bytes(b"x")
        (tmp_path / ".hidden").write_bytes(b"x")
        (tmp_path / "notes.txt").write_text("notes")
        (tmp_path / "README").write_text("what this is\n" * 20)
        return tmp_path

    def test_are_listed(self, folder: Path) -> None:
        message = refuse(folder, "holds 2 series: choose one by series=")
        assert "1.2.3.41  'made up' (CT), 7 slices of 6x5" in message
        assert "1.2.3.42  'Scout' (MR, localizer), 3 slices of 6x5" in message

    @pytest.mark.parametrize("series", ["1.2.3.42", "2", "42"])
    def test_and_one_is_chosen_by_its_end(self, folder: Path, volume: np.ndarray, series: str) -> None:
        image = pf.ScalarImage(folder, series=series)
        np.testing.assert_array_equal(image.load().array[0], volume[:, :, :3] + 1)
        assert f"(series {series})" in repr(image)

    @pytest.mark.parametrize(("series", "count"), [("7", 0), ("1.2.3.4", 0)])
    def test_or_not(self, folder: Path, series: str, count: int) -> None:
        refuse(folder, rf"has {count} series that end in '{series}'", series=series)

    def test_series_of_what_has_none(self, folder: Path, tmp_path: Path) -> None:
        for source in (folder / "nothing", np.zeros((2, 2, 2))):
            with pytest.raises(ArgumentError, match="series"):
                pf.ScalarImage(source, series="1")
        with pytest.raises(ArgumentError, match="SeriesInstanceUID"):
            pf.ScalarImage(folder, series="")


class TestRefused:
    def test_a_missing_slice(self, tmp_path: Path, volume: np.ndarray) -> None:
        paths = write_series(tmp_path, volume, oblique())
        paths[3].unlink()
        message = refuse(tmp_path, "1 slices are missing")
        assert str(paths[2]) in message
        assert str(paths[4]) in message

    def test_uneven_spacing(self, tmp_path: Path, volume: np.ndarray) -> None:
        def move(k: int, ds: Dataset) -> None:
            if k == 4:
                ds.ImagePositionPatient = digits(oblique()[:3, 3] + 4.3 * oblique()[:3, 2])

        write_series(tmp_path, volume, oblique(), change=move)
        refuse(tmp_path, "not evenly spaced")

    def test_a_slice_moved_sideways(self, tmp_path: Path, volume: np.ndarray) -> None:
        def move(k: int, ds: Dataset) -> None:
            if k == 4:
                ds.ImagePositionPatient = digits(oblique()[:3, 3] + 4 * oblique()[:3, 2] + oblique()[:3, 0])

        write_series(tmp_path, volume, oblique(), change=move)
        refuse(tmp_path, "not evenly spaced")

    def test_a_copy_of_a_file(self, tmp_path: Path, volume: np.ndarray) -> None:
        paths = write_series(tmp_path, volume, oblique())
        shutil.copy(paths[2], tmp_path / "copy.dcm")
        message = refuse(tmp_path, "are the same image")
        assert str(paths[2]) in message
        assert str(tmp_path / "copy.dcm") in message

    def test_two_slices_at_one_place(self, tmp_path: Path, volume: np.ndarray) -> None:
        def echo(k: int, ds: Dataset) -> None:
            ds.EchoTime = "10"

        def later(k: int, ds: Dataset) -> None:
            ds.EchoTime, ds.SOPInstanceUID = "80", f"9.{k}"

        write_series(tmp_path / "a", volume, oblique(), change=echo)
        write_series(tmp_path / "b", volume, oblique(), change=later)
        refuse(tmp_path, "two slices lie at one place.*differ in EchoTime 10(.0)? and 80")

    def test_a_localizer_among_the_slices(self, tmp_path: Path, volume: np.ndarray) -> None:
        def scout(k: int, ds: Dataset) -> None:
            if k == 6:
                ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

        paths = write_series(tmp_path, volume, oblique(), change=scout)
        assert str(paths[6]) in refuse(tmp_path, "is a localizer among other slices")

    def test_mixed_directions(self, tmp_path: Path, volume: np.ndarray) -> None:
        def turn(k: int, ds: Dataset) -> None:
            if k == 2:
                ds.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]

        paths = write_series(tmp_path, volume, oblique(), change=turn)
        assert str(paths[2]) in refuse(tmp_path, "differ in orientation")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"PixelSpacing": ["1", "1"]}, "differ in spacing"),
            ({"Rows": 3, "Columns": 10}, "Rows is 5 in .* and 3 in"),
            ({"PixelRepresentation": 0}, "PixelRepresentation is 1 in .* and 0 in"),
            ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0}, "is in colour"),
            ({"PhotometricInterpretation": "PALETTE COLOR"}, "is in colour"),
            ({"ImagePositionPatient": None}, "has no ImagePositionPatient"),
            ({"ImageOrientationPatient": None}, "has no ImageOrientationPatient"),
            ({"ImageOrientationPatient": ["1", "0", "0", "1", "0", "0"]}, "no perpendicular unit vectors"),
            ({"PixelSpacing": None}, "has no PixelSpacing"),
            ({"PixelSpacing": ["0", "1"]}, "PixelSpacing must be above 0"),
            ({"BitsStored": 12}, "high bit 15"),
            ({"BitsStored": 10, "HighBit": 9}, "BitsStored is 16 in"),
            ({"Rows": None}, "holds no image"),
            ({"PixelData": None}, "no pixel data"),
            ({"PixelData": bytes(58)}, "is truncated, or its header is wrong"),
            ({"PixelData": bytes(62)}, "is truncated, or its header is wrong"),
            ({"RescaleSlope": "0"}, "scale nothing"),
            ({"NumberOfFrames": 2}, "2 frames and does not say where they lie"),
            ({"SeriesInstanceUID": None}, "says of no series"),
        ],
    )
    def test_a_file_that_does_not_fit(self, tmp_path: Path, volume: np.ndarray, changes: dict[str, Any], message: str) -> None:
        def alter(k: int, ds: Dataset) -> None:
            if k == 5:
                for key, value in changes.items():
                    if value is None:
                        del ds[key]
                    else:
                        setattr(ds, key, value)

        write_series(tmp_path, volume, oblique(), change=alter)
        with pytest.raises(ImageFileError, match=message) as caught:
            pf.ScalarImage(tmp_path).load()
        assert str(tmp_path) in str(caught.value)

    def test_a_table_of_values(self, tmp_path: Path, volume: np.ndarray) -> None:
        def table(k: int, ds: Dataset) -> None:
            item = Dataset()
            item.ModalityLUTType = "HU"
            item.add_new("LUTDescriptor", "US", [2, 0, 16])
            item.add_new("LUTData", "OW", bytes(4))
            ds.ModalityLUTSequence = [item]

        write_series(tmp_path, volume, oblique(), change=table)
        refuse(tmp_path, "ModalityLUTSequence")

    def test_bits_above_those_stored(self, tmp_path: Path, volume: np.ndarray) -> None:
        def twelve(k: int, ds: Dataset) -> None:
            ds.BitsStored, ds.HighBit = 12, 11

        write_series(tmp_path / "fine", volume // 2, oblique(), change=twelve)
        np.testing.assert_array_equal(pf.ScalarImage(tmp_path / "fine").load().array[0], volume // 2)
        write_series(tmp_path / "wrong", volume * 2, oblique(), change=twelve)
        with pytest.raises(ImageFileError, match="uses bits above the 12"):
            pf.ScalarImage(tmp_path / "wrong").load()

    def test_signs_of_twelve_bits_that_are_not_extended(self, tmp_path: Path) -> None:
        def twelve(k: int, ds: Dataset) -> None:
            ds.BitsStored, ds.HighBit = 12, 11

        write_series(tmp_path, np.full((3, 3, 3), 0x0FFF, np.int16), oblique(), change=twelve)
        assert (pf.ScalarImage(tmp_path).load().array == -1).all()

    def test_a_folder_without_images(self, tmp_path: Path) -> None:
        refuse(tmp_path, "holds no DICOM images")
        shutil.copy(FILES / "test-SR.dcm", tmp_path / "report.dcm")
        refuse(tmp_path, "holds no DICOM images")

    @pytest.mark.parametrize("name", ["broken.dcm", "IM0001", "1.2.840.113619", "a.IMA"])
    def test_a_file_that_only_has_a_name_like_dicom(self, tmp_path: Path, volume: np.ndarray, name: str) -> None:
        write_series(tmp_path, volume, oblique())
        (tmp_path / name).write_bytes(bytes(128) + b"DICN" + bytes(100))
        with pytest.raises(ImageFileError, match=f"{name} is not a DICOM file"):
            pf.ScalarImage(tmp_path).load()

    def test_an_empty_file(self, tmp_path: Path, volume: np.ndarray) -> None:
        write_series(tmp_path, volume, oblique())
        (tmp_path / "a.dcm").touch()
        with pytest.raises(ImageFileError, match=r"a\.dcm is empty"):
            pf.ScalarImage(tmp_path).load()


class TestManyFrames:
    def test_an_enhanced_file(self, tmp_path: Path, volume: np.ndarray) -> None:
        path = tmp_path / "enhanced.dcm"
        write_enhanced(path, volume, oblique(), SHUFFLED)
        image = pf.ScalarImage(path)
        np.testing.assert_array_equal(image.load().array[0], volume)
        np.testing.assert_array_equal(image.data[0], volume * 0.5 + 3)
        assert corners_apart(image.affine, LPS_TO_RAS @ oblique(), SHAPE) < 1e-4
        assert pf.ScalarImage(tmp_path).digest() == image.digest()

    def test_in_order_as_simpleitk_reads_it(self, tmp_path: Path, volume: np.ndarray) -> None:
        sitk = pytest.importorskip("SimpleITK")
        write_enhanced(tmp_path / "enhanced.dcm", volume, oblique(), range(7))
        values, affine = values_and_affine(sitk.ReadImage(str(tmp_path / "enhanced.dcm")))
        image = pf.ScalarImage(tmp_path / "enhanced.dcm")
        np.testing.assert_array_equal(image.data[0], values)
        assert corners_apart(image.affine, affine, SHAPE) < 1e-4

    def test_two_frames_at_one_place(self, tmp_path: Path, volume: np.ndarray) -> None:
        write_enhanced(tmp_path / "enhanced.dcm", volume, oblique(), [0, 1, 2, 3, 3, 4, 5])
        refuse(tmp_path / "enhanced.dcm", r"two slices lie at one place.*frame 3.*frame 4")

    def test_fewer_groups_than_frames(self, tmp_path: Path, volume: np.ndarray) -> None:
        def fewer(k: int, ds: Dataset) -> None:
            ds.NumberOfFrames = 6

        write_enhanced(tmp_path / "enhanced.dcm", volume, oblique(), range(7), fewer)
        refuse(tmp_path / "enhanced.dcm", "6 frames, and describes 7")

    def test_a_dose(self) -> None:
        ds = pydicom.dcmread(FILES / "rtdose.dcm")
        image = pf.ScalarImage(FILES / "rtdose.dcm")
        assert image.shape == (1, 10, 10, 15)
        expected = (ds.pixel_array * float(ds.DoseGridScaling)).transpose(2, 1, 0)
        np.testing.assert_allclose(image.data[0], expected, rtol=1e-6)
        assert image.affine[2, 2] == pytest.approx(float(ds.GridFrameOffsetVector[1]))
