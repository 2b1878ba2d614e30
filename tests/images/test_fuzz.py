"""Mutated files: each gives an error that names it, or the voxels that are in it, soon and without taking memory that it does not justify.

2,590 mutants: 630 of NIfTI, 500 each of NRRD, DICOM and HDF5, 260 of MetaImage, 100 of MGH and 100 of .npy. Made from seeds, so that
they are always the same.
"""

import gzip
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest

import patchflow as pf
from patchflow.errors import ImageError
from patchflow.kernels.transpose import slab_to_volume
from patchflow.seeding import generator

AFFINE = np.array([[-0.8, 0.1, 0, 40], [0.1, 0.9, 0, -30], [0, 0, 2.5, 12], [0, 0, 0, 1]])
VOLUME = generator(0).integers(-1000, 3000, (6, 5, 4)).astype(np.int16)
MOST_SECONDS, MOST_BYTES = 5.0, 4 << 20

NASTY = [
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\x7f",
    b"\0" * 8,
    b"\xff" * 8,
    b"\x80",
    b"\0\0\xc0\x7f",
    b"32767 32767 32767",
    b"-1",
    b"nan",
    b"\n",
]


@pytest.fixture(autouse=True, scope="module")
def compiled() -> None:
    """Modules are imported, and kernels compiled or fetched, before memory is measured."""
    pf.ScalarImage(VOLUME).load()
    for size in (1, 2, 4, 8):
        slab_to_volume(np.zeros((2, 2, 2), f"u{size}"), np.zeros((2, 2, 2), f"u{size}"), 0)


def mutants(content: bytes, count: int, seed: int, header: int) -> Iterator[bytes]:
    """Cut off, with bytes changed (mostly among the first `header`), replaced by extremes, taken out, put in, or pieces repeated."""
    rng = generator(seed)
    for number in range(count):
        mutant = bytearray(content)
        size = len(content) if number % 5 == 4 else header
        place = int(rng.integers(0, size))
        kind = number % 8
        if kind == 0:
            del mutant[int(rng.integers(1, len(mutant))) :]
        elif kind == 1:
            word = NASTY[int(rng.integers(0, len(NASTY)))]
            mutant[place : place + len(word)] = word
        elif kind == 2:
            del mutant[place : place + int(rng.integers(1, 9))]
        elif kind == 3:
            mutant[place:place] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == 4:
            other = int(rng.integers(0, size))
            mutant[place : place + 16] = mutant[other : other + 16]
        else:
            for at in rng.integers(0, size, int(rng.integers(1, 4))):
                mutant[at] = int(rng.integers(0, 256)) if kind > 5 else mutant[at] ^ (1 << int(rng.integers(0, 8)))
        yield bytes(mutant)


def survive(path: Path, named: str, check: Callable[[np.ndarray], None], **more: Any) -> bool:
    """Read a mutant; whether it was refused."""
    started = time.monotonic()
    tracemalloc.start()
    try:
        array = pf.ScalarImage(path, **more).load().array
    except ImageError as error:
        array, message = None, str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST_BYTES
    assert time.monotonic() - started < MOST_SECONDS
    if array is None:
        assert named in message
    else:
        check(array)
    return array is None


def in_file_order(array: np.ndarray, interleaved: bool = False) -> list[bytes]:
    """What a file of this volume may hold, in either byte order."""
    turned = array.transpose(3, 2, 1, 0) if interleaved else array.transpose(0, 3, 2, 1)
    return [np.ascontiguousarray(turned).tobytes(), np.ascontiguousarray(turned).byteswap().tobytes()]


def holds(content: bytes) -> Callable[[np.ndarray], None]:
    """Check that an array's voxels lie in a file's content one after the other."""

    def check(array: np.ndarray) -> None:
        orders = in_file_order(array) + (in_file_order(array, True) if len(array) > 1 else [])
        orders += [np.ascontiguousarray(array).tobytes(), array.byteswap().tobytes()]
        assert any(order in content for order in orders)

    return check


def unpacked(content: bytes) -> bytes:
    return gzip.decompress(content)


def run(path: Path, content: bytes, count: int, seed: int, header: int, pack: Callable[[bytes], bytes] = bytes, **more: Any) -> None:
    """Mutate what is packed, and read each mutant."""
    refused = 0
    for mutant in mutants(content, count, seed, header):
        path.write_bytes(pack(mutant))
        refused += survive(path, str(path.parent), holds(mutant), **more)
    assert count // 4 < refused < count


