"""NIfTI files read exactly as nibabel reads them, or refused by name."""

import gzip
import hashlib
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from patchflow.errors import ImageFileError
from patchflow.images.nifti import read, read_header
from patchflow.seeding import generator

NIBABEL = Path(nib.__file__).parent / "tests" / "data"
AFFINE = np.array([[-0.8, 0.1, 0, 40], [0.1, 0.9, 0, -30], [0, 0, 2.5, 12], [0, 0, 0, 1]])


@pytest.fixture(autouse=True, params=["zlib", "isal.isal_zlib"])
def inflater(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is tested here holds with either package that undoes deflate."""
    monkeypatch.setattr("patchflow.images.stream._deflate", pytest.importorskip(request.param))


def channels_first(array: np.ndarray) -> np.ndarray:
    array = array.reshape(*array.shape[:3], -1) if array.ndim > 3 else array[(...,) + (None,) * (4 - array.ndim)]
    return np.moveaxis(array, -1, 0)


@pytest.fixture
def volume() -> np.ndarray:
    return generator(0).integers(-1000, 3000, (7, 5, 6)).astype(np.int16)


@pytest.fixture
def plain(tmp_path: Path, volume: np.ndarray) -> Path:
    path = tmp_path / "plain.nii"
    nib.Nifti1Image(volume, AFFINE).to_filename(path)
    return path


@pytest.fixture
def packed(tmp_path: Path, volume: np.ndarray) -> Path:
    path = tmp_path / "packed.nii.gz"
    nib.Nifti1Image(volume, AFFINE).to_filename(path)
    return path


def changed(path: Path, offset: int, form: str, *values: float | bytes) -> Path:
    """The file with header fields overwritten."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<" + form, data, offset, *values)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "name", ["anatomical.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "functional.nii", "reoriented_anat_moved.nii"]
)
def test_real_files_hold_what_nibabel_reads(name: str) -> None:
    path = NIBABEL / name
    content, image = read(path), nib.load(path)
    stored = channels_first(image.dataobj.get_unscaled())
    np.testing.assert_array_equal(content.array, stored)
    assert content.array.dtype == stored.dtype.newbyteorder("=")
    assert content.array.flags.c_contiguous
    np.testing.assert_array_equal(content.affine, image.affine)
    assert (content.slope, content.inter) == (image.dataobj.slope, image.dataobj.inter)
    assert content.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    header = read_header(path)
    assert header.shape == stored.shape
    assert header.dtype.newbyteorder("=") == content.array.dtype
    np.testing.assert_array_equal(header.affine, image.affine)


def test_the_mni_template_holds_what_nibabel_reads() -> None:
    spec = find_spec("nilearn")  # found without the seconds that its import takes
    if spec is None or spec.origin is None:
        pytest.skip("needs the extra demo")
    path = Path(spec.origin).parent / "datasets" / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    content = read(path)
    np.testing.assert_array_equal(content.array[0], np.asanyarray(nib.load(path).dataobj))
    assert content.array.shape == (1, 197, 233, 189)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("make", [nib.Nifti1Image, nib.Nifti2Image])
