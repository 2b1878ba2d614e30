"""MGH, MetaImage, NRRD and NumPy files: what nibabel and SimpleITK read of them, or refused by name."""

import gzip
import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import patchflow as pf
from patchflow.errors import ArgumentError, ImageError, ImageFileError
from patchflow.seeding import generator

AFFINE = np.array([[-0.8, 0.1, 0, 40], [0.1, 0.9, 0, -30], [0, 0, 2.5, 12], [0, 0, 0, 1]])
LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])
SHAPE = (7, 5, 6)


@pytest.fixture
def volume() -> np.ndarray:
    return generator(0).integers(-1000, 3000, SHAPE).astype(np.int16)


def turned() -> np.ndarray:
    """Directions (3, 3) of an oblique image."""
    a, b = 0.4, -0.3
    about_k = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    return about_k @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])


def write_with_simpleitk(path: Path, array: np.ndarray, packed: bool = False, channels: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Write (I, J, K) or (I, J, K, C); returns what SimpleITK reads of it, channels first, and the affine to RAS+."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.swapaxes(array, 0, 2)), isVector=channels)
    image.SetSpacing((0.7, 0.9, 2.5))
    image.SetOrigin((-31.25, 17.5, -120.75))
    image.SetDirection(turned().ravel())
    sitk.WriteImage(image, str(path), packed)
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    found = np.swapaxes(sitk.GetArrayFromImage(image), 0, 2)
    return np.moveaxis(found, -1, 0) if channels else found[None], LPS_TO_RAS @ affine


def refuse(path: Path, message: str, **more: Any) -> None:
    for use in (lambda image: image.load(), lambda image: image.shape):
        with pytest.raises(ImageFileError, match=message) as caught:
            use(pf.ScalarImage(path, **more))
        assert path.name.split(".")[0] in str(caught.value)


ENDINGS = [".mha", ".mhd", ".nrrd", ".nhdr"]


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "packed"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_voxels_and_affine_are_those_of_simpleitk(tmp_path: Path, volume: np.ndarray, ending: str, packed: bool) -> None:
    path = tmp_path / f"image{ending}"
    values, affine = write_with_simpleitk(path, volume, packed)
    image = pf.ScalarImage(path)
    assert image.shape == (1, *SHAPE)
    assert image.dtype == np.int16
    np.testing.assert_allclose(image.affine, affine, atol=1e-6)
    loaded, digest = image.load_with_digest()
    np.testing.assert_array_equal(loaded.array, values)
    np.testing.assert_array_equal(loaded.array[0], volume)
    files = sorted(tmp_path.iterdir(), key=lambda file: file != path)
    assert len(files) == (2 if ending in (".mhd", ".nhdr") else 1)
    assert digest == image.digest() == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_every_dtype(tmp_path: Path, dtype: str, ending: str) -> None:
    voxels = generator(1).integers(0, 100, (4, 3, 5)).astype(dtype)
    write_with_simpleitk(tmp_path / f"image{ending}", voxels)
    loaded = pf.ScalarImage(tmp_path / f"image{ending}").load()
    assert loaded.array.dtype == dtype
    np.testing.assert_array_equal(loaded.array[0], voxels)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("slab", [1, 100, 1 << 20])
def test_interleaved_channels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ending: str, packed: bool, slab: int) -> None:
    monkeypatch.setattr("patchflow.images.voxels._SLAB_BYTES", slab)
    array = generator(2).integers(0, 200, (*SHAPE, 3)).astype(np.uint8)
    values, affine = write_with_simpleitk(tmp_path / f"image{ending}", array, packed, channels=True)
    image = pf.ScalarImage(tmp_path / f"image{ending}")
    assert image.shape == (3, *SHAPE)
    np.testing.assert_array_equal(image.load().array, values)
    np.testing.assert_array_equal(image.load().array, np.moveaxis(array, -1, 0))
    np.testing.assert_allclose(image.affine, affine, atol=1e-6)


def write_mgh(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    content = nib.MGHImage(array, affine).to_bytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".mgz" else content)


