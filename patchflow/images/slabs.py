"""Volume files that are written slab by slab, in bounded memory.

    with open_slabs("prediction.nii.gz", grid) as file:
        for first in range(0, I, 4):
            file.put(first, slab)  # (C, 4, J, K)

NIfTI files are those of `write_nifti`, byte for byte. HDF5 files hold one dataset; to read a part of it:
`with h5py.File("prediction.h5") as file: part, affine = file["volume"][:, 10:20], file["volume"].attrs["affine"]`.
"""

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from patchflow.errors import ArgumentError, ImageError
from patchflow.geometry.space import VoxelGrid
from patchflow.images.assembly import Assembly, FilePlan, assembly
from patchflow.images.volume import as_array, checked_affine
from patchflow.images.write import NIFTI_ENDINGS, Data, naming, nifti_header, nifti_pieces
from patchflow.types import Affine, Array, int3

HDF5_ENDINGS = (".h5", ".hdf5")
_PAGE = 4096


def open_slabs(path: str | os.PathLike[str], grid: VoxelGrid, axis: int = 0) -> "SlabFile":
    """A file for a volume that comes slab by slab.

    Args:
        path: ending in .nii, .nii.gz, .h5 or .hdf5; replaced, if it is there, when the volume is whole.
        grid: shape (I, J, K) and affine of the volume.
        axis: 0, 1 or 2: along which of I, J and K slabs come.

    Raises:
        ArgumentError: for another ending or axis, or a folder that does not exist.
        ImageError: for an affine or shape that the format cannot hold.
    """
    path = check_slab_path(path)
    return (NiftiSlabs if path.name.lower().endswith(NIFTI_ENDINGS) else Hdf5Slabs)(path, grid, axis)


def check_slab_path(path: str | os.PathLike[str]) -> Path:
    """The path if a volume can be written there, to be asked before the work, not after it.

    Raises:
        ArgumentError: if its name ends in none of .nii, .nii.gz, .h5 and .hdf5, or its folder does not exist.
    """
    path = Path(path)
    if not path.name.lower().endswith((*NIFTI_ENDINGS, *HDF5_ENDINGS)):
        raise ArgumentError(f"{path}: volumes are written as NIfTI or HDF5: let the name end in .nii, .nii.gz, .h5 or .hdf5")
    if not path.parent.is_dir():
        raise ArgumentError(f"{path}: there is no folder {path.parent} to write to: make it first")
    return path


class SlabFile(ABC):
    """A volume file in the making. Nothing stands under its name before `close`; as a context manager it closes, or aborts on an error.

    To be used by one thread at a time. Slabs along the slowest axis of an uncompressed file (K of .nii, I of .h5) are written in place;
    any others take as much room again beside the file until it is closed.
    """

    def __init__(self, path: Path, grid: VoxelGrid, axis: int = 0) -> None:
        if axis not in (0, 1, 2):
            raise ArgumentError(f"{path}: axis must be 0, 1 or 2, for slabs along I, J or K, not {axis!r}")
        self._path, self._axis = path, axis
        self._shape = int3(grid.shape, "grid.shape")
        self._affine = checked_affine(grid.affine, str(path))
        self._came = np.zeros(self._shape[axis], bool)
        self._kind: tuple[int, np.dtype[Any]] | None = None  # channels and dtype, of the first slab
        self._assembly: Assembly | None = None
        self._over = False

    def put(self, first: int, slab: Array) -> None:
        """Take a slab.

        Slabs may come in any order, each slice once. They are copied to disk before this returns.

        Args:
            first: its first slice along the axis.
            slab: (C, I, J, K), the whole volume but along the axis; integers, floats of at most 64 bits or bool, in any memory order. The
                first slab's channels and dtype hold for all.

        Raises:
            ImageError: for a slab that does not belong here, which is not taken; or if the file was closed.
            ImageFileError: when it cannot be written, the disk being full; the file is then aborted.
        """
        self._check(first, slab)
        encoded = self._encoded(slab)
        try:
            with naming(self._path):
                if self._assembly is None:
                    self._assembly = assembly(self._plan(len(slab), encoded.dtype))
                self._assembly.put(first, slab.shape[1 + self._axis], (self._pieces(encoded[c : c + 1]) for c in range(len(slab))))
        except BaseException:
            self.abort()
            raise
        self._kind = len(slab), slab.dtype
        self._came[first : first + slab.shape[1 + self._axis]] = True

    def close(self) -> None:
        """Let the file appear under its name, whole and flushed to disk.

        Raises:
            ImageError: if slices are missing, or the file was closed before; it is then aborted.
            ImageFileError: when it cannot be written; it is then aborted.
        """
        self._check_open()
        try:
            missing = np.flatnonzero(~self._came)
            if len(missing) or self._assembly is None:
                raise ImageError(
                    f"{self._path}: {len(missing)} of {len(self._came)} slices along axis {self._axis} never came, "
                    f"the first is {missing[0]}: put them all before closing"
                )
            with naming(self._path):
                self._assembly.finish()
        except BaseException:
            self.abort()
            raise
        self._over = True

    def abort(self) -> None:
        """Give up: nothing is left behind, and what stood under the name still does. Does nothing after `close`, or a second time."""
        self._over = True
        if self._assembly is not None:
            self._assembly.drop()

    def __enter__(self) -> "SlabFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    @abstractmethod
    def _encoded(self, slab: Array) -> Array:
        """The slab in the dtype that the file will hold, in the machine's byte order."""

    @abstractmethod
    def _plan(self, channels: int, dtype: np.dtype[Any]) -> FilePlan:
        """What the file will hold."""

    @abstractmethod
    def _pieces(self, slab: Array) -> Iterable[Data]:
        """The encoded voxels of one channel of a slab (1, I, J, K) in the file's order."""

    def _check_open(self) -> None:
        if self._over:
            raise ImageError(f"{self._path}: the file was closed or aborted before: open another")

    def _check(self, first: int, slab: Array) -> None:
        self._check_open()
        what, axis, slices = f"{self._path}: slab at slice {first} along axis {self._axis}", self._axis + 1, len(self._came)
        wanted: list[int | str] = ["C", *self._shape]
        wanted[axis] = "slices"
        if slab.ndim != 4 or 0 in slab.shape or any(a != b for a, b in zip(slab.shape, wanted, strict=True) if isinstance(b, int)):
            raise ImageError(f"{what}: its shape must be ({', '.join(map(str, wanted))}), not {slab.shape}")
        last = first + slab.shape[axis]
        if first < 0 or last > slices:
            raise ImageError(f"{what}: it reaches to slice {last - 1}, and the volume has 0 to {slices - 1}: cut it to the volume")
        again = np.flatnonzero(self._came[first:last])
        if len(again):
            raise ImageError(f"{what}: slice {first + again[0]} came before: put each slice once")
        if slab.dtype.kind not in "biuf" or slab.dtype.itemsize > 8:
            raise ImageError(f"{what}: voxels must be integers, floats of at most 64 bits or bool, not {slab.dtype}")
        if self._kind is not None and (len(slab), slab.dtype) != self._kind:
            raise ImageError(
                f"{what}: it has {len(slab)} channels of {slab.dtype}, and the first slab had {self._kind[0]} of {self._kind[1]}: "
                "all must be alike"
            )


