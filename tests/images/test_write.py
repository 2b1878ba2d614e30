"""What is written is what nibabel and we read back; a write that fails leaves nothing."""

import gzip
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import patchflow as pf
from patchflow.errors import ArgumentError, ImageError, ImageFileError
from patchflow.images import write
from patchflow.images.write import atomic_file, write_nifti

ROTATED = np.array([[-0.6, 0.8, 0, 40], [0.8, 0.6, 0, -30], [0, 0, 2.5, 12], [0, 0, 0, 1]])
dtypes = st.sampled_from(["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    dtypes.flatmap(lambda dtype: arrays(dtype, st.tuples(st.integers(1, 3), *[st.integers(1, 6)] * 3))),
    st.sampled_from([".nii", ".nii.gz"]),
)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, suffix: str) -> None:
    path = tmp_path_factory.mktemp("written") / f"image{suffix}"
    write_nifti(path, array, ROTATED)
    volume = pf.ScalarImage(path).load()
    assert volume.array.dtype == array.dtype
    assert volume.array.tobytes() == array.tobytes()
    by_nibabel = np.asanyarray(nib.load(path).dataobj)
    assert by_nibabel.dtype == array.dtype
    expected = array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)
    np.testing.assert_array_equal(by_nibabel.reshape(expected.shape), expected)  # nibabel drops trailing axes of one voxel
    np.testing.assert_allclose(volume.affine, ROTATED, rtol=1e-6)


@pytest.mark.parametrize("slab", [1, 100])
def test_slabs_of_any_size_give_the_same_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slab: int) -> None:
    array = np.arange(2 * 3 * 4 * 5, dtype=np.int32).reshape(2, 3, 4, 5)
    write_nifti(tmp_path / "whole.nii", array, ROTATED)
    monkeypatch.setattr(write, "_PIECE_BYTES", slab)
    write_nifti(tmp_path / "slabs.nii", array, ROTATED)
    assert (tmp_path / "slabs.nii").read_bytes() == (tmp_path / "whole.nii").read_bytes()


def test_the_header_says_where_the_voxels_are(tmp_path: Path) -> None:
    write_nifti(tmp_path / "image.nii", np.zeros((3, 4, 5), np.float32), ROTATED)
    header = nib.load(tmp_path / "image.nii").header
    assert int(header["sform_code"]) == int(header["qform_code"]) == 1
    np.testing.assert_allclose(header.get_sform(), ROTATED, rtol=1e-6)
    np.testing.assert_allclose(header.get_qform(), ROTATED, atol=1e-5)
    assert header.get_zooms() == (1, 1, 2.5)
    assert header.get_xyzt_units()[0] == "mm"


def test_a_sheared_affine_has_no_qform(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.3
    write_nifti(tmp_path / "sheared.nii", np.zeros((3, 4, 5), np.uint8), affine)
    header = nib.load(tmp_path / "sheared.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    np.testing.assert_allclose(pf.ScalarImage(tmp_path / "sheared.nii").affine, affine, rtol=1e-6)


def test_any_array_or_tensor(tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    array = np.arange(24, dtype=">i2").reshape(4, 3, 2)
    for source, expected, dtype in [
        (array.transpose(2, 1, 0), array.transpose(2, 1, 0), "i2"),
        (array[::-1], array[::-1], "i2"),
        (torch.arange(24).reshape(2, 3, 4), np.arange(24).reshape(2, 3, 4), "i8"),
        (torch.ones(2, 2, 2, dtype=torch.bfloat16), np.ones((2, 2, 2)), "f4"),
        (array > 5, array > 5, "u1"),
        (array.astype(np.float16), array, "f4"),
    ]:
        write_nifti(path, source, np.eye(4))
        volume = pf.ScalarImage(path).load()
        assert volume.array.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(volume.array[0], expected)


def test_a_dtype_that_holds_the_values(tmp_path: Path) -> None:
    path = tmp_path / "image.nii"
    write_nifti(path, np.array([[[0, 3.0, 255]]]), np.eye(4), dtype=np.uint8)
    assert pf.LabelMap(path).load().array.tolist() == [[[[0, 3, 255]]]]
    assert pf.LabelMap(path).dtype == np.uint8
    for values in ([0, 256], [-1, 0], [0.5, 1], [np.nan, 0], [np.inf, 0]):
        with pytest.raises(ImageError, match=r"image\.nii: uint8 holds integers from 0 to 255"):
            write_nifti(path, np.array([[values]]), np.eye(4), dtype="uint8")
    with pytest.raises(ArgumentError, match="no voxels of type complex64"):
        write_nifti(path, np.zeros((1, 1, 1)), np.eye(4), dtype="complex64")
    assert pf.LabelMap(path).load().array.tolist() == [[[[0, 3, 255]]]]  # still the first


def test_a_float_dtype_that_is_too_small(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"image\.nii: float32 holds numbers up to 3\.4e\+38"):
        write_nifti(tmp_path / "image.nii", np.full((2, 2, 2), 1e39), np.eye(4), dtype=np.float32)
    write_nifti(tmp_path / "image.nii", np.full((2, 2, 2), np.inf), np.eye(4), dtype=np.float32)  # as it is


def test_the_same_volume_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, np.ones((4, 4, 4)), np.eye(4))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert len(gzip.decompress((tmp_path / "a.nii.gz").read_bytes())) == 352 + 64 * 8


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (np.zeros((2, 2)), np.eye(4), "must be"),
        (np.zeros((0, 2, 2)), np.eye(4), "no empty axis"),
        (np.zeros((1, 1, 40000)), np.eye(4), "at most 32767"),
        (np.zeros((2, 2, 2), complex), np.eye(4), "complex128"),
        (np.zeros((2, 2, 2)), np.zeros((4, 4)), "last row"),
        (np.zeros((2, 2, 2)), np.diag([1, np.nan, 1, 1]), "not finite"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, array: np.ndarray, affine: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        write_nifti(tmp_path / "image.nii", array, affine)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["image.mha", "image.gz", "image"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArgumentError, match=r"must end in \.nii or \.nii\.gz"):
        write_nifti(tmp_path / name, np.zeros((1, 1, 1)), np.eye(4))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match=r"image\.nii cannot be written.*folder"):
        write_nifti(tmp_path / "none" / "image.nii", np.zeros((1, 1, 1)), np.eye(4))


def test_a_write_that_is_interrupted_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def interrupted() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes there")
@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    script = f"""
        import resource, signal
        import numpy as np
        import patchflow as pf
        from patchflow.images.write import write_nifti

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        array = np.random.default_rng(0).integers(0, 2**16, (64, 64, 64)).astype(np.uint16)
        write_nifti({str(tmp_path / "first.nii")!r}, array[:1, :1], np.eye(4))  # compiles its kernel while there is room
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_nifti({str(tmp_path / name)!r}, array, np.eye(4))
        except pf.ImageFileError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=100, env=dict(os.environ), check=True
    )
    assert f"{name} cannot be written" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["first.nii"]