def content_of(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".mgz" else path.read_bytes()


class TestMgh:
    @pytest.mark.parametrize("ending", [".mgh", ".mgz"])
    @pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
    def test_files_of_nibabel(self, tmp_path: Path, ending: str, dtype: str) -> None:
        path = tmp_path / f"image{ending}"
        array = generator(3).integers(0, 100, (*SHAPE, 2)).astype(dtype)
        affine = AFFINE.copy()
        affine[:3, :3] = turned() * (0.7, 0.9, 2.5)
        write_mgh(path, array, affine)
        image = pf.ScalarImage(path)
        assert image.shape == (2, *SHAPE)
        loaded, digest = image.load_with_digest()
        assert loaded.array.dtype == dtype
        np.testing.assert_array_equal(loaded.array, np.moveaxis(array, -1, 0))
        np.testing.assert_allclose(image.affine, nib.MGHImage.from_bytes(content_of(path)).affine, atol=1e-6)
        np.testing.assert_allclose(image.affine, affine, atol=1e-4)
        assert digest == image.digest() == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_the_file_that_nibabel_carries(self) -> None:
        path = Path(nib.__file__).parent / "tests" / "data" / "test.mgz"
        expected = nib.load(path)
        image = pf.ScalarImage(path)
        np.testing.assert_array_equal(image.load().array, np.moveaxis(np.asanyarray(expected.dataobj), -1, 0))
        np.testing.assert_allclose(image.affine, expected.affine, atol=1e-6)

    @pytest.fixture
    def plain(self, tmp_path: Path, volume: np.ndarray) -> Path:
        write_mgh(tmp_path / "image.mgh", volume, AFFINE)
        return tmp_path / "image.mgh"

    @pytest.mark.parametrize(
        ("place", "field", "message"),
        [
            (0, b"\0\0\0\2", "version 2"),
            (20, b"\0\0\0\5", "MGH's type 5"),
            (4, b"\0\0\0\0", "at least one voxel"),
            (4, b"\x7f\0\0\0", "is truncated, or its header is wrong"),
            (30, b"\0\0\0\0", "singular"),
            (78, b"\x7f\xc0\0\0", "not finite"),
        ],
    )
    def test_headers_that_are_none(self, plain: Path, place: int, field: bytes, message: str) -> None:
        content = bytearray(plain.read_bytes())
        content[place : place + len(field)] = field
        plain.write_bytes(content)
        refuse(plain, message)

    def test_cut_off_and_bombs(self, plain: Path) -> None:
        content = plain.read_bytes()
        bomb = plain.with_suffix(".mgz")
        bomb.write_bytes(gzip.compress(content + bytes(65 << 20), 1))
        with pytest.raises(ImageFileError, match=r"image\.mgz goes on for more than 64 MiB"):
            pf.ScalarImage(bomb).load()
        plain.write_bytes(content[:300])
        refuse(plain, "is truncated")


def metaimage(*changes: str, data: bytes = bytes(24)) -> bytes:
    """A MetaImage file (2, 3, 4) of bytes, with fields replaced, added, or (ending in =) taken out."""
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "1 2 3",
        "ElementSpacing": "1 2 3",
        "DimSize": "2 3 4",
        "ElementType": "MET_UCHAR",
        "ElementDataFile": "LOCAL",
    }
    for change in changes:
        key, _, value = change.partition("=")
        fields.update({key: value})
        fields["ElementDataFile"] = fields.pop("ElementDataFile")
    return "".join(f"{key} = {value}\n" for key, value in fields.items() if value).encode() + data


