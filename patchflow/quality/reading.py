"""An image's voxels in one pass, looked at while they come.

A check needs no volume: the voxels of a NIfTI file go by, a few slices at a time and in the order of the file, through buffers that fit
the processor's cache. A second thread looks at them while the first decompresses on. Label maps alone are kept whole, as their parts are
found at the end.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from patchflow.errors import ImageError
from patchflow.images import nifti
from patchflow.images.content import Header
from patchflow.images.image import Image
from patchflow.images.labels import as_labels
from patchflow.images.stream import open_stream
from patchflow.images.volume import Kind
from patchflow.images.voxels import allocate, check_end, skip
from patchflow.kernels.pointwise import IntensityMap
from patchflow.types import Affine, Array

_PIECE = 1 << 21
"""Bytes that are looked at together, or one slice; of 8-bit voxels a quarter, as their histogram is cheaply begun."""

_BUFFERS = 3
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
        labels: of a label map that has been read: integers (C, I, J, K), or (C, K, J, I) where `turned`, C-contiguous.
        turned: whether I is fastest.
    """

    kind: Kind
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    affine: Affine
    map: IntensityMap
    labels: Array | None = None
    turned: bool = False

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
        """Stored voxels (k, J, I) of a channel from slice `first` on, contiguous; they may be overwritten afterwards."""


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
    return replace(stored, labels=volume.array if volume.kind == "label" else None)


def _depth(shape: tuple[int, int, int, int], dtype: np.dtype[Any]) -> int:
    """How many slices of (C, I, J, K) are looked at together."""
    piece = _PIECE // 4 if dtype.itemsize == 1 else _PIECE
    return min(max(piece // (shape[1] * shape[2] * dtype.itemsize), 1), shape[3])


def _read_nifti(image: Image, path: Path, looker: Looker) -> Stored:
    header = nifti.read_header(path)
    assert header.affine is not None  # NIfTI files place their voxels
    native = header.dtype.newbyteorder("=")
    stored = Stored(image.kind, header.shape, native, header.affine, IntensityMap(header.slope, header.inter), turned=True)
    looker.begin(stored)
    kept = _pass(path, header, looker, keep=image.kind == "label")
    if kept is None:
        return stored
    try:
        labels = as_labels(kept, header.slope, header.inter, str(path))
    except ImageError:
        image.load()  # says the same, with the voxel's place in the volume
        raise
    return replace(stored, labels=labels, map=IntensityMap())


def _pass(path: Path, header: Header, looker: Looker, keep: bool) -> Array | None:
    """Let all voxels go by; they are given back, (C, K, J, I), where they are to be kept."""
    channels, ni, nj, nk = header.shape
    native, depth = header.dtype.newbyteorder("="), _depth(header.shape, header.dtype)
    whole = allocate(header, path).reshape(channels, nk, nj, ni) if keep else None
    buffers = [] if keep else [np.empty((depth, nj, ni), native) for _ in range(_BUFFERS)]
    looks: list[Future[None]] = []

    def look(channel: int, first: int, slices: Array) -> None:
        looker.add(channel, first, slices if header.dtype.isnative else slices.byteswap(inplace=True))

    with open_stream(path) as stream, ThreadPoolExecutor(1, thread_name_prefix="patchflow-look") as thread:
        skip(stream, header.offset)
        for channel in range(channels):
            for first in range(0, nk, depth):
                count = min(depth, nk - first)
                if whole is None:
                    if len(looks) >= _BUFFERS:
                        looks[-_BUFFERS].result()  # the buffer is free again
                    slices = buffers[len(looks) % _BUFFERS][:count]
                else:
                    slices = whole[channel, first : first + count]
                stream.into(slices.reshape(-1).view(np.uint8).data)
                looks.append(thread.submit(look, channel, first, slices))
        check_end(stream, header, path)
        for done in looks:
            done.result()
    return whole