def test_every_dtype_in_both_byte_orders_and_versions(tmp_path: Path, dtype: str, order: str, make: type) -> None:
    voxels = generator(1).integers(0, 100, (4, 3, 5)).astype(dtype)
    header = make.header_class(endianness=order)
    header.set_data_dtype(np.dtype(dtype))
    path = tmp_path / "image.nii.gz"
    make(voxels, AFFINE, header).to_filename(path)
    content = read(path)
    assert content.array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(content.array[0], voxels)
    np.testing.assert_allclose(content.affine, AFFINE, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5,), (1, 5, 1, 1)),
        ((5, 4), (1, 5, 4, 1)),
        ((5, 4, 1), (1, 5, 4, 1)),
        ((1, 4, 3), (1, 1, 4, 3)),
        ((5, 4, 3, 2), (2, 5, 4, 3)),
        ((5, 4, 3, 1, 2), (2, 5, 4, 3)),
        ((5, 4, 3, 2, 1), (2, 5, 4, 3)),
        ((5, 4, 3, 1, 1, 1, 1), (1, 5, 4, 3)),
    ],
)
def test_axes_beyond_the_third_become_channels(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    path = tmp_path / "image.nii"
    nib.Nifti1Image(voxels, AFFINE).to_filename(path)
    found = read(path).array
    assert found.shape == read_header(path).shape == expected
    c, i, j, k = expected
    np.testing.assert_array_equal(found, np.moveaxis(voxels.reshape(i, j, k, c), -1, 0))


@pytest.mark.parametrize("slab", [1, 200, 1 << 20])
def test_slabs_of_any_size_give_the_same_voxels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slab: int) -> None:
    monkeypatch.setattr("patchflow.images.voxels._SLAB_BYTES", slab)
    voxels = np.arange(3 * 4 * 150 * 2, dtype=">i4").reshape(3, 4, 150, 2)
    path = tmp_path / "image.nii.gz"
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i4")
    nib.Nifti1Image(voxels, AFFINE, header).to_filename(path)
    np.testing.assert_array_equal(read(path).array, np.moveaxis(voxels, -1, 0))


@pytest.mark.parametrize(("slope", "inter", "expected"), [(0, 7, (1, 0)), (np.nan, 7, (1, 0)), (2, -5, (2, -5)), (1, 3, (1, 3))])
def test_scaling_as_the_standard_has_it(plain: Path, slope: float, inter: float, expected: tuple[float, float]) -> None:
    changed(plain, 112, "ff", slope, inter)
    content = read(plain)
    assert (content.slope, content.inter) == expected


@pytest.mark.parametrize("name", ["plain", "packed"])
def test_extensions_before_the_voxels_are_skipped(tmp_path: Path, volume: np.ndarray, name: str) -> None:
    image = nib.Nifti1Image(volume, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 200_000))
    path = tmp_path / ("image.nii" if name == "plain" else "image.nii.gz")
    image.to_filename(path)
    np.testing.assert_array_equal(read(path).array[0], volume)


def test_members_of_gzip_one_after_another_and_padding(tmp_path: Path, plain: Path, volume: np.ndarray) -> None:
    content = plain.read_bytes()
    members = [gzip.compress(content[start : start + 100]) for start in range(0, len(content), 100)]
    path = tmp_path / "members.nii.gz"
    path.write_bytes(members[0] + gzip.compress(b"") + b"".join(members[1:]) + bytes(300_000))
    found = read(path)
    np.testing.assert_array_equal(found.array[0], volume)
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()