class TestMetaImage:
    def test_big_endian_four_axes_and_no_geometry(self, tmp_path: Path) -> None:
        array = np.arange(48, dtype=">i2").reshape(2, 4, 3, 2)
        text = metaimage(
            "NDims=4",
            "DimSize=2 3 4 2",
            "ElementType=MET_SHORT",
            "BinaryDataByteOrderMSB=True",
            "TransformMatrix=",
            "Offset=",
            "ElementSpacing=",
        )
        (tmp_path / "a.mha").write_bytes(text[: -24 or None] + array.tobytes())
        image = pf.ScalarImage(tmp_path / "a.mha")
        np.testing.assert_array_equal(image.load().array, array.transpose(0, 3, 2, 1))
        np.testing.assert_array_equal(image.affine, LPS_TO_RAS)

    def test_two_axes(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mha"
        path.write_bytes(
            metaimage("NDims=2", "DimSize=6 4", "TransformMatrix=0 1 1 0", "Offset=1 2", "ElementSpacing=2 3", data=bytes(range(24)))
        )
        image = pf.ScalarImage(path)
        np.testing.assert_array_equal(image.load().array[0, :, :, 0], np.arange(24).reshape(4, 6).T)
        np.testing.assert_array_equal(image.affine, [[0, -3, 0, -1], [-2, 0, 0, -2], [0, 0, 1, 0], [0, 0, 0, 1]])

    @pytest.mark.parametrize(("skip", "start"), [("-1", bytes(100)), ("7", bytes(7))])
    def test_bytes_before_the_voxels_of_another_file(self, tmp_path: Path, skip: str, start: bytes) -> None:
        (tmp_path / "a.mhd").write_bytes(metaimage(f"HeaderSize={skip}", "ElementDataFile=a b.raw", data=b""))
        (tmp_path / "a b.raw").write_bytes(start + bytes(range(24)))
        image = pf.ScalarImage(tmp_path / "a.mhd")
        loaded, digest = image.load_with_digest()
        np.testing.assert_array_equal(loaded.array[0].T.ravel(), np.arange(24))
        assert digest == image.digest()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (["ObjectType=Tube"], "'Tube' is no image"),
            (["NDims="], "has no NDims"),
            (["DimSize="], "has no DimSize"),
            (["ElementType="], "has no ElementType"),
            (["ElementDataFile="], "has no ElementDataFile"),
            (["BinaryData=False"], "written as text"),
            (["BinaryData=maybe"], "BinaryData must be True or False"),
            (["ElementType=MET_STRING"], "'MET_STRING' cannot be used"),
            (["DimSize=2 3"], "2, 3 or 4 axes"),
            (["DimSize=2 0 4"], "whole numbers of at least 1"),
            (["DimSize=2 -3 4"], "whole numbers of at least 1"),
            (["DimSize=32767 32767 32767"], "is truncated, or its header is wrong"),
            (["DimSize=2 3 5"], "is truncated, or its header is wrong"),
            (["ElementSpacing=1 2"], "must be 3 numbers"),
            (["ElementSpacing=1 nan 2"], "must be 3 numbers"),
            (["ElementSpacing=1 0 2"], "spacing must be above 0"),
            (["TransformMatrix=1 0 0 1 0 0 0 0 1"], "singular"),
            (["Offset=1 2 x"], "must be 3 numbers"),
            (["Origin=1 2 3"], "more than one of Offset, Origin"),
            (["ElementNumberOfChannels=0"], "whole numbers of at least 1"),
            (["ElementToIntensityFunctionSlope=2"], "readers of MetaImage disagree"),
            (["ElementDataFile=LIST"], "several files"),
            (["ElementDataFile=a%03d.raw 1 2 1"], "several files"),
            (["ElementDataFile=none.raw"], "does not exist"),
            (["HeaderSize=3"], "makes no sense"),
            (["HeaderSize=x"], "HeaderSize must be"),
            (["CompressedData=True"], "is damaged|is truncated"),
        ],
    )
    def test_what_cannot_be_used(self, tmp_path: Path, changes: list[str], message: str) -> None:
        path = tmp_path / "image.mha"
        path.write_bytes(metaimage(*changes))
        with pytest.raises(ImageFileError, match=message) as caught:
            pf.ScalarImage(path).load()
        assert str(tmp_path) in str(caught.value)

    def test_more_than_declared_and_text_that_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "image.mha"
        path.write_bytes(metaimage(data=bytes(25)))
        with pytest.raises(ImageFileError, match="goes on after the 24 bytes"):
            pf.ScalarImage(path).load()
        path.write_bytes(metaimage("CompressedData=True", data=zlib.compress(bytes(25))))
        with pytest.raises(ImageFileError, match="goes on after the 24 bytes"):
            pf.ScalarImage(path).load()
        path.write_bytes(metaimage("Comment=a\0b"))
        refuse(path, "is not text")
        path.write_bytes(metaimage("Comment=a\nno field"))
        refuse(path, "'no field' of the header is no field")


def nrrd(*changes: str, data: bytes = bytes(24)) -> bytes:
    """An NRRD file (2, 3, 4) of bytes, with fields replaced, added, or (ending in :) taken out."""
    fields = {
        "type": "uchar",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "2 3 4",
        "space directions": "(1,0,0) (0,2,0) (0,0,3)",
        "encoding": "raw",
        "space origin": "(1,2,3)",
    }
    for change in changes:
        key, _, value = change.partition(":")
        fields[key] = value.strip()
    return b"NRRD0004\n# comment\nkey:=value\n" + "".join(f"{k}: {v}\n" for k, v in fields.items() if v).encode() + b"\n" + data


