"""A file written slab by slab is the file of the whole volume; whatever goes wrong leaves what was there."""

import os
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from patchflow.errors import ArgumentError, ImageError, ImageFileError
from patchflow.geometry.space import VoxelGrid
from patchflow.images import write
from patchflow.images.assembly import FilePlan, assembly
from patchflow.images.slabs import SlabFile, check_slab_path, open_slabs
from patchflow.images.write import write_nifti

ROTATED = np.array([[-0.6, 0.8, 0, 40], [0.8, 0.6, 0, -30], [0, 0, 2.5, 12], [0, 0, 0, 1]])
ENDINGS = [".nii", ".nii.gz", ".h5"]
VOLUME = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
dtypes = st.sampled_from(["?", "u1", "i1", "i2", ">i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"])
volumes = dtypes.flatmap(lambda dtype: arrays(dtype, st.tuples(st.integers(1, 3), *[st.integers(1, 7)] * 3)))


@st.composite
def slabs(draw: st.DrawFn) -> tuple[np.ndarray, int, list[tuple[int, np.ndarray]]]:
    """A volume, an axis, and the volume in slabs along it, in any order and memory order."""
    volume, axis = draw(volumes), draw(st.integers(0, 2))
    slices = volume.shape[1 + axis]
    cuts = sorted({0, slices, *draw(st.lists(st.integers(0, slices), max_size=4))})
    parts = [(a, np.take(volume, range(a, b), 1 + axis)) for a, b in pairwise(cuts)]
    order = draw(st.sampled_from(["C", "F"]))
    return volume, axis, [(first, np.asarray(slab, order=order)) for first, slab in draw(st.permutations(parts))]