class TestAffine:
    def test_sform_goes_before_qform(self, tmp_path: Path, volume: np.ndarray) -> None:
        image = nib.Nifti1Image(volume, None)
        image.set_sform(AFFINE, 2)
        image.set_qform(np.diag([3, 3, 3, 1]), 1)
        image.to_filename(tmp_path / "both.nii")
        np.testing.assert_allclose(read_header(tmp_path / "both.nii").affine, AFFINE, rtol=1e-6)

    def test_qform_without_sform(self, tmp_path: Path, volume: np.ndarray) -> None:
        image = nib.Nifti1Image(volume, None)
        image.set_sform(None, 0)
        image.set_qform(np.diag([-1, 2, 3, 1]), 1)
        path = tmp_path / "qform.nii"
        image.to_filename(path)
        np.testing.assert_array_equal(read_header(path).affine, nib.load(path).affine)
        np.testing.assert_allclose(read_header(path).affine, np.diag([-1, 2, 3, 1]), atol=1e-6)

    def test_a_qfac_of_zero_is_one(self, tmp_path: Path, plain: Path) -> None:
        changed(plain, 252, "hh", 1, 0)
        changed(plain, 76, "f", 0)
        with np.errstate(all="ignore"):
            expected = nib.load(plain).affine
        np.testing.assert_array_equal(read_header(plain).affine, expected)

    def test_spacing_alone(self, plain: Path) -> None:
        changed(plain, 252, "hh", 0, 0)
        changed(plain, 80, "fff", 2, -3, 4)  # nibabel takes sizes as positive
        np.testing.assert_array_equal(read_header(plain).affine, nib.load(plain).affine)

    @pytest.mark.parametrize(("units", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (3 + 8, 0.001)])
    def test_millimetres_whatever_the_units(self, plain: Path, units: int, factor: float) -> None:
        before = read_header(plain).affine
        changed(plain, 123, "B", units)
        np.testing.assert_allclose(read_header(plain).affine[:3], before[:3] * factor)

    def test_a_two_dimensional_file_needs_no_third_spacing(self, tmp_path: Path) -> None:
        path = tmp_path / "flat.nii"
        nib.Nifti1Image(np.ones((3, 4), np.uint8), np.eye(4)).to_filename(path)
        changed(path, 252, "hh", 0, 0)
        changed(path, 80, "fff", 2, 3, 0)
        np.testing.assert_array_equal(np.abs(np.diag(read_header(path).affine)), [2, 3, 1, 1])

    @pytest.mark.parametrize(
        ("offset", "form", "values", "message"),
        [
            (280, "ffff", (0, 0, 0, 0), "singular"),
            (280, "ffff", (np.nan, 0, 0, 0), "not finite"),
            (280, "ffff", (np.inf, 0, 0, 0), "not finite"),
            (254, "h", (9,), "sform_code must be 0 to 5, not 9"),
            (252, "hh", (-1, 0), "qform_code"),
        ],
    )
    def test_one_that_places_no_voxel_is_refused(
        self, plain: Path, offset: int, form: str, values: tuple[float, ...], message: str
    ) -> None:
        with pytest.raises(ImageFileError, match=rf"plain\.nii.*{message}"):
            read(changed(plain, offset, form, *values))

    @pytest.mark.parametrize(("code", "spacing"), [(0, 0.0), (1, 0.0), (0, np.nan), (1, np.nan), (1, np.inf)])
    def test_a_spacing_that_is_none_is_refused(self, plain: Path, code: int, spacing: float) -> None:
        changed(plain, 252, "hh", code, 0)
        with pytest.raises(ImageFileError, match=r"plain\.nii.*(singular|finite)"):
            read(changed(plain, 80, "f", spacing))

    def test_quaternions_that_are_none_are_refused(self, plain: Path) -> None:
        changed(plain, 252, "hh", 1, 0)
        with pytest.raises(ImageFileError, match=r"plain\.nii"):
            read(changed(plain, 256, "fff", 3, 3, 3))


