"""What windows are read from: an entry of a cache, or volumes in memory."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from patchflow.augment.base import Readable
from patchflow.errors import ArgumentError, UnknownNameError
from patchflow.geometry.affine import spacing
from patchflow.geometry.location import PatchLocation, whole
from patchflow.geometry.space import VoxelGrid
from patchflow.images.image import Image, ScalarImage
from patchflow.images.volume import Volume, as_array
from patchflow.kernels.pointwise import apply_map
from patchflow.preprocess.pipeline import ProcessedSubject
from patchflow.subjects import Subject
from patchflow.types import Array, Int3


@runtime_checkable
class PatchSource(Readable, Protocol):
    """Something that windows can be read from: an entry of a cache, or anything of your own with these five members.

    name, shape (I, J, K), affine, images (by name, each with its kind, "scalar" or "label", and its shape, (C, I, J, K)), and read.
    Predictions of one that has an attribute `native` too, a `VoxelGrid`, can be brought back to that by `grid="native"`.
    """


SourceLike = PatchSource | Subject | Array | torch.Tensor


class MemorySource:
    """Volumes in memory, read as an entry of a cache is.

    Args:
        name: the subject's name, for errors.
        volumes: named volumes on one voxel grid, at least one.
        native: the grid that they had before preprocessing; None where that is not known.
    """

    def __init__(self, name: str, volumes: Mapping[str, Volume], native: VoxelGrid | None = None) -> None:
        self.name, self.native = name, native
        self.images = dict(volumes)
        first = next(iter(self.images.values()))
        self.shape: Int3 = first.shape[1:]
        self.affine = first.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along I, J, K."""
        i, j, k = (float(size) for size in spacing(self.affine))
        return i, j, k

    def region(self, name: str, start: Int3, stop: Int3) -> Array:
        """Stored voxels of a box that lies in the volume: a view (C, i, j, k)."""
        box = tuple(slice(low, high) for low, high in zip(start, stop, strict=True))
        array: Array = find_image(self, name).array[(slice(None), *box)]
        return array

    def read(self, name: str, location: PatchLocation | None = None, *, out: Array | None = None, fill: float = 0) -> Array:
        """The patch of an image: (C, i, j, k), float32 for an intensity image, the map's own dtype for a label map.

        Args:
            name: the image.
            location: where; parts of it may hang over the border. None for the whole volume.
            out: filled and returned if given, of the dtype above and any strides; made otherwise.
            fill: the value of voxels outside the volume.

        Raises:
            UnknownNameError: if there is no image of that name.
        """
        volume = find_image(self, name)
        location = whole(self.shape) if location is None else location
        scalar = volume.kind == "scalar"
        if out is None:
            out = np.empty((volume.shape[0], *location.size), np.float32 if scalar else volume.array.dtype)
        box = location.overlap(self.shape)
        if box is None or not location.is_inside(self.shape):
            out[...] = fill
        if box is not None:
            source, target = volume.array[(slice(None), *box.volume)], out[(slice(None), *box.patch)]
            if scalar:
                apply_map(source, volume.map, target)
            else:
                target[...] = source
        return out


def as_source(source: object, keys: Sequence[str] | None = None) -> PatchSource:
    """The source itself if windows can be read from it, or its volumes in memory: of a subject those of `keys`, or all.

    Raises:
        ArgumentError: if it is no entry, subject, or array (C, I, J, K).
    """
    if isinstance(source, Subject):
        source.check()
        names = list(source.images) if keys is None else keys
        native = source.native if isinstance(source, ProcessedSubject) else VoxelGrid(source.shape, source.affine)
        return MemorySource(source.name, {name: source[name].load() for name in names}, native)
    if isinstance(source, (np.ndarray, torch.Tensor)):
        array = as_array(source)
        if array.ndim != 4 or array.size == 0:
            raise ArgumentError(f"an array to take windows from must be (C, I, J, K) and hold voxels, not of shape {array.shape}")
        return MemorySource("array", {"image": Volume(array, np.eye(4), "scalar")})
    if isinstance(source, PatchSource):
        return source
    raise ArgumentError(
        f"windows are read from an entry of a cache, a Subject or an array (C, I, J, K), not from {type(source).__name__} {_mend(source)}"
    )


def _mend(source: object) -> str:
    """What was given instead of one subject, and what to write."""
    if isinstance(source, Image):
        return f"{source.describe()}: write pf.Subject(name, image=pf.ScalarImage(...)), with the image in it"
    if isinstance(source, (str, Path)):
        return f"{str(source)!r}: write pf.Subject(name, image=pf.ScalarImage({str(source)!r})), or for the folder of a cache pf.open_cache"
    if isinstance(source, Iterable) and not isinstance(source, Mapping):  # a cache, or a list
        return "of several subjects: give one of them, or write pf.predict_subjects(model, subjects, folder, ...) for all"
    return f"{source!r:.80}"


def check_images(source: object, names: Sequence[str]) -> None:
    """Raise `UnknownNameError` if a model is to be given images that a source lacks; it says how to name those that there are."""
    if not isinstance(source, (Subject, PatchSource)) or all(name in source.images for name in names):
        return  # what is no source is refused when it is read
    unknown = next(name for name in names if name not in source.images)
    scalar = tuple(name for name, image in source.images.items() if image.kind == "scalar")
    raise UnknownNameError(
        f"subject {source.name!r} has no image {unknown!r}: it has {', '.join(map(repr, source.images))}; "
        f"name those that the model takes, as in images={scalar or tuple(source.images)}"
    )


def find_image(source: Any, name: str) -> Any:
    """What a source knows of one of its images; raises `UnknownNameError`, naming the subject and its images, if there is none."""
    if name not in source.images:
        known = ", ".join(f'"{key}"' for key in source.images)
        raise UnknownNameError(f'subject "{source.name}" has no image "{name}", it has {known}')
    return source.images[name]


GridLike = VoxelGrid | Image | Subject | PatchSource | str | Path
"""Something that has a voxel grid: a `VoxelGrid`, an image or its file, a subject, an entry."""


def as_voxel_grid(like: object) -> VoxelGrid:
    """The voxel grid of an image, its file, a subject or an entry.

    Raises:
        ArgumentError: for something that has none.
        ImageFileError: for a file that cannot be read.
    """
    if isinstance(like, VoxelGrid):
        like.check("grid")
        return like
    if isinstance(like, (str, Path)):
        like = ScalarImage(like)
    if isinstance(like, Subject):
        like.check()
        like = next(iter(like.images.values()))
    if isinstance(like, Image):
        return VoxelGrid(like.shape[1:], like.affine)
    if isinstance(like, PatchSource):
        return VoxelGrid(like.shape, like.affine)
    raise ArgumentError(f"grid must be an image, its file, a subject, an entry or a VoxelGrid, not {like!r:.80}")