@contextmanager
def pieces_of(nbytes: int) -> Iterator[None]:
    """Voxels are written that many bytes at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "_PIECE_BYTES", nbytes)
        yield


def written(path: Path, shape: tuple[int, ...], axis: int, parts: list[tuple[int, np.ndarray]]) -> Path:
    with open_slabs(path, VoxelGrid(shape[1:], ROTATED), axis) as file:
        for first, slab in parts:
            file.put(first, slab)
    return path


@settings(max_examples=80, deadline=None, derandomize=True)
@given(slabs(), st.sampled_from([".nii", ".nii.gz", ".NII.GZ"]), st.sampled_from([1, 60, 2**20]))
def test_a_nifti_file_is_that_of_the_whole_volume(tmp_path_factory, given, suffix, piece):
    volume, axis, parts = given
    folder = tmp_path_factory.mktemp("slabs")
    with pieces_of(piece):
        path = written(folder / f"slabs{suffix}", volume.shape, axis, parts)
        write_nifti(folder / f"whole{suffix}", volume, ROTATED)
    assert path.read_bytes() == (folder / f"whole{suffix}").read_bytes()
    assert len(list(folder.iterdir())) == 2


@settings(max_examples=80, deadline=None, derandomize=True)
@given(slabs(), st.sampled_from([".h5", ".hdf5"]), st.sampled_from([1, 60, 2**20]))
def test_an_hdf5_file_holds_the_volume_as_it_is(tmp_path_factory, given, suffix, piece):
    volume, axis, parts = given
    folder = tmp_path_factory.mktemp("slabs")
    with pieces_of(piece):
        path = written(folder / f"slabs{suffix}", volume.shape, axis, parts)
    with h5py.File(path) as file:
        dataset = file["volume"]
        assert list(file) == ["volume"]
        assert dataset.chunks is None
        assert dataset.dtype == volume.dtype.newbyteorder("=")
        assert dataset[()].tobytes() == volume.astype(dataset.dtype).tobytes()
        assert dataset.attrs["affine"].dtype == np.float64
        np.testing.assert_array_equal(dataset.attrs["affine"], ROTATED)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_hdf5_file_of_some_megabytes(tmp_path, axis):
    """Beyond what HDF5 keeps in its buffers: its own parts stand before the voxels, and nothing but voxels follows."""
    volume = np.random.default_rng(0).integers(0, 2**16, (2, 60, 70, 80)).astype(np.uint16)
    path = written(
        tmp_path / "a.h5", volume.shape, axis, [(k, np.take(volume, range(k, k + 10), 1 + axis)) for k in range(0, 60 + 10 * axis, 10)]
    )
    with h5py.File(path) as file:
        assert path.stat().st_size == file["volume"].id.get_offset() + volume.nbytes
        np.testing.assert_array_equal(file["volume"], volume)
        np.testing.assert_array_equal(file["volume"][:, 10:20, 5], volume[:, 10:20, 5])


@pytest.mark.parametrize("axis", [0, 1])
def test_the_same_volume_gives_the_same_hdf5_bytes(tmp_path, axis):
    first = written(tmp_path / "a.h5", VOLUME.shape, 0, [(0, VOLUME)])
    assert written(tmp_path / "b.h5", VOLUME.shape, axis, [(0, VOLUME)]).read_bytes() == first.read_bytes()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_stands_before_and_after_the_voxels(tmp_path, axis):
    plan = FilePlan(tmp_path / "file", b"header", VOLUME.shape, 2, axis, b"tail")
    parts = assembly(plan)
    for first in (1, 2, 0):
        slab = np.take(VOLUME, range(first, VOLUME.shape[1 + axis] if first == 2 else first + 1), 1 + axis)
        parts.put(first, slab.shape[1 + axis], [[channel.tobytes()] for channel in slab])
    parts.finish()
    assert plan.path.read_bytes() == b"header" + VOLUME.tobytes() + b"tail"


@pytest.fixture(params=ENDINGS)
def path(request, tmp_path) -> Path:
    """A file that is there already."""
    path = tmp_path / f"volume{request.param}"
    path.write_bytes(b"before")
    return path


@pytest.fixture(params=[0, 1, 2])
def file(request, path) -> Iterator[SlabFile]:
    """A file that is written, along an axis of four slices."""
    shape = [3, 3, 3]
    shape[request.param] = 4
    file = open_slabs(path, VoxelGrid(tuple(shape), ROTATED), request.param)
    yield file
    file.abort()
    assert path.read_bytes() == b"before"
    assert list(path.parent.iterdir()) == [path]


def slab(file: SlabFile, slices: int = 1, channels: int = 1, dtype: str = "i2") -> np.ndarray:
    shape = [3, 3, 3]
    shape[file._axis] = slices
    return np.ones((channels, *shape), dtype)


def test_a_slab_that_does_not_belong_is_not_taken(file, path):
    name = path.name.replace(".", r"\.")
    file.put(1, slab(file))
    for first, wrong, message in [
        (0, slab(file)[0], r"shape must be \(C, .*slices.*\), not \("),
        (0, slab(file)[:, :2, :2, :2], "shape must be"),
        (0, slab(file, slices=0), "shape must be"),
        (0, slab(file, channels=2), "2 channels of int16, and the first slab had 1 of int16"),
        (0, slab(file, dtype="f4"), "1 channels of float32, and the first"),
        (0, slab(file, dtype="c8"), "not complex64"),
        (0, slab(file, slices=3), "slice 1 came before"),
        (1, slab(file), "slice 1 came before"),
        (3, slab(file, slices=2), "reaches to slice 4, and the volume has 0 to 3"),
        (-1, slab(file), "reaches to slice"),
    ]:
        with pytest.raises(ImageError, match=f"{name}: slab at slice {first} along axis {file._axis}: .*{message}"):
            file.put(first, wrong)
    file.put(2, slab(file, slices=2))  # the file is none the worse
    with pytest.raises(ImageError, match=rf"{name}: 1 of 4 slices along axis \d never came, the first is 0"):
        file.close()
    with pytest.raises(ImageError, match=f"{name}: the file was closed or aborted before"):
        file.put(0, slab(file))


def test_no_slab_at_all(file):
    with pytest.raises(ImageError, match=r"4 of 4 slices"):
        file.close()


def test_an_aborted_file_leaves_nothing(file, path):
    file.put(1, slab(file, slices=3))
    file.abort()
    assert list(path.parent.iterdir()) == [path]
    file.abort()
    for call in (file.close, lambda: file.put(0, slab(file))):
        with pytest.raises(ImageError, match="closed or aborted before: open another"):
            call()


def test_an_error_in_the_block_aborts(file, path):
    def interrupted() -> None:
        with file:
            file.put(0, slab(file, slices=4))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_a_closed_file_stays(path):
    file = open_slabs(path, VoxelGrid((3, 4, 5), ROTATED))
    file.put(0, VOLUME)
    assert path.read_bytes() == b"before"
    file.close()
    content = path.read_bytes()
    assert content != b"before"
    file.abort()
    with pytest.raises(ImageError, match="closed or aborted before"):
        file.close()
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the scratch file may have a name")
def test_the_scratch_file_has_no_name(tmp_path):
    file = open_slabs(tmp_path / "volume.nii.gz", VoxelGrid((3, 4, 5), ROTATED))
    file.put(0, VOLUME)
    assert not list(tmp_path.iterdir())
    file.abort()


@pytest.mark.parametrize("function", [check_slab_path, lambda path: open_slabs(path, VoxelGrid((3, 4, 5), ROTATED))])
def test_paths_are_checked_before_the_work(tmp_path, function):
    for name in ("image.mha", "image.gz", "image", "h5"):
        with pytest.raises(ArgumentError, match=rf"{name}: volumes are written as NIfTI or HDF5: let the name end in \.nii, "):
            function(tmp_path / name)
    with pytest.raises(ArgumentError, match=r"image\.nii: there is no folder .*none to write to: make it first"):
        function(tmp_path / "none" / "image.nii")
    assert check_slab_path(str(tmp_path / "a.HDF5")) == tmp_path / "a.HDF5"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ending", "shape", "affine", "axis", "error", "message"),
    [
        (".nii", (3, 4, 5), ROTATED, 3, ArgumentError, r"volume\.nii: axis must be 0, 1 or 2"),
        (".h5", (3, 4, 5), np.zeros((4, 4)), 0, ImageError, r"volume\.h5: the last row of the affine"),
        (".nii", (3, 4, 40000), ROTATED, 0, ImageError, r"volume\.nii: NIfTI-1 holds at most 32767 voxels"),
        (".nii.gz", (3, 4, 5), np.diag([1e39, 1, 1, 1]), 0, ImageError, r"volume\.nii\.gz: the affine does not fit"),
    ],
)
def test_what_no_file_can_hold_is_refused_when_it_is_opened(tmp_path, ending, shape, affine, axis, error, message):
    with pytest.raises(error, match=message):
        open_slabs(tmp_path / f"volume{ending}", VoxelGrid(shape, affine), axis)


def test_a_folder_that_went_away(tmp_path):
    folder = tmp_path / "folder"
    for ending in ENDINGS:
        folder.mkdir()
        file = open_slabs(folder / f"volume{ending}", VoxelGrid((3, 4, 5), ROTATED))
        folder.rmdir()
        with pytest.raises(ImageFileError, match=rf"volume{ending} cannot be written \(No such file or directory\)"):
            file.put(0, VOLUME)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes there")
def test_a_full_disk_leaves_nothing_behind(tmp_path):
    """Full at once, in between and at the end; the process goes on, and ends in peace."""
    limits, kinds = (10, 100_000, 2 * 64**3 + 100), ((".nii", 0), (".nii", 2), (".nii.gz", 0), (".h5", 0), (".h5", 1))
    script = f"""
        import resource, signal
        import numpy as np
        from patchflow.errors import ImageFileError
        from patchflow.geometry.space import VoxelGrid
        from patchflow.images.slabs import open_slabs

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        array = np.random.default_rng(0).integers(0, 2**16, (1, 64, 64, 64)).astype(np.uint16)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

        def write(name, axis, limit):
            with open_slabs({str(tmp_path)!r} + "/" + name, VoxelGrid((64, 64, 64), np.eye(4)), axis) as file:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
                for first in range(0, 64, 8):
                    file.put(first, np.take(array, range(first, first + 8), 1 + axis))

        write("first.nii", 0, hard)  # compiles its kernel while there is room
        for limit in {limits}:
            for ending, axis in {kinds}:
                try:
                    write("volume" + ending, axis, limit)
                except ImageFileError as error:
                    print(error)
        write("last.h5", 0, hard)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=100, env=dict(os.environ), check=True
    )
    why = "cannot be written (File too large): check that its folder is there, and has room"
    assert done.stdout.splitlines() == [f"{tmp_path}/volume{ending} {why}" for _ in limits for ending, _ in kinds]
    assert not done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first.nii", "last.h5"]


@pytest.mark.parametrize(("ending", "axis"), [(".nii.gz", 0), (".nii", 1), (".h5", 2)])
def test_memory_is_bounded(tmp_path, ending, axis):
    """A volume of 60 MiB in slabs of four slices, of noise, which packs badly."""
    shape = [512, 512, 240]
    slices, shape[axis] = shape[axis], 4
    slab = np.random.default_rng(0).integers(0, 256, (1, *shape)).astype(np.uint8)
    written(tmp_path / "warm.nii", slab.shape, axis, [(0, slab)])  # compiles its kernel
    shape[axis] = slices
    tracemalloc.start()
    try:
        with open_slabs(tmp_path / f"volume{ending}", VoxelGrid(tuple(shape), ROTATED), axis) as file:
            for first in range(0, slices, 4):
                file.put(first, slab)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