class TestRefused:
    def refuse(self, path: Path, message: str) -> None:
        for function in (read, read_header):
            with pytest.raises(ImageFileError, match=message) as caught:
                function(path)
            assert str(path) in str(caught.value)
            assert isinstance(caught.value, OSError)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        self.refuse(tmp_path / "none.nii.gz", "does not exist")

    def test_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "folder.nii").mkdir()
        self.refuse(tmp_path / "folder.nii", "is a folder")

    @pytest.mark.parametrize("name", ["empty.nii", "empty.nii.gz"])
    def test_zero_bytes(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        self.refuse(tmp_path / name, "zero bytes")

    def test_a_name_that_lies_about_gzip(self, tmp_path: Path, plain: Path, packed: Path) -> None:
        plain.rename(tmp_path / "a.nii.gz")
        packed.rename(tmp_path / "b.nii")
        self.refuse(tmp_path / "a.nii.gz", "not compressed by gzip")
        self.refuse(tmp_path / "b.nii", "is compressed by gzip")

    def test_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "text.nii").write_text("not an image " * 100)
        self.refuse(tmp_path / "text.nii", "not a NIfTI file")
        (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"not an image " * 100))
        self.refuse(tmp_path / "text.nii.gz", "not a NIfTI file")

    def test_half_a_pair_and_analyze(self, plain: Path) -> None:
        self.refuse(changed(plain, 344, "4s", b"ni1\0"), r"\.hdr/\.img pair")
        self.refuse(changed(plain, 344, "4s", b"\0\0\0\0"), "Analyze")

    @pytest.mark.parametrize("keep", [1, 347, 351, 352, 500])
    def test_truncated(self, plain: Path, keep: int) -> None:
        plain.write_bytes(plain.read_bytes()[:keep])
        self.refuse(plain, "truncated")

    def test_one_byte_less_and_one_more(self, plain: Path) -> None:
        content = plain.read_bytes()
        plain.write_bytes(content[:-1])
        self.refuse(plain, "truncated")
        plain.write_bytes(content + b"\0")
        with pytest.raises(ImageFileError, match="goes on after"):
            read(plain)

    @pytest.mark.parametrize("lost", [1, 4, 8, 9, 100])
    def test_a_gzip_file_cut_off(self, packed: Path, lost: int) -> None:
        packed.write_bytes(packed.read_bytes()[:-lost])
        with pytest.raises(ImageFileError, match=r"packed\.nii\.gz is truncated"):
            read(packed)

    def test_a_gzip_file_cut_off_between_slabs(self, monkeypatch: pytest.MonkeyPatch, packed: Path) -> None:
        monkeypatch.setattr("patchflow.images.voxels._SLAB_BYTES", 1)  # with the thread that puts voxels in order at work
        packed.write_bytes(packed.read_bytes()[:-40])
        with pytest.raises(ImageFileError, match=r"packed\.nii\.gz is truncated"):
            read(packed)

    def test_fewer_voxels_than_declared_in_gzip(self, packed: Path) -> None:
        packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes())[:-3]))
        with pytest.raises(ImageFileError, match=r"packed\.nii\.gz holds 3 bytes too few"):
            read(packed)

    def test_more_voxels_than_declared_in_gzip(self, packed: Path) -> None:
        packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes()) + b"\0"))
        with pytest.raises(ImageFileError, match=r"packed\.nii\.gz goes on after the 420 bytes"):
            read(packed)

    @pytest.mark.parametrize(
        ("place", "message"), [(-8, "incorrect data check|Incorrect checksum"), (-1, "incorrect length check|Incorrect checksum")]
    )
    def test_a_bad_checksum_or_length(self, packed: Path, place: int, message: str) -> None:
        content = bytearray(packed.read_bytes())
        content[place] ^= 1
        packed.write_bytes(content)
        with pytest.raises(ImageFileError, match=rf"packed\.nii\.gz is damaged.*({message})"):
            read(packed)

    def test_garbage_after_gzip(self, packed: Path) -> None:
        packed.write_bytes(packed.read_bytes() + b"garbage")
        with pytest.raises(ImageFileError, match=r"packed\.nii\.gz is (damaged|truncated)"):
            read(packed)

    @pytest.mark.parametrize(
        ("dim", "message"),
        [
            ((3, 0, 5, 6), "at least one voxel"),
            ((3, 7, -5, 6), "at least one voxel"),
            ((0, 7, 5, 6), "0 axes"),
            ((8, 7, 5, 6), "8 axes"),
            ((5, 7, 5, 1, 2, 3), "more than one axis"),
            ((6, 7, 5, 1, 1, 1, 6), "more than one axis"),
        ],
    )
    def test_shapes_that_are_none(self, plain: Path, dim: tuple[int, ...], message: str) -> None:
        self.refuse(changed(plain, 40, f"{len(dim)}h", *dim), message)

    @pytest.mark.parametrize(
        ("code", "name"), [(1, "binary"), (32, "complex64"), (128, "RGB"), (1536, "float128"), (2304, "RGBA"), (3, "code 3")]
    )
    def test_voxels_that_are_no_numbers(self, plain: Path, code: int, name: str) -> None:
        self.refuse(changed(plain, 70, "h", code), f"type {name} cannot")

    @pytest.mark.parametrize("offset", [0, 351, 352.5, np.nan, np.inf, -1e30])
    def test_voxels_within_the_header(self, plain: Path, offset: float) -> None:
        self.refuse(changed(plain, 108, "f", offset), "byte")

    @pytest.mark.parametrize(("slope", "inter"), [(np.inf, 0), (1, np.nan), (2, -np.inf)])
    def test_scaling_that_is_not_finite(self, plain: Path, slope: float, inter: float) -> None:
        self.refuse(changed(plain, 112, "ff", slope, inter), "scaling must be finite")

    @pytest.mark.parametrize("name", ["plain.nii", "packed.nii.gz"])
    def test_a_header_that_claims_terabytes_takes_no_memory(self, tmp_path: Path, plain: Path, name: str) -> None:
        path = changed(plain, 40, "8h", 4, 32767, 32767, 32767, 100, 1, 1, 1)
        if name.endswith("gz"):
            path = tmp_path / name
            path.write_bytes(gzip.compress(plain.read_bytes()))
        tracemalloc.start()
        try:
            self.refuse(path, "truncated, or its header is wrong")
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()


