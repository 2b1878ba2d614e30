"""A recipe carried out on a device: a worker reads the source voxels that the drawn map needs, the device does the rest.

The result is that of `Recipe.apply`: images to 1e-3 of their range, labels equal but for ties.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from patchflow.augment.base import Context, Parameters, Source
from patchflow.augment.chain import Chain
from patchflow.augment.reading import Clock
from patchflow.augment.recipe import Recipe, Sample
from patchflow.augment.work import Work
from patchflow.geometry.location import PatchLocation
from patchflow.geometry.maps import SpatialMap
from patchflow.kernels.pointwise import plain_tensor_map
from patchflow.kernels.resample import Box, plain_resample, touched_box

_CPU = torch.device("cpu")
_STILL = SpatialMap(())
_INDEXABLE = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64, "float16": np.float32}
"""Stored dtypes that PyTorch does not index or compute with on every device, and what takes their place."""


@dataclass(frozen=True)
class Region:
    """Stored voxels that one reading of an image touches.

    Attributes:
        place: what is read from them.
        box: where they lie in the volume; None where the reading touches nothing.
        voxels: (C, i, j, k) of the box, as stored.
    """

    place: PatchLocation
    box: Box | None
    voxels: torch.Tensor | None

    def to(self, device: torch.device | str, non_blocking: bool) -> "Region":
        """The same with its voxels on a device."""
        return self if self.voxels is None else replace(self, voxels=self.voxels.to(device, non_blocking=non_blocking))


@dataclass(frozen=True)
class Deferred:
    """A patch whose source voxels were read, and whose transforms are still to be carried out, on whichever device the voxels are.

    Attributes:
        recipe, parameters, context: what is to be done, and where.
        works: the same, for each image.
        regions: of each image, the voxels that it is made of.
        device: where they are.
    """

    recipe: Recipe
    parameters: Parameters
    context: Context
    works: Sequence[Work]
    regions: Mapping[str, Sequence[Region]]
    device: torch.device = _CPU

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Deferred":
        """The same with its voxels on a device."""
        moved = {name: [part.to(device, non_blocking) for part in parts] for name, parts in self.regions.items()}
        return replace(self, regions=moved, device=torch.device(device))

    @torch.no_grad()
    def make(self) -> Sample:
        """The patch: each image (C, i, j, k) on the device, float32 or in the dtype of the labels."""
        sample = {work.name: _chain(work, iter(self.regions[work.name]), self.device).make(work.context.location) for work in self.works}
        self.recipe.apply_callables(sample, self.context, self.parameters, Clock(None))
        return sample


def defer(
    recipe: Recipe,
    entry: Source,
    location: PatchLocation,
    parameters: Parameters,
    keys: Sequence[str] | None = None,
    pin_memory: bool = False,
) -> Deferred:
    """Read what `recipe.apply(entry, location, parameters, keys=keys)` would read, and leave the rest to `Deferred.make`.

    Args:
        recipe, entry, location, parameters, keys: as in `Recipe.apply`.
        pin_memory: put the voxels into page-locked memory.
    """
    works = list(recipe.works(entry, location, parameters, keys))
    regions = {work.name: list(_regions(work, entry, pin_memory)) for work in works}
    return Deferred(recipe, parameters, replace(works[0].context, image=None), works, regions)


def _regions(work: Work, entry: Source, pin_memory: bool) -> Iterator[Region]:
    for place in _chain(work, iter(()), _CPU).places(work.context.location):
        box = touched_box(work.map or _STILL, place, work.context.shape, work.how.interpolation, work.how.outside)
        if box is None:
            yield Region(place, None, None)
            continue
        stored = entry.region(work.name, box.start, box.stop)
        dtype = np.dtype(_INDEXABLE.get(stored.dtype.name, stored.dtype))
        voxels = torch.empty(stored.shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=pin_memory)
        voxels.numpy()[...] = stored
        yield Region(place, box, voxels)


def _chain(work: Work, regions: Iterator[Region], device: torch.device) -> Chain:
    """The chain of an image that reads from regions, in their order, instead of from the entry."""
    info, shape = work.context.info, work.context.shape

    def read(location: PatchLocation, _: torch.Tensor | None) -> torch.Tensor:
        region = next(regions)
        if region.box is None or region.voxels is None:
            dtype = torch.from_numpy(np.empty(0, work.dtype)).dtype
            return torch.full((info.channels, *location.size), work.how.fill, dtype=dtype, device=device)
        is_label = info.kind == "label"
        values = region.voxels if is_label else plain_tensor_map(region.voxels, info.map)
        how, source = work.how, work.map or _STILL
        made: torch.Tensor = plain_resample(
            values, region.box, shape, source, location, how.fill, how.outside, how.interpolation, labels=is_label
        )
        return made

    return Chain(work.links, work.context, read, Clock(None), on_cpu=False)


class DeferredBatch:
    """The deferred patches of a batch.

    Args:
        patches: one after the other.
        dtypes: of the images of a batch, by name; a label map may be wider there than in a subject.
    """

    def __init__(self, patches: Sequence[Deferred], dtypes: Mapping[str, torch.dtype]) -> None:
        self.patches, self.dtypes = list(patches), dict(dtypes)

    def __len__(self) -> int:
        return len(self.patches)

    def to(self, device: Any, non_blocking: bool = False) -> "DeferredBatch":
        """The same with all voxels on a device."""
        return DeferredBatch([patch.to(device, non_blocking) for patch in self.patches], self.dtypes)

    def make(self) -> Sample:
        """The images of the batch, (B, C, i, j, k) each, made on the device where the voxels are."""
        samples = [patch.make() for patch in self.patches]
        return {name: torch.stack([sample[name] for sample in samples]).to(dtype) for name, dtype in self.dtypes.items()}
