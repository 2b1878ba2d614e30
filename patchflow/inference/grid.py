"""The windows of a volume, read one by one: what a model is given at inference."""

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from patchflow.augment.reading import read_padded
from patchflow.errors import ArgumentError, UnknownNameError
from patchflow.geometry.grid import tile
from patchflow.geometry.location import Outside, PatchLocation
from patchflow.inference.masks import Mask, touched_windows
from patchflow.inference.sources import SourceLike, as_source, find_image
from patchflow.types import Array, Int3, SizeLike


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
        outside: what lies outside the volume: "constant" (the fill), "border" (the nearest voxel inside) or "reflect" (the mirror image:
            d c b | a b c d | c b a).
        mask: only windows that touch it are given: an array or tensor (I, J, K) or (1, I, J, K) in which voxels that are not 0 count, the
            name of an image of the source, or a `PatchLocation`, as a box. None for all windows.
        multiple: windows start at multiples of this many voxels, an int or three, as a model needs that predicts at a lower resolution. The
            last window may then hang over the far border by less than that.

    Attributes:
        tiling: the windows' arithmetic, with those that the mask leaves out.
        wanted: bool (windows along I, J, K): which of them are given.
        locations: int64 (N, 6), start then stop, in order.

    Raises:
        ArgumentError: for sizes that are no whole voxels, an overlap as large as the patch, a source of another kind, or a mask of another
            shape or that no window touches.
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
        outside: Outside = "constant",
        mask: Mask | None = None,
        multiple: SizeLike = 1,
    ) -> None:
        if outside not in get_args(Outside):
            raise ArgumentError(f'outside must be "constant", "border" or "reflect", not {outside!r}')
        if keys is not None and (isinstance(keys, str) or not keys):
            raise ArgumentError(f'keys must be a list of image names, such as ("image",), not {keys!r}')
        wanted = keys if keys is None or not isinstance(mask, str) else [*keys, mask]
        self.source = as_source(source, wanted)
        self.outside = outside
        self.tiling = tile(self.source.shape, patch_size, patch_overlap, multiple)
        self.wanted = touched_windows(mask, self.source, self.tiling)
        self.locations: npt.NDArray[np.int64] = self.tiling.locations()[self.wanted.reshape(-1)]
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
        return len(self.locations)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        location = self.location(index)
        sample = {name: torch.from_numpy(self.read(name, location)) for name in self.keys}
        return sample | {"location": torch.from_numpy(location.as_array())}

    def location(self, index: int) -> PatchLocation:
        """Where window `index` lies."""
        return PatchLocation.from_array(self.locations[index])

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (self[index] for index in range(len(self)))

    def read(self, name: str, location: PatchLocation, out: Array | None = None) -> Array:
        """One image of one window, (C, i, j, k), with what lies outside the volume; into `out`, of the image's dtype, if given."""
        if self.outside != "constant" and not location.is_inside(self.source.shape):
            if out is None:
                voxel = self.source.read(name, PatchLocation((0, 0, 0), (1, 1, 1)))
                out = np.empty((len(voxel), *location.size), voxel.dtype)
            read_padded(self.source, name, location, out, self._fill[name], self.outside)
            return out
        return self.source.read(name, location, out=out, fill=self._fill[name])

    def _fills(self, fill: float | Mapping[str, float]) -> dict[str, float]:
        infos = {name: find_image(self.source, name) for name in self.keys}
        if not isinstance(fill, Mapping):
            return {name: fill if info.kind == "scalar" else 0 for name, info in infos.items()}
        for name in fill:
            if name not in infos:
                raise UnknownNameError(f'fill names "{name}", which is none of the images read: {", ".join(infos)}')
        return {name: fill.get(name, 0) for name in infos}