class TestNrrd:
    @pytest.mark.parametrize(
        ("space", "signs"),
        [("left-posterior-superior", (-1, -1)), ("LPS", (-1, -1)), ("right-anterior-superior", (1, 1)), ("RAS", (1, 1)), ("LAS", (-1, 1))],
    )
    def test_spaces(self, tmp_path: Path, space: str, signs: tuple[int, int]) -> None:
        (tmp_path / "a.nrrd").write_bytes(nrrd(f"space:{space}"))
        expected = np.array([[1.0, 0, 0, 1], [0, 2, 0, 2], [0, 0, 3, 3], [0, 0, 0, 1]])
        expected[:2] *= np.array(signs)[:, None]
        np.testing.assert_array_equal(pf.ScalarImage(tmp_path / "a.nrrd").affine, expected)

    @pytest.mark.parametrize("changes", [["space:scanner-xyz"], ["space:", "space dimension: 3"], ["space directions:", "spacings: 1 1 1"]])
    def test_a_space_that_is_not_anatomical_needs_an_affine(self, tmp_path: Path, changes: list[str]) -> None:
        path = tmp_path / "a.nrrd"
        path.write_bytes(nrrd(*changes))
        refuse(path, "does not say where its voxels lie: give affine=")
        np.testing.assert_array_equal(pf.ScalarImage(path, affine=AFFINE).affine, AFFINE)

    def test_an_affine_beside_one(self, tmp_path: Path) -> None:
        (tmp_path / "a.nrrd").write_bytes(nrrd())
        refuse(tmp_path / "a.nrrd", "brings its own affine", affine=AFFINE)

    @pytest.mark.parametrize(("directions", "first"), [("none (1,0,0) (0,2,0) (0,0,3)", True), ("(1,0,0) (0,2,0) (0,0,3) none", False)])
    def test_an_axis_beside_space_becomes_channels(self, tmp_path: Path, directions: str, first: bool) -> None:
        sizes = "2 3 4 5" if first else "3 4 5 2"
        path = tmp_path / "a.nrrd"
        path.write_bytes(nrrd("dimension: 4", f"sizes: {sizes}", f"space directions: {directions}", data=bytes(range(120))))
        array = np.arange(120).reshape([int(n) for n in sizes.split()], order="F")
        expected = array if first else np.moveaxis(array, -1, 0)
        np.testing.assert_array_equal(pf.ScalarImage(path).load().array, expected)

    def test_big_endian_in_a_file_of_its_own(self, tmp_path: Path) -> None:
        array = np.arange(24, dtype=">i2")
        (tmp_path / "a.nhdr").write_bytes(
            nrrd("type: short", "endian: big", "data file: a.raw.gz", "encoding: gzip", data=b"").rstrip(b"\n")
        )
        (tmp_path / "a.raw.gz").write_bytes(gzip.compress(array.tobytes()))
        np.testing.assert_array_equal(pf.ScalarImage(tmp_path / "a.nhdr").load().array[0].ravel("F"), array)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (["type:"], "no field 'type'"),
            (["sizes:"], "no field 'sizes'"),
            (["type: block"], "'block' cannot be used"),
            (["type: short"], "endian must be little or big"),
            (["encoding: bzip2"], "write it as raw or gzip"),
            (["encoding: ascii"], "write it as raw or gzip"),
            (["dimension: 2"], "3 or 4 axes"),
            (["sizes: 2 3 0"], "whole numbers of at least 1"),
            (["sizes: 32767 32767 32767"], "is truncated, or its header is wrong"),
            (["sizes: 2 3 5"], "is truncated, or its header is wrong"),
            (["space directions: (1,0,0) (0,1,0)"], "are not 3 vectors"),
            (["space directions: (1,0,0) (0,1,0) none"], "three axes must lie in space"),
            (["space directions: (1,0,0) (0,1,0) (0,2,0)"], "singular"),
            (["space directions: (1,0,0) (0,1,0) (0,nan,1)"], "must be 3 numbers"),
            (["space origin: (1,2)"], "space origin must be 3 numbers"),
            (['space units: "um" "um" "um"'], "space units must be mm"),
            (["line skip: 1"], "line skip 0"),
            (["byte skip: -2"], "byte skip must be"),
            (["data file: LIST"], "several files"),
            (["datafile: none.raw"], "does not exist"),
            (["encoding: gzip"], "is damaged|is truncated"),
        ],
    )
    def test_what_cannot_be_used(self, tmp_path: Path, changes: list[str], message: str) -> None:
        path = tmp_path / "image.nrrd"
        path.write_bytes(nrrd(*changes))
        with pytest.raises(ImageFileError, match=message) as caught:
            pf.ScalarImage(path).load()
        assert str(tmp_path) in str(caught.value)

    def test_no_nrrd_and_none_that_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "image.nrrd"
        path.write_bytes(b"NRRD9999\n\n")
        refuse(path, "is not an NRRD file")
        path.write_bytes(nrrd().split(b"\n\n")[0])
        refuse(path, "its header does not end")
        path.write_bytes(nrrd(data=bytes(25)))
        with pytest.raises(ImageFileError, match="goes on after the 24 bytes"):
            pf.ScalarImage(path).load()