def test_a_bomb_is_not_unpacked(tmp_path: Path, packed: Path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed.write_bytes(packer.compress(gzip.decompress(packed.read_bytes())) + packer.compress(bytes(200 << 20)) + packer.flush())
    tracemalloc.start()
    try:
        with pytest.raises(ImageFileError, match="goes on after"):
            read(packed)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def mutations(content: bytes, count: int) -> list[bytes]:
    rng = generator(7)
    made = [content[: int(rng.integers(1, len(content)))] for _ in range(count // 4)]
    for _ in range(count - len(made)):
        mutant = bytearray(content)
        for place in rng.integers(0, min(len(mutant), 400), rng.integers(1, 4)):
            mutant[place] = rng.integers(0, 256)
        made.append(bytes(mutant))
    return made


@pytest.mark.parametrize("pack", [None, gzip.compress], ids=["nii", "gz-inside"])
def test_mutants_are_read_right_or_refused(tmp_path: Path, plain: Path, pack: Callable[[bytes], bytes] | None) -> None:
    path = tmp_path / ("mutant.nii" if pack is None else "mutant.nii.gz")
    right, messages = 0, []
    for mutant in mutations(plain.read_bytes(), 120):
        path.write_bytes(mutant if pack is None else pack(mutant))
        tracemalloc.start()
        try:
            content = read(path)
        except ImageFileError as error:
            messages.append(str(error))
        else:
            header = read_header(path)
            start = header.offset
            expected = np.frombuffer(mutant[start:], header.dtype).reshape(header.shape[0], *header.shape[:0:-1]).transpose(0, 3, 2, 1)
            assert content.array.tobytes() == np.ascontiguousarray(expected.astype(content.array.dtype)).tobytes()
            right += 1
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 8_000_000
    assert right > 10
    assert len(messages) > 10
    assert all(str(path) in message for message in messages)


def test_mutants_of_compressed_bytes_never_give_wrong_voxels(packed: Path, volume: np.ndarray) -> None:
    content, messages = packed.read_bytes(), []
    rng = generator(8)
    for _ in range(60):
        mutant = bytearray(content)
        mutant[int(rng.integers(0, len(mutant)))] ^= int(rng.integers(1, 256))
        packed.write_bytes(mutant)
        try:
            np.testing.assert_array_equal(read(packed).array[0], volume)  # a change of the time or name in gzip's header
        except ImageFileError as error:
            messages.append(str(error))
    assert len(messages) > 40
    assert all(str(packed) in message for message in messages)
