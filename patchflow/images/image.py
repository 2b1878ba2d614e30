"""Images of a subject: a file or an array, and what its voxels mean."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from patchflow.errors import ArgumentError
from patchflow.geometry.affine import spacing
from patchflow.images.labels import as_labels
from patchflow.images.origins import origin_of
from patchflow.images.volume import Kind, Volume
from patchflow.kernels.pointwise import IntensityMap
from patchflow.types import Affine, Array


class Image(ABC):
    """A file that is read when asked, or an array: `ScalarImage` or `LabelMap`.

    A file's header is read when `shape`, `affine`, `spacing` or `dtype` is first asked for, its voxels by `load` and `data`, which keep
    nothing. Images of arrays share the array's memory: do not change it afterwards.

    Args:
        source: a path, or an array or tensor of real numbers, (I, J, K) or (C, I, J, K). A 2D image has one voxel along one axis.
            Files that are read: NIfTI (.nii, .nii.gz), MGH (.mgh, .mgz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), NumPy (.npy), HDF5
            (.h5, .hdf5; "file.h5:/path/of/dataset" chooses one of several), a folder of DICOM files or one DICOM file (.dcm, .ima).
            A `ScalarImage` also takes a list of paths: files on one grid, whose channels follow one another in the order of the list.
        affine: 4x4, voxel index to RAS+ millimetres; for arrays, where None is the identity (1 mm voxels), and for files that say nothing
            of where voxels lie (.npy, HDF5 without an attribute "affine", NRRD without an anatomical space), which need it.
        series: for a folder with several DICOM series: the SeriesInstanceUID of one, or the end of it that is its own.

    Raises:
        ArgumentError: for a source that is none of these, or a series that is not of a folder.
        ImageError: for an array or affine that cannot be used.
        ImageFileError: for a file of no format that can be read.
    """

    kind: ClassVar[Kind]

    def __init__(self, source: Any, affine: Any = None, *, series: str | None = None) -> None:
        self._origin = origin_of(source, affine, series)
        if self.kind == "label" and len(self.paths) > 1:
            raise ArgumentError(f"a label map is read from one file, not from {len(self.paths)}: a ScalarImage takes several, as channels")

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, or folders of series, that it is read from; none for an array."""
        return self._origin.paths

    @property
    def path(self) -> Path | None:
        """The file or folder that it is read from; None for an array, or where there are several (see `paths`)."""
        return self.paths[0] if len(self.paths) == 1 else None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, I, J, K)."""
        return self._origin.facts().shape

    @property
    def affine(self) -> Affine:
        """4x4 float64, voxel index to RAS+ millimetres (a copy)."""
        return self._origin.facts().affine.copy()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along I, J, K."""
        i, j, k = (float(size) for size in spacing(self._origin.facts().affine))
        return i, j, k

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the stored voxels, in the machine's byte order; labels may be read as another (see `LabelMap`)."""
        return self._origin.facts().dtype

    @property
    def data(self) -> Array:
        """The values (C, I, J, K), read anew each time, in an array of the caller's own: float32, or a label map's integers."""
        values = self.load().values()
        return values if values.flags.writeable else values.copy()

    def load(self) -> Volume:
        """Read all voxels, and a file to its end, so that a gzip file's checksum is checked.

        Raises:
            ImageFileError: for a file that is missing, truncated, damaged, or has changed since its header was read.
            ImageError: for labels that are not integers, and for files that are no channels of one image: of different shapes, or further
                apart than images of one subject may be (see `Subject.check`).
        """
        return self.load_with_digest()[0]

    def load_with_digest(self) -> tuple[Volume, str]:
        """What `load` and `digest` return, from one pass over the file."""
        content = self._origin.load()
        assert content.affine is not None
        return self._volume(content.array, content.affine.copy(), content.slope, content.inter), content.digest

    def digest(self) -> str:
        """sha256 in hexadecimal of the source: of an array's dtype, shape, affine and bytes, or of a file's bytes.

        Of a header with its voxels in another file, it is that of both; of a DICOM series, that of its files' digests, slice by slice; of
        several files, that of their digests, channel by channel. The dataset chosen in a file, and the affine given with it, are taken in.
        """
        return self._origin.digest()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"

    def describe(self) -> str:
        """Where the voxels come from, for messages: the paths, with what is chosen of them, or that it is an array."""
        return self._origin.describe()

    @abstractmethod
    def _volume(self, array: Array, affine: Affine, slope: float, inter: float) -> Volume:
        """The volume of the stored voxels `array`."""


class ScalarImage(Image):
    """An image of intensities, interpolated linearly; see `Image` for the arguments.

    Its values are float32. The stored dtype is kept in memory and in caches; the scaling of a NIfTI header is applied as they are read.
    Files that are its channels keep their dtype if they are stored and scaled alike, and are float32 in memory and in caches otherwise.
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
