"""Volumes in HDF5 files: predictions, and any dataset with an affine."""

import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import patchflow as pf
from patchflow.errors import ImageFileError
from patchflow.geometry.space import VoxelGrid
from patchflow.images import hdf5
from patchflow.images.slabs import open_slabs
from patchflow.seeding import generator

AFFINE = np.array([[-0.8, 0.1, 0, 40], [0.1, 0.9, 0, -30], [0, 0, 2.5, 12], [0, 0, 0, 1]])
SHAPE = (2, 7, 5, 6)


@pytest.fixture
def volume() -> np.ndarray:
    return generator(0).integers(-1000, 3000, SHAPE).astype(np.int16)


def write(path: Path, array: np.ndarray, name: str = "volume", affine: Any = AFFINE, **more: Any) -> Path:
    with h5py.File(path, "a") as file:
        dataset = file.create_dataset(name, data=array, **more)
        if affine is not None:
            dataset.attrs["affine"] = affine
    return path


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "f2", "?"])
def test_predictions(tmp_path: Path, volume: np.ndarray, dtype: str) -> None:
    path = tmp_path / "prediction.h5"
    array = volume.astype(dtype)
    with open_slabs(path, VoxelGrid(SHAPE[1:], AFFINE)) as file:
        for first in range(7):
            file.put(first, array[:, first : first + 1])
    image = pf.ScalarImage(path)
    assert image.shape == SHAPE
    np.testing.assert_array_equal(image.affine, AFFINE)
    loaded, digest = image.load_with_digest()
    assert loaded.array.dtype == image.dtype == pf.ScalarImage(array).dtype
    np.testing.assert_array_equal(loaded.array, array)
    assert digest == image.digest() == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("piece", [1, 100, 32 << 20])
@pytest.mark.parametrize(
    "more", [{}, {"chunks": (1, 2, 5, 3)}, {"chunks": (2, 3, 2, 6), "compression": "gzip", "shuffle": True}, {"compression": "lzf"}]
)
@pytest.mark.parametrize("dtype", ["<i2", ">i2", ">f4"])
def test_every_layout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, volume: np.ndarray, piece: int, more: Any, dtype: str) -> None:
    monkeypatch.setattr(hdf5, "_PIECE_BYTES", piece)
    path = write(tmp_path / "a.h5", volume.astype(dtype), **more)
    loaded, digest = pf.ScalarImage(path).load_with_digest()
    assert loaded.array.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(loaded.array, volume)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_plugins_of_hdf5(tmp_path: Path, volume: np.ndarray) -> None:
    plugin = pytest.importorskip("hdf5plugin")
    path = write(tmp_path / "a.h5", np.zeros_like(volume), chunks=SHAPE, **plugin.Zstd())
    np.testing.assert_array_equal(pf.ScalarImage(path).load().array, np.zeros_like(volume))


def test_a_dataset_is_chosen(tmp_path: Path, volume: np.ndarray) -> None:
    path = write(tmp_path / "a.h5", volume, "deep/one")
    write(path, volume[0] + 1, "deep/two", affine=None)
    image = pf.ScalarImage(f"{path}:/deep/two", affine=np.eye(4))
    np.testing.assert_array_equal(image.load().array[0], volume[0] + 1)
    assert image.digest() == image.load_with_digest()[1]
    assert image.digest() != pf.ScalarImage(f"{path}:deep/one").digest()
    np.testing.assert_array_equal(pf.ScalarImage(f"{path}:deep/one").load().array, volume)
    with pytest.raises(ImageFileError, match=r"2 datasets \(deep/one, deep/two\): choose one as 'file.h5:/name'"):
        pf.ScalarImage(path).load()
    with pytest.raises(ImageFileError, match="no dataset 'deep/three'"):
        pf.ScalarImage(f"{path}:deep/three").load()
    with pytest.raises(ImageFileError, match="no dataset 'deep'"):
        pf.ScalarImage(f"{path}:deep").load()


