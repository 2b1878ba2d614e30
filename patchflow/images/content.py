"""What every format gives: what a header says of an image, and all of a file."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from patchflow.errors import ImageFileError
from patchflow.types import Affine, Array

Order = Literal["planes", "interleaved", "array"]
"""How voxels follow one another in a file: I fastest and channels slowest, channels fastest and then I, or as in arrays, K fastest."""


class Source(NamedTuple):
    """What an image is read from.

    Attributes:
        path: a file, or the folder of a DICOM series.
        inner: the dataset in an HDF5 file; empty for the one that is there.
        series: the SeriesInstanceUID in a folder of DICOM files, or the end of it; empty for the one that is there.
    """

    path: Path
    inner: str = ""
    series: str = ""

    def __str__(self) -> str:
        return f"{self.path}{self.inner and ':' + self.inner}{self.series and f' (series {self.series})'}"


@dataclass(frozen=True)
class Header:
    """What a file says of its voxels.

    Attributes:
        shape: (C, I, J, K).
        dtype: of the stored voxels, in the file's byte order.
        affine: 4x4 float64, voxel index to RAS+ millimetres; None where the file places its voxels nowhere.
        slope: value = slope * stored + inter; 1 when the header asks for no scaling.
        inter: 0 when the header asks for no scaling.
        offset: the first voxel's byte in the (decompressed) stream that holds them.
        order: of the voxels in the file.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    affine: Affine | None
    slope: float = 1.0
    inter: float = 0.0
    offset: int = 0
    order: Order = "planes"

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels."""
        return math.prod(self.shape) * self.dtype.itemsize

    def check_fits(self, most: int, path: Path) -> None:
        """Raise `ImageFileError` if the voxels take more than the `most` bytes that the file can hold."""
        if self.offset + self.nbytes > most:
            raise ImageFileError(
                f"{path} is truncated, or its header is wrong: shape {self.shape} of {self.dtype.name} takes "
                f"{self.offset + self.nbytes} bytes, and the file holds at most {most}; fetch or write it again"
            )


class Content(NamedTuple):
    """All of a source: stored voxels (C, I, J, K) in the machine's byte order, what is said of them, and the sha256 of its bytes."""

    array: Array
    affine: Affine | None
    slope: float
    inter: float
    digest: str


def ras_from_lps(affine: Affine) -> Affine:
    """A 4x4 affine to RAS+ from one to LPS+ (of ITK and DICOM): the first two axes of space are mirrored."""
    turned = affine.copy()
    turned[:2] *= -1
    return turned + 0.0  # no negative zeros


def widened(array: Array) -> Array:
    """Voxels of types that kernels lack as the next that they have, exactly: bool as uint8, float16 as float32."""
    return array.astype(widened_dtype(array.dtype), copy=False)


def widened_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What `widened` makes of a dtype, in the machine's byte order."""
    wide: dict[str, np.dtype[Any]] = {"b1": np.dtype(np.uint8), "f2": np.dtype(np.float32)}
    return wide.get(dtype.str[1:], dtype.newbyteorder("="))
