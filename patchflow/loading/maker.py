"""Make one patch from a request: the pure function behind every way of loading."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from patchflow import seeding
from patchflow.augment.deferred import Deferred, defer
from patchflow.augment.plain import check_plain
from patchflow.augment.recipe import Recipe
from patchflow.cache.entry import Entry
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
    deferred: Deferred | None = None
    """What is left to be done on a device, in place of the images."""


@dataclass(frozen=True)
class PatchMaker:
    """What a patch depends on besides its request. The same request always gives the same patch, in whichever thread or process."""

    cache: Cache
    sampler: Sampler
    recipe: Recipe
    seed: int
    keys: tuple[str, ...] | None
    history: bool = False
    defers: bool = False
    pin_memory: bool = False

    def make(self, request: Request, out: Mapping[str, torch.Tensor] | None = None) -> Made:
        """Make a patch, into the tensors `out` if they are given, else into new ones of the same dtypes as a batch's."""
        entry, location, parameters, stages = self._draw(request)
        if out is None:
            out = {field.name: torch.empty(field.shape, dtype=field.dtype) for field in self._layout.fields}
        images = self.recipe.apply(entry, location, parameters, out=out, keys=self.keys, stages=stages)
        return Made(images, entry.name, location, parameters, stages)

    def defer(self, request: Request) -> Made:
        """Draw a patch and read what it is made of; the rest is left to a device."""
        entry, location, parameters, stages = self._draw(request)
        began = time.perf_counter_ns()
        deferred = defer(self.recipe, entry, location, parameters, self.keys, self.pin_memory)
        stages["read"] = time.perf_counter_ns() - began
        return Made({}, entry.name, location, parameters, stages, deferred)

    def _draw(self, request: Request) -> tuple[Entry, PatchLocation, dict[str, Any], dict[str, int]]:
        """The entry, the location, the parameters, and the nanoseconds that drawing them took."""
        began = time.perf_counter_ns()
        entry = self.cache[request.entry]
        rng = seeding.patch_generator(self.seed, request.epoch, request.index)
        location = self.sampler.draw(entry, rng)
        parameters = self.recipe.draw(rng, entry, location)
        if self.history:  # where they are to be saved
            check_plain(parameters)
        return entry, location, parameters, {"draw": time.perf_counter_ns() - began}

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        """Of the images of a batch."""
        return {field.name: field.dtype for field in self._layout.fields}

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