@pytest.mark.parametrize(("name", "pack"), [("a.nii", bytes), ("a.nii.gz", gzip.compress)])
def test_nifti(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    nib.Nifti1Image(VOLUME, AFFINE).to_filename(tmp_path / "original.nii")
    run(tmp_path / name, (tmp_path / "original.nii").read_bytes(), 250, 1, 352, pack)


@pytest.mark.parametrize(("name", "pack"), [("a.mgh", bytes), ("a.mgz", gzip.compress)])
def test_mgh(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    run(tmp_path / name, nib.MGHImage(VOLUME, AFFINE).to_bytes(), 50, 2, 90, pack)


NRRD = (
    b"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 5 4\n"
    b"space directions: (0.8,0.1,0) (-0.1,0.9,0) (0,0,2.5)\n"
    b'kinds: domain domain domain\nendian: little\nencoding: raw\nspace origin: (1,2,3)\nspace units: "mm" "mm" "mm"\n\n'
)
META = (
    b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
    b"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\nElementSpacing = 0.8 0.9 2.5\nDimSize = 6 5 4\nElementType = MET_SHORT\n"
    b"ElementDataFile = LOCAL\n"
)


def test_nrrd(tmp_path: Path) -> None:
    voxels = VOLUME.tobytes("F")
    run(tmp_path / "a.nrrd", NRRD + voxels, 250, 3, len(NRRD))


def test_metaimage(tmp_path: Path) -> None:
    run(tmp_path / "a.mha", META + VOLUME.tobytes("F"), 130, 4, len(META))


def true_or_whole(voxels: bytes) -> Callable[[np.ndarray], None]:
    def check(array: np.ndarray) -> None:
        assert any(order == voxels for order in (*in_file_order(array), *in_file_order(array, True)))

    return check


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("a.nrrd", NRRD.replace(b"raw", b"gzip") + gzip.compress(VOLUME.tobytes("F"), mtime=0), 250),
        ("a.mha", META.replace(b"Data = False", b"Data = True") + gzip.compress(VOLUME.tobytes("F"), mtime=0), 130),
        ("a.nii.gz", gzip.compress(nib.Nifti1Image(VOLUME, AFFINE).to_bytes(), mtime=0), 130),
    ],
)
def test_packed_voxels_are_the_true_ones_or_none(tmp_path: Path, name: str, content: bytes, count: int) -> None:
    path, refused = tmp_path / name, 0
    for mutant in mutants(content, count, 5, len(content)):
        path.write_bytes(mutant)
        refused += survive(path, str(path.parent), true_or_whole(VOLUME.tobytes("F")))
    assert count // 4 < refused < count


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "original.npy", VOLUME)
    run(tmp_path / "a.npy", (tmp_path / "original.npy").read_bytes(), 100, 6, 128, affine=AFFINE)


def test_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "original.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("volume", data=VOLUME).attrs["affine"] = AFFINE
    content = path.read_bytes()
    run(tmp_path / "a.h5", content, 250, 7, content.index(VOLUME.tobytes()))


def test_hdf5_with_checksums_gives_the_true_voxels_or_none(tmp_path: Path) -> None:
    path, refused = tmp_path / "a.h5", 0
    with h5py.File(path, "w", libver="latest") as file:
        dataset = file.create_dataset("volume", data=VOLUME, chunks=(3, 5, 4), compression="gzip", fletcher32=True)
        dataset.attrs["affine"] = AFFINE
    content = path.read_bytes()
    for mutant in mutants(content, 250, 8, len(content)):
        path.write_bytes(mutant)
        refused += survive(path, str(path), lambda array: np.testing.assert_array_equal(array[0], VOLUME))
    assert 60 < refused < 250


def test_dicom_series_with_one_mutant(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from dicom_files import oblique, write_series

    paths = write_series(tmp_path, VOLUME[:, :, :3], oblique())
    content, refused = paths[1].read_bytes(), 0
    slices = [VOLUME[:, :, k].T.tobytes() for k in range(3)]
    for mutant in mutants(content, 350, 9, content.index(slices[1])):
        paths[1].write_bytes(mutant)

        def check(array: np.ndarray, mutant: bytes = mutant) -> None:
            assert array.shape[3] == 3
            if array.dtype == np.float32:  # the scaling of one slice was changed
                array = np.where(np.isclose((array + 1024) / 2, VOLUME[None, :, :, :3]), VOLUME[None, :, :, :3], -9999).astype(np.int16)
                mutant = mutant + np.full(30, -9999, np.int16).tobytes()
            found = [np.ascontiguousarray(array[0, :, :, k].T).tobytes() for k in range(3)]
            assert {slices[0], slices[2]} <= set(found)
            assert all(one in (slices[0], slices[2]) or one in mutant for one in found)

        refused += survive(tmp_path, str(tmp_path), check)
    assert 80 < refused < 350


@pytest.mark.parametrize("name", ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"])
def test_compressed_dicom(tmp_path: Path, name: str) -> None:
    pydicom = pytest.importorskip("pydicom")
    for needed in ("pylibjpeg", "gdcm"):
        pytest.importorskip(needed)
    path = tmp_path / "a.dcm"
    content = (Path(pydicom.__file__).parent / "data" / "test_files" / f"{name}.dcm").read_bytes()

    def check(array: np.ndarray) -> None:
        assert array.nbytes <= 1 << 20

    refused = 0
    for mutant in mutants(content, 50, 10, len(content)):
        path.write_bytes(mutant)
        refused += survive(path, str(path), check)
    assert 5 < refused < 50
