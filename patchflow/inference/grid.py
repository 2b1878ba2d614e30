"""The windows of a volume, read one by one: what a model is given at inference."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from patchflow.errors import ArgumentError, UnknownNameError
from patchflow.geometry.grid import tile
from patchflow.geometry.location import PatchLocation
from patchflow.images.volume import Volume, as_array
from patchflow.kernels.pointwise import apply_map
from patchflow.subjects import Subject
from patchflow.types import Affine, Array, Int3, SizeLike


class ImageInfo(Protocol):
    """What is known of an image without its voxels."""

    @property
    def kind(self) -> Literal["scalar", "label"]: ...
    @property
    def shape(self) -> tuple[int, int, int, int]: ...


@runtime_checkable
class PatchSource(Protocol):
    """Something that windows can be read from: an entry of a cache, or anything of your own with these five members."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Int3: ...
    @property
    def affine(self) -> Affine: ...
    @property
    def images(self) -> Mapping[str, ImageInfo]: ...
    def read(self, name: str, location: PatchLocation, *, out: Array | None = None, fill: float = 0) -> Array: ...


SourceLike = PatchSource | Subject | Array | torch.Tensor


class MemorySource:
    """Volumes in memory, read as an entry of a cache is.

    Args:
        name: the subject's name, for errors.
        volumes: named volumes on one voxel grid, at least one.
    """

    def __init__(self, name: str, volumes: Mapping[str, Volume]) -> None:
        self.name = name
        self.images = dict(volumes)
        first = next(iter(self.images.values()))
        self.shape: Int3 = first.shape[1:]
        self.affine = first.affine

    def read(self, name: str, location: PatchLocation, *, out: Array | None = None, fill: float = 0) -> Array:
        """The patch of an image: (C, i, j, k), float32 for an intensity image, the map's own dtype for a label map.

        Args:
            name: the image.
            location: where; parts of it may hang over the border.
            out: filled and returned if given, of the dtype above and any strides; made otherwise.
            fill: the value of voxels outside the volume.

        Raises:
            UnknownNameError: if there is no image of that name.
        """
        volume = find_image(self, name)
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


class GridSampler(Dataset[dict[str, torch.Tensor]]):
    """All windows of a subject, in order, as a map-style dataset.

    `grid[i]` is a dict of tensors: every image (C, i, j, k), float32 for intensity images and the label map's own integers for label maps,
    and "location", int64 (6,), start then stop. A `torch.utils.data.DataLoader` over the grid collates them; process workers may be used
    (an array or a subject in memory is then copied to each worker under "spawn").

    Windows all have the same size. They are numbered with I slowest; neighbours share at least `patch_overlap` voxels; the slack of the
    last window is spread evenly over all of them, as in nnU-Net. Where the patch is larger than the volume, the volume is centred in it and
    the overhang is filled.

    Args:
        source: an entry of a cache; a `Subject` (its images are loaded, as they are in their files); or an array or tensor (C, I, J, K),
            which becomes an intensity image named "image" with the identity as affine.
        patch_size: voxels of a window, an int or three ints (I, J, K).
        patch_overlap: voxels that neighbours share at least, an int or three ints, smaller than the patch.
        keys: the images to read; None for all of them.
        fill: the value of voxels outside the volume: a number for the intensity images (label maps get 0), or a dict by image name (0 for
            images that it does not name).

    Attributes:
        tiling: the windows' arithmetic.
        locations: int64 (N, 6), start then stop, in order.

    Raises:
        ArgumentError: for sizes that are no whole voxels, an overlap as large as the patch, or a source of another kind.
        UnknownNameError: if `keys` name an image that the source lacks, or `fill` one that is not read.
    """

    def __init__(
        self,
        source: SourceLike,
        patch_size: SizeLike,
        patch_overlap: SizeLike = 0,
        *,
        keys: Sequence[str] | None = None,
        fill: float | Mapping[str, float] = 0,
    ) -> None:
        if keys is not None and (isinstance(keys, str) or not keys):
            raise ArgumentError(f'keys must be a list of image names, such as ("image",), not {keys!r}')
        self.source = as_source(source, keys)
        self.tiling = tile(self.source.shape, patch_size, patch_overlap)
        self.locations: npt.NDArray[np.int64] = self.tiling.locations()
        self.keys = tuple(self.source.images if keys is None else keys)
        if "location" in self.keys:
            raise ArgumentError(
                f'subject "{self.name}" has an image named "location", the name of the window\'s place: leave it out by keys='
            )
        self._fill = self._fills(fill)

    @property
    def name(self) -> str:
        """The subject's name."""
        return self.source.name

    @property
    def patch_size(self) -> Int3:
        """Voxels of a window (I, J, K)."""
        return self.tiling.size

    @property
    def patch_overlap(self) -> Int3:
        """Voxels that neighbours share at least (I, J, K)."""
        return self.tiling.overlap

    def __len__(self) -> int:
        return len(self.tiling)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        location = self.tiling.location(index % len(self))
        sample = {name: torch.from_numpy(self.read(name, location)) for name in self.keys}
        return sample | {"location": torch.from_numpy(location.as_array())}

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (self[index] for index in range(len(self)))

    def read(self, name: str, location: PatchLocation, out: Array | None = None) -> Array:
        """One image of one window, (C, i, j, k), with the grid's fill outside the volume; into `out`, of the image's dtype, if given."""
        return self.source.read(name, location, out=out, fill=self._fill[name])

    def _fills(self, fill: float | Mapping[str, float]) -> dict[str, float]:
        infos = {name: find_image(self.source, name) for name in self.keys}
        if not isinstance(fill, Mapping):
            return {name: fill if info.kind == "scalar" else 0 for name, info in infos.items()}
        for name in fill:
            if name not in infos:
                raise UnknownNameError(f'fill names "{name}", which is none of the images read: {", ".join(infos)}')
        return {name: fill.get(name, 0) for name in infos}


def as_source(source: object, keys: Sequence[str] | None = None) -> PatchSource:
    """The source itself if windows can be read from it, or its volumes in memory: of a subject those of `keys`, or all.

    Raises:
        ArgumentError: if it is no entry, subject, or array (C, I, J, K).
    """
    if isinstance(source, Subject):
        source.check()
        names = list(source.images) if keys is None else keys
        return MemorySource(source.name, {name: source[name].load() for name in names})
    if isinstance(source, (np.ndarray, torch.Tensor)):
        array = as_array(source)
        if array.ndim != 4 or array.size == 0:
            raise ArgumentError(f"an array to take windows from must be (C, I, J, K) and hold voxels, not of shape {array.shape}")
        return MemorySource("array", {"image": Volume(array, np.eye(4), "scalar")})
    if isinstance(source, PatchSource):
        return source
    kind = type(source).__name__
    raise ArgumentError(f"windows are read from an entry of a cache, a Subject or an array (C, I, J, K), not from {kind} {source!r:.80}")


def find_image(source: Any, name: str) -> Any:
    """What a source knows of one of its images; raises `UnknownNameError`, naming the subject and its images, if there is none."""
    if name not in source.images:
        known = ", ".join(f'"{key}"' for key in source.images)
        raise UnknownNameError(f'subject "{source.name}" has no image "{name}", it has {known}')
    return source.images[name]
