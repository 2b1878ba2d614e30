"""An image's voxels in one pass, looked at while they come.

A check needs no volume: the voxels of a NIfTI file go by, a few slices at a time and in the order of the file, through a buffer that fits
the processor's cache, and are looked at while they are there. Several threads go through as many images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from patchflow.errors import ImageError, ImageFileError
from patchflow.images import nifti
from patchflow.images.content import Header
from patchflow.images.image import Image
from patchflow.images.labels import as_labels
from patchflow.images.stream import open_stream
from patchflow.images.volume import Kind
from patchflow.images.voxels import check_end, skip
from patchflow.kernels.pointwise import IntensityMap
from patchflow.types import Affine, Array

_PIECE = 1 << 21
"""Bytes that are looked at together, or one slice."""

NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True, eq=False)
class Stored:
    """What is known of an image that is being read.

    Attributes:
        kind: "scalar" or "label".
        shape: (C, I, J, K).
        dtype: of the voxels in the source, in the machine's byte order.
        affine: 4x4 float64, voxel index (I, J, K) to RAS+ millimetres.
        map: from stored voxels to values.
    """

    kind: Kind
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    affine: Affine
    map: IntensityMap

    @property
    def voxels(self) -> int:
        """How many values there are, of all channels."""
        c, i, j, k = self.shape
        return c * i * j * k


class Looker(Protocol):
    """Looks at voxels as they come: slices along K in turn, I fastest, channels one after another, whatever the file's own order."""

    def begin(self, stored: Stored) -> None:
        """What will come."""

    def add(self, channel: int, first: int, slices: Array) -> None:
        """Voxels (k, J, I) of a channel from slice `first` on, contiguous; they may be overwritten afterwards.

        Of a scalar image as they are stored, of a label map as `images.labels.as_labels` makes them.
        """


def read(image: Image, looker: Looker) -> Stored:
    """Read an image to its very end, once.

    Raises:
        ImageFileError: for a file that is missing, truncated or damaged.
        ImageError: for labels that are not integers.
    """
    if image.path is not None and image.path.name.lower().endswith(NIFTI):
        return _read_nifti(image, image.path, looker)
    volume = image.load()
    stored = Stored(volume.kind, volume.shape, image.dtype, volume.affine, volume.map)
    looker.begin(stored)
    depth = _depth(volume.shape, volume.array.dtype)
    for channel, array in enumerate(volume.array):
        for first in range(0, array.shape[2], depth):
            looker.add(channel, first, np.ascontiguousarray(array[:, :, first : first + depth].T))
    return stored


def _depth(shape: tuple[int, int, int, int], dtype: np.dtype[Any]) -> int:
    """How many slices of (C, I, J, K) are looked at together."""
    return min(max(_PIECE // (shape[1] * shape[2] * dtype.itemsize), 1), shape[3])


def _read_nifti(image: Image, path: Path, looker: Looker) -> Stored:
    header = nifti.read_header(path)
    assert header.affine is not None  # NIfTI files place their voxels
    native = header.dtype.newbyteorder("=")
    scaling = IntensityMap() if image.kind == "label" else IntensityMap(header.slope, header.inter)
    stored = Stored(image.kind, header.shape, native, header.affine, scaling)
    looker.begin(stored)
    try:
        _pass(path, header, image.kind, looker)
    except ImageFileError:
        raise
    except ImageError:  # labels that are none
        image.load()  # says the same, with the voxel's place in the volume
        raise
    return stored


def _pass(path: Path, header: Header, kind: Kind, looker: Looker) -> None:
    """Let all voxels go by."""
    channels, ni, nj, nk = header.shape
    depth = _depth(header.shape, header.dtype)
    buffer = np.empty((depth, nj, ni), header.dtype.newbyteorder("="))
    with open_stream(path) as stream:
        skip(stream, header.offset)
        for channel in range(channels):
            for first in range(0, nk, depth):
                slices = buffer[: min(depth, nk - first)]
                stream.into(slices.reshape(-1).view(np.uint8).data)
                if not header.dtype.isnative:
                    slices.byteswap(inplace=True)
                looker.add(channel, first, slices if kind == "scalar" else as_labels(slices, header.slope, header.inter, str(path)))
        check_end(stream, header, path)