def test_the_only_dataset_needs_no_name(tmp_path: Path, volume: np.ndarray) -> None:
    path = write(tmp_path / "a.hdf5", volume, "any/name")
    np.testing.assert_array_equal(pf.LabelMap(path).data, volume)


def test_an_affine_is_given_exactly_where_there_is_none(tmp_path: Path, volume: np.ndarray) -> None:
    with_one = write(tmp_path / "a.h5", volume)
    without = write(tmp_path / "b.h5", volume, affine=None)
    with pytest.raises(ImageFileError, match="brings its own affine"):
        pf.ScalarImage(with_one, affine=AFFINE).load()
    with pytest.raises(ImageFileError, match="does not say where its voxels lie"):
        pf.ScalarImage(without).load()
    np.testing.assert_array_equal(pf.ScalarImage(without, affine=AFFINE).affine, AFFINE)


@pytest.mark.parametrize(
    ("array", "more", "message"),
    [
        (np.zeros((2, 2)), {}, r"must be \(I, J, K\)"),
        (np.zeros((2, 2, 2), complex), {}, "integers or floats"),
        (np.zeros((2, 2, 2), "S3"), {}, "integers or floats"),
        (np.zeros((2, 2, 2)), {"affine": np.eye(3)}, "not 4x4"),
        (np.zeros((2, 2, 2)), {"affine": np.zeros((4, 4))}, "last row"),
        (np.zeros((2, 2, 2)), {"affine": "eye"}, "not 4x4"),
    ],
)
def test_other_datasets(tmp_path: Path, array: np.ndarray, more: Any, message: str) -> None:
    path = write(tmp_path / "a.h5", array, **more)
    with pytest.raises(ImageFileError, match=message) as caught:
        pf.ScalarImage(path).load()
    assert str(path) in str(caught.value)


def test_chunks_that_were_never_written(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("volume", (32767, 32767, 32767), np.int16, chunks=(64, 64, 64))
        dataset[0, 0, 0] = 1
        dataset.attrs["affine"] = AFFINE
    with pytest.raises(ImageFileError, match="1 of 134217728 chunks of /volume were written"):
        pf.ScalarImage(tmp_path / "a.h5").load()


def test_a_dataset_without_room(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("volume", (32767, 32767, 32767), np.int16).attrs["affine"] = AFFINE
    with pytest.raises(ImageFileError, match="is truncated, or its header is wrong"):
        pf.ScalarImage(tmp_path / "a.h5").load()


def test_voxels_in_other_files(tmp_path: Path, volume: np.ndarray) -> None:
    other = write(tmp_path / "other.h5", volume)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["link"] = h5py.ExternalLink(str(other), "/volume")
        file.create_dataset("raw", (2, 2, 2), np.uint8, external=[(str(tmp_path / "x.raw"), 0, 8)])
        layout = h5py.VirtualLayout(SHAPE, np.int16)
        layout[:] = h5py.VirtualSource(str(other), "volume", SHAPE)
        file.create_virtual_dataset("virtual", layout)
    for name, message in (("link", "is a link to another file"), ("raw", "lie in other files"), ("virtual", "lie in other files")):
        with pytest.raises(ImageFileError, match=message):
            pf.ScalarImage(tmp_path / f"a.h5:{name}").load()


def test_damaged_and_foreign_files(tmp_path: Path, volume: np.ndarray) -> None:
    path = write(tmp_path / "a.h5", volume, chunks=(1, 7, 5, 6), compression="gzip", fletcher32=True)
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        place = file["volume"].id.get_chunk_info(0).byte_offset
    content[place + 20] ^= 255
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match=r"a\.h5 cannot be read"):
        pf.ScalarImage(path).load()
    path.write_bytes(content[:-500])
    with pytest.raises(ImageFileError, match=r"a\.h5 cannot be read.*truncated"):
        pf.ScalarImage(path).load()
    path.write_bytes(b"no HDF5" * 100)
    with pytest.raises(ImageFileError, match=r"a\.h5 cannot be read"):
        pf.ScalarImage(path).load()
    path.unlink()
    with pytest.raises(ImageFileError, match=r"a\.h5 does not exist"):
        pf.ScalarImage(path).load()