class NiftiSlabs(SlabFile):
    """A NIfTI-1 file, the bytes of which are those that `write_nifti` makes of the whole volume."""

    def __init__(self, path: Path, grid: VoxelGrid, axis: int = 0) -> None:
        super().__init__(path, grid, axis)
        nifti_header((1, *self._shape), np.dtype(np.uint8), self._affine, path)  # raises now what it would raise later

    def _encoded(self, slab: Array) -> Array:
        return as_array(slab)

    def _plan(self, channels: int, dtype: np.dtype[Any]) -> FilePlan:
        header = nifti_header((channels, *self._shape), dtype, self._affine, self._path)
        i, j, k = self._shape
        return FilePlan(self._path, header, (channels, k, j, i), dtype.itemsize, 2 - self._axis)

    def _pieces(self, slab: Array) -> Iterable[Data]:
        return nifti_pieces(slab)


class Hdf5Slabs(SlabFile):
    """An HDF5 file with one dataset "volume" (C, I, J, K), contiguous, in the slabs' dtype, with the attribute "affine", 4x4 float64."""

    def _encoded(self, slab: Array) -> Array:
        return slab.astype(slab.dtype.newbyteorder("="), copy=False)

    def _plan(self, channels: int, dtype: np.dtype[Any]) -> FilePlan:
        shape = (channels, *self._shape)
        header, tail = _outline(shape, dtype, self._affine)
        return FilePlan(self._path, header, shape, dtype.itemsize, self._axis, tail)

    def _pieces(self, slab: Array) -> Iterable[Data]:
        return [np.ascontiguousarray(slab).reshape(-1).view(np.uint8).data]


def _outline(shape: tuple[int, int, int, int], dtype: np.dtype[Any], affine: Affine) -> tuple[bytes, bytes]:
    """What an HDF5 file holds before and after the voxels of its dataset.

    HDF5 lays the file out in memory and never sees the disk or the voxels: where a disk is full, it can neither close its files nor
    end its process in peace. Aligned as here, it puts all that it writes before the voxels.
    """
    memory = io.BytesIO()
    with h5py.File(memory, "w", alignment_threshold=512, alignment_interval=_PAGE) as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.CONTIGUOUS)
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        plan.set_obj_track_times(False)  # same volume, same bytes
        kind, space = h5py.h5t.py_create(dtype, logical=True), h5py.h5s.create_simple(shape)
        dataset = h5py.h5d.create(file.id, b"volume", kind, space, plan)
        h5py.Dataset(dataset).attrs["affine"] = affine
        file.flush()
        start, size = dataset.get_offset(), file.id.get_filesize()
    end = start + int(np.prod(shape)) * dtype.itemsize
    content = memory.getvalue()
    return content[:start].ljust(start, b"\0"), content[end:].ljust(size - end, b"\0")
