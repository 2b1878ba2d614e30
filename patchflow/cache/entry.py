"""One subject of a cache: any region of any image."""

from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from patchflow.cache.handles import OpenImage, handles
from patchflow.cache.index import LabelIndex, WeightIndex
from patchflow.cache.manifest import ENTRIES
from patchflow.cache.records import ImageRecord, volume_shape
from patchflow.errors import ArgumentError, SamplerError, UnknownNameError
from patchflow.geometry.affine import spacing
from patchflow.geometry.location import Overlap, PatchLocation, whole
from patchflow.geometry.space import VoxelGrid
from patchflow.preprocess.base import GridChange
from patchflow.preprocess.pipeline import native_grid
from patchflow.types import Affine, Array, Int3


class Entry:
    """A subject as it stands in the cache.

    It holds no open file: files are opened per process when read from, a bounded number at a time. It can be pickled, and used by several
    threads at once.

    Attributes:
        name: the subject's name.
        shape: (I, J, K).
        path: the entry file.
    """

    def __init__(self, folder: Path, record: dict[str, Any], verify_on_read: bool = True) -> None:
        self._record, self._verify = record, verify_on_read
        self.name: str = record["name"]
        self.shape: Int3 = volume_shape(record)
        self.path: Path = folder / ENTRIES / record["file"]

    @property
    def affine(self) -> Affine:
        """4x4 float64, voxel index to RAS+ millimetres, of the subject's first image (a copy)."""
        return np.array(self._record["affine"], np.float64)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along I, J, K."""
        i, j, k = spacing(self.affine)
        return float(i), float(j), float(k)

    @property
    def changes(self) -> tuple[GridChange, ...]:
        """The preprocessing steps that changed the voxel grid, in order, each with the grid before it."""
        return tuple(GridChange.from_dict(change) for key in ("past", "grids") for change in self._record.get(key, []))

    @property
    def native(self) -> VoxelGrid:
        """The voxel grid of the source, before any preprocessing: where predictions belong."""
        return native_grid(self.changes, VoxelGrid(self.shape, self.affine))

    @property
    def metadata(self) -> dict[str, Any]:
        """The subject's metadata, as JSON keeps it: tuples are lists (a copy of the outermost dict)."""
        return dict(self._record["metadata"])

    @property
    def images(self) -> MappingProxyType[str, ImageRecord]:
        """Image name to its record, in the subject's order."""
        return MappingProxyType(self._images)

    @cached_property
    def _images(self) -> dict[str, ImageRecord]:
        return {name: ImageRecord.from_dict(record) for name, record in self._record["images"].items()}

    def read(self, name: str, location: PatchLocation | None = None, *, out: Array | None = None, fill: float = 0) -> Array:
        """Values of an image at a location.

        Args:
            name: the image.
            location: any box; what hangs over the volume's border is set to `fill`. None for the whole volume.
            out: (C, i, j, k) to be filled, any strides (a flip is a view): float32 for a scalar image; for a label map any dtype that holds
                its labels. Made when None.
            fill: the value outside the volume, as read (that is, after the intensity map).

        Returns:
            `out`: float32 values (C, i, j, k) of a scalar image, labels in the dtype of the record otherwise.

        Raises:
            UnknownNameError: if the entry has no such image.
            ArgumentError: for another shape or dtype of `out`, or a `fill` that its dtype cannot hold.
            CacheError, CacheDamagedError: if the file is missing, or not what was written.
        """
        record = self._image_record(name)
        location = whole(self.shape) if location is None else location
        if out is None:
            out = np.empty((record.shape[0], *location.size), record.dtype)
        else:
            self._check_out(name, record, location, out)
        overlap = location.overlap(self.shape)
        target = out
        if overlap is None or not location.is_inside(self.shape):
            _fill_outside(out, overlap, _checked_fill(fill, out.dtype))
            if overlap is None:
                return out
            target = out[(slice(None), *overlap.patch)]
        i, j, k = overlap.volume
        self._open(name).voxels.copy(
            (i.start, j.start, k.start), (i.stop, j.stop, k.stop), target, record.map if record.kind == "scalar" else None
        )
        return out

    def region(self, name: str, start: Int3, stop: Int3) -> Array:
        """Stored voxels of a box that lies in the volume, before the intensity map: read-only (C, i, j, k) of the stored dtype.

        In the contiguous layout it is a view of the mapped file; in the compressed layout an array of its own. Every block is checked.

        Raises:
            UnknownNameError: if the entry has no such image.
            ArgumentError: if the box does not lie in the volume.
            CacheError, CacheDamagedError: if the file is missing, or not what was written.
        """
        self._image_record(name)
        if not all(0 <= a < b <= n for a, b, n in zip(start, stop, self.shape, strict=True)):
            raise ArgumentError(f"the box from {start} to {stop} does not lie in subject {self.name!r}, which has {self.shape} voxels")
        return self._open(name).voxels.region(start, stop)

    def label_index(self, name: str) -> LabelIndex:
        """Where the voxels of each class of a label map are.

        Raises:
            UnknownNameError: if the entry has no such image, or it is no label map.
        """
        if self._image_record(name).index != "label":
            raise UnknownNameError(f"image {name!r} of subject {self.name!r} is no label map: give the name of a LabelMap")
        return self._open(name).label_index

    def weight_index(self, name: str) -> WeightIndex:
        """Where the weight of a scalar image of one channel without negative values is.

        Raises:
            UnknownNameError: if the entry has no such image.
            SamplerError: if the image cannot be used as weights; says why.
        """
        record = self._image_record(name)
        if record.index != "weight":
            raise SamplerError(f"image {name!r} of subject {self.name!r} cannot be used as weights: {_why_no_weights(record)}")
        return self._open(name).weight_index

    def close(self) -> None:
        """Close the entry's file in this process; it is opened again when read from."""
        handles.close(self.path)

    def __repr__(self) -> str:
        images = ", ".join(f"{name}: {record.kind} {record.shape} {record.stored_dtype}" for name, record in self.images.items())
        return f"Entry({self.name!r}, {images})"

    def _image_record(self, name: str) -> ImageRecord:
        record = self._images.get(name)
        if record is None:
            raise UnknownNameError(f"subject {self.name!r} has no image {name!r}: it has {', '.join(map(repr, self._images))}")
        return record

    def _open(self, name: str) -> OpenImage:
        return handles.get(self.path, self._record["id"], self._images, self._verify).image(name)

    def _check_out(self, name: str, record: ImageRecord, location: PatchLocation, out: Array) -> None:
        shape = (record.shape[0], *location.size)
        fits = out.dtype == np.float32 if record.kind == "scalar" else np.can_cast(record.dtype, out.dtype, "safe")
        if out.shape != shape or not fits:
            raise ArgumentError(
                f"image {name!r} of subject {self.name!r} is read as {record.dtype} of shape {shape}: "
                f"out is {out.dtype} of shape {out.shape}"
            )


def _why_no_weights(record: ImageRecord) -> str:
    if record.kind == "label":
        return "it is a label map; use LabelSampler, or make it a ScalarImage"
    if record.channels > 1:
        return f"it has {record.channels} channels; weights have one"
    lowest = record.statistics.minimum if record.statistics else 0.0
    return f"it has negative values, down to {lowest:g}; weights are 0 or more"


def _checked_fill(fill: float, dtype: np.dtype[Any]) -> Any:
    with np.errstate(all="ignore"):
        value = np.asarray(fill).astype(dtype)
    if dtype.kind != "f" and value != fill:
        raise ArgumentError(f"the fill value {fill!r} is no {dtype}: give one that is")
    return value


def _fill_outside(out: Array, overlap: Overlap | None, fill: Any) -> None:
    """Set all that lies outside the overlap, and nothing else."""
    if overlap is None:
        out[...] = fill
        return
    inner: list[slice] = [slice(None)]
    for axis, part in enumerate(overlap.patch):
        for outside in (slice(0, part.start), slice(part.stop, out.shape[axis + 1])):
            if outside.start < outside.stop:
                out[(*inner, outside)] = fill
        inner.append(part)
