"""Images of a subject: a file or an array, and what its voxels mean."""

import hashlib
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from patchflow.errors import ArgumentError, ImageError, ImageFileError
from patchflow.geometry.affine import spacing
from patchflow.images.content import Source, widened_dtype
from patchflow.images.formats import format_of, source_of
from patchflow.images.labels import as_labels
from patchflow.images.volume import Kind, Volume, as_array, checked_affine
from patchflow.kernels.pointwise import IntensityMap
from patchflow.types import Affine, Array


@dataclass(frozen=True)
class _Facts:
    """What is known of an image without its voxels."""

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    affine: Affine

    def agree(self, other: "_Facts") -> bool:
        return (self.shape, self.dtype) == (other.shape, other.dtype) and bool((self.affine == other.affine).all())


class Image(ABC):
    """A file that is read when asked, or an array: `ScalarImage` or `LabelMap`.

    A file's header is read when `shape`, `affine`, `spacing` or `dtype` is first asked for, its voxels by `load` and `data`, which keep
    nothing. Images of arrays share the array's memory: do not change it afterwards.

    Args:
        source: a path, or an array or tensor of real numbers, (I, J, K) or (C, I, J, K). A 2D image has one voxel along one axis.
            Files that are read: NIfTI (.nii, .nii.gz), MGH (.mgh, .mgz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), NumPy (.npy), HDF5
            (.h5, .hdf5; "file.h5:/path/of/dataset" chooses one of several), a folder of DICOM files or one DICOM file (.dcm, .ima).
        affine: 4x4, voxel index to RAS+ millimetres; for arrays, where None is the identity (1 mm voxels), and for files that say nothing
            of where voxels lie (.npy, HDF5 without an attribute "affine", NRRD without an anatomical space), which need it.
        series: for a folder with several DICOM series: the SeriesInstanceUID of one, or the end of it that is its own.

    Raises:
        ArgumentError: for a source that is neither, or a series that is not of a folder.
        ImageError: for an array or affine that cannot be used.
        ImageFileError: for a file of no format that can be read.
    """

    kind: ClassVar[Kind]

    def __init__(self, source: Any, affine: Any = None, *, series: str | None = None) -> None:
        self.path: Path | None = None
        self._source: Source | None = None
        self._given: Affine | None = None  # for a file that brings no affine
        self._facts: _Facts | None = None
        self._array: Array | None = None
        if isinstance(source, (str, os.PathLike)):
            self._source = source_of(os.fspath(source), series)
            self.path = self._source.path
            places = format_of(self._source).places  # raises for what cannot be read
            if affine is not None:
                self._given = checked_affine(affine, self.describe())
            if places is not None:
                self._check_given(places)
        else:
            if series is not None:
                raise ArgumentError("an array is no DICOM series: give series= with a folder only")
            self._array = _checked_array(source)
            affine = checked_affine(np.eye(4) if affine is None else affine, "image of an array")
            self._facts = _Facts(_four(self._array), self._array.dtype, affine)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, I, J, K)."""
        return self._known().shape

    @property
    def affine(self) -> Affine:
        """4x4 float64, voxel index to RAS+ millimetres (a copy)."""
        return self._known().affine.copy()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along I, J, K."""
        i, j, k = (float(size) for size in spacing(self._known().affine))
        return i, j, k

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the stored voxels, in the machine's byte order; labels may be read as another (see `LabelMap`)."""
        return self._known().dtype

    @property
    def data(self) -> Array:
        """The values (C, I, J, K), read anew each time, in an array of the caller's own: float32, or a label map's integers."""
        values = self.load().values()
        return values if values.flags.writeable else values.copy()

    def load(self) -> Volume:
        """Read all voxels, and a file to its end, so that a gzip file's checksum is checked.

        Raises:
            ImageFileError: for a file that is missing, truncated, damaged, or has changed since its header was read.
            ImageError: for labels that are not integers.
        """
        return self.load_with_digest()[0]

    def load_with_digest(self) -> tuple[Volume, str]:
        """What `load` and `digest` return, from one pass over the file."""
        if self._array is not None:
            array = self._array.view()
            array.flags.writeable = False  # it is the caller's own
            return self._volume(array, self.affine, 1.0, 0.0), self.digest()
        source = self._file()
        content = format_of(source).read(source)
        found = _Facts(_four(content.array), content.array.dtype, self._placed(content.affine))
        if self._facts is not None and not self._facts.agree(found):
            raise ImageFileError(f"{source} has changed since its header was read: make the image anew")
        self._facts = found
        volume = self._volume(content.array, found.affine.copy(), content.slope, content.inter)
        return volume, self._full_digest(content.digest)

    def digest(self) -> str:
        """sha256 in hexadecimal of the source: of an array's dtype, shape, affine and bytes, or of a file's bytes.

        Of a header with its voxels in another file, it is that of both; of a DICOM series, that of its files' digests, slice by slice.
        The dataset chosen in a file, and the affine given with it, are taken in.
        """
        if self._array is None:
            source = self._file()
            return self._full_digest(format_of(source).digest(source))
        facts = self._known()
        sha = hashlib.sha256(repr((facts.dtype.str, facts.shape)).encode())
        sha.update(facts.affine.tobytes())
        sha.update(self._array.reshape(-1).view(np.uint8).data)
        return sha.hexdigest()

    def __repr__(self) -> str:
        source = str(self._source) if self._source is not None else f"array {self.shape} {self.dtype}"
        return f"{type(self).__name__}({source})"

    def describe(self) -> str:
        """Where the voxels come from, for messages: the path, with what is chosen of it, or that it is an array."""
        return str(self._source) if self._source is not None else f"array of shape {self.shape}"

    def _known(self) -> _Facts:
        if self._facts is None:
            source = self._file()
            header = format_of(source).read_header(source)
            self._facts = _Facts(header.shape, widened_dtype(header.dtype), self._placed(header.affine))
        return self._facts

    def _file(self) -> Source:
        assert self._source is not None
        return self._source

    def _placed(self, affine: Affine | None) -> Affine:
        """The affine of the file, or the one given for a file without."""
        try:
            self._check_given(affine is not None)
        except ArgumentError as error:
            raise ImageFileError(f"{error}") from error
        placed = self._given if affine is None else affine
        assert placed is not None
        return placed

    def _check_given(self, places: bool) -> None:
        """Raise `ArgumentError` unless an affine is given exactly where the file has none."""
        if places and self._given is not None:
            raise ArgumentError(f"{self.describe()} brings its own affine: give an affine with arrays, and files that have none, only")
        if not places and self._given is None:
            raise ArgumentError(
                f"{self.describe()} does not say where its voxels lie: give affine=, 4x4, to RAS+ millimetres (numpy.eye(4) for 1 mm)"
            )

    def _full_digest(self, digest: str) -> str:
        if self._given is None and not self._file().inner:
            return digest
        sha = hashlib.sha256(repr((digest, self._file().inner)).encode())
        sha.update(b"" if self._given is None else self._given.tobytes())
        return sha.hexdigest()

    @abstractmethod
    def _volume(self, array: Array, affine: Affine, slope: float, inter: float) -> Volume:
        """The volume of the stored voxels `array`."""


