"""Make one patch from a request: the pure function behind every way of loading."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from patchflow import seeding
from patchflow.augment.recipe import Recipe
from patchflow.cache.read import Cache
from patchflow.geometry.location import PatchLocation
from patchflow.loading.batch import BatchLayout, batch_layout
from patchflow.loading.plan import Request
from patchflow.sampling.base import Sampler


@dataclass(frozen=True)
class Made:
    """A finished patch: its images, (C, i, j, k) each, where it lies, and the parameters that were drawn for it."""

    images: dict[str, torch.Tensor]
    subject: str
    location: PatchLocation
    parameters: dict[str, Any]
    nanoseconds: dict[str, int]


@dataclass(frozen=True)
class PatchMaker:
    """What a patch depends on besides its request. The same request always gives the same patch, in whichever thread or process."""

    cache: Cache
    sampler: Sampler
    recipe: Recipe
    seed: int
    keys: tuple[str, ...] | None

    def make(self, request: Request, out: Mapping[str, torch.Tensor] | None = None) -> Made:
        """Make a patch, into the tensors `out` if they are given, else into new ones of the same dtypes as a batch's."""
        stages: dict[str, int] = {}
        began = time.perf_counter_ns()
        entry = self.cache[request.entry]
        rng = seeding.patch_generator(self.seed, request.epoch, request.index)
        if out is None:
            out = {field.name: torch.empty(field.shape, dtype=field.dtype) for field in self._layout.fields}
        location = self.sampler.draw(entry, rng)
        parameters = self.recipe.draw(rng, entry, location)
        stages["draw"] = time.perf_counter_ns() - began
        images = self.recipe.apply(entry, location, parameters, out=out, keys=self.keys, stages=stages)
        return Made(images, entry.name, location, parameters, stages)

    @cached_property
    def _layout(self) -> BatchLayout:
        """Of a patch by itself."""
        return batch_layout(self.cache, self.sampler.patch_size, 1, self.keys)

    def preload(self) -> None:
        """Read a voxel of each image, so that workers forked from here share the kernels for that instead of loading them one by one."""
        entry = self.cache[0]
        for name in entry.images if self.keys is None else self.keys:
            entry.read(name, PatchLocation((0, 0, 0), (1, 1, 1)))

    def describe(self, request: Request) -> str:
        """The request in words, for an error."""
        return f"patch {request.index} of epoch {request.epoch} (subject {self.cache.names[request.entry]!r})"