class TestNumpy:
    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("shape", [(4, 3, 5), (2, 4, 3, 5)])
    @pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "f8", ">f4", "f2", "?"])
    def test_arrays_with_an_affine(self, tmp_path: Path, dtype: str, shape: tuple[int, ...], order: Any) -> None:
        array = generator(4).integers(0, 2, shape).astype(dtype, order=order)
        np.save(tmp_path / "a.npy", array)
        image = pf.ScalarImage(tmp_path / "a.npy", affine=AFFINE)
        loaded = image.load()
        assert image.dtype == loaded.array.dtype == pf.ScalarImage(array).dtype
        np.testing.assert_array_equal(loaded.array, array if array.ndim == 4 else array[None])
        np.testing.assert_array_equal(image.affine, AFFINE)

    def test_the_affine_is_part_of_the_digest(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((2, 2, 2)))
        one, two = (pf.ScalarImage(tmp_path / "a.npy", affine=affine) for affine in (AFFINE, np.eye(4)))
        assert one.digest() == one.load_with_digest()[1] != two.digest()

    def test_without_an_affine(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((2, 2, 2)))
        with pytest.raises(ArgumentError, match="does not say where its voxels lie: give affine="):
            pf.ScalarImage(tmp_path / "a.npy")
        with pytest.raises(ImageError, match="singular"):
            pf.ScalarImage(tmp_path / "a.npy", affine=np.diag([1, 1, 0, 1]))

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((2, 2)), r"must be \(I, J, K\)"),
            (np.zeros((2, 0, 2)), "no empty axis"),
            (np.zeros((2, 2, 2), complex), "not complex128"),
            (np.zeros((2, 2, 2), [("a", "i2")]), "integers or floats"),
            (np.zeros((2, 2, 2), "S3"), "integers or floats"),
        ],
    )
    def test_other_arrays(self, tmp_path: Path, array: np.ndarray, message: str) -> None:
        np.save(tmp_path / "a.npy", array)
        refuse(tmp_path / "a.npy", message, affine=AFFINE)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda content: content[:-1], "is truncated"),
            (lambda content: content + b"x", "goes on after"),
            (lambda content: b"PK" + content[2:], r"is not a \.npy file"),
            (lambda content: content[:8] + b"\xff\xff" + content[10:], "claims 65535 bytes of text"),
            (lambda content: content.replace(b"(2, 3, 4)", b"(9, 9, 9)"), "is truncated, or its header is wrong"),
            (lambda content: content.replace(b"'descr'", b"'descx'"), "the header cannot be used"),
            (lambda content: content.replace(b"(2, 3, 4)", b"((((((((("), "the header cannot be used"),
        ],
    )
    def test_damaged_ones(self, tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
        path = tmp_path / "a.npy"
        np.save(path, np.zeros((2, 3, 4), np.uint8))
        path.write_bytes(change(path.read_bytes()))
        with pytest.raises(ImageFileError, match=message) as caught:
            pf.ScalarImage(path, affine=AFFINE).load()
        assert str(path) in str(caught.value)

    def test_objects_are_never_unpickled(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.full((2, 2, 2), None), allow_pickle=True)
        refuse(tmp_path / "a.npy", "integers or floats", affine=AFFINE)