class ScalarImage(Image):
    """An image of intensities, interpolated linearly; see `Image` for the arguments.

    Its values are float32. The stored dtype is kept in memory and in caches; the scaling of a NIfTI header is applied as they are read.
    """

    kind = "scalar"

    def _volume(self, array: Array, affine: Affine, slope: float, inter: float) -> Volume:
        return Volume(array, affine, "scalar", IntensityMap(slope, inter), self.describe())


class LabelMap(Image):
    """An image of integers, never interpolated; see `Image` for the arguments.

    Its values are uint8, int8, int16, int32 or int64: those dtypes stay; uint16 becomes int32, uint32 and uint64 int64, bool uint8;
    floats and scaled integers become the first of uint8, int16, int32 and int64 that holds them. A value that is no integer is an
    `ImageError` when the voxels are read.
    """

    kind = "label"

    def _volume(self, array: Array, affine: Affine, slope: float, inter: float) -> Volume:
        return Volume(as_labels(array, slope, inter, self.describe()), affine, "label", source=self.describe())


def _four(array: Array) -> tuple[int, int, int, int]:
    c, i, j, k = array.shape
    return c, i, j, k


def _checked_array(source: Any) -> Array:
    """A C-contiguous (C, I, J, K) array of native byte order, sharing memory where it can."""
    if not isinstance(source, np.ndarray) and not hasattr(source, "detach"):
        raise ArgumentError(f"an image is made from a path, an array or a tensor, not from {type(source).__name__}")
    array = as_array(source)
    if array.ndim == 2:
        raise ImageError(f"an array of shape {array.shape} has no third axis: make a 2D image of it by array[..., None]")
    if array.ndim not in (3, 4):
        raise ImageError(f"an array must be (I, J, K) or (C, I, J, K), not of shape {array.shape}")
    if array.size == 0:
        raise ImageError(f"an array of shape {array.shape} has no voxels: every axis needs at least one")
    return np.ascontiguousarray(array if array.ndim == 4 else array[None])
