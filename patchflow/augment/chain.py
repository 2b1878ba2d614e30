"""The intensity transforms of one image, carried out at any place: a chain that asks for as much around a patch as it looks at."""

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from patchflow.augment.base import STILL, Context, IntensityTransform, Parameters
from patchflow.augment.foreign import one_thread, put_back, where
from patchflow.augment.reading import Clock
from patchflow.geometry.location import PatchLocation
from patchflow.types import Int3

Drawn = Parameters | Sequence[Parameters | None]
"""Parameters of an image, or of each of its channels."""
Link = tuple[IntensityTransform, Drawn]
Read = Callable[[PatchLocation, torch.Tensor | None], torch.Tensor]
"""Reads the image through the spatial map at a place, into a tensor or a new one."""


class Chain:
    """What an image looks like after some of its transforms, at any place.

    A transform that looks at neighbours is given a larger patch, for which the transforms before it are carried out as well, and so on down
    to reading. So a patch equals the crop of the transformed volume.

    Args:
        links: the transforms that were drawn for the image, in order, with their parameters.
        context: of the image.
        read: reads the image as it is before the first of them.
        clock: told of each transform.
        on_cpu: whether patches are on the CPU, where memory for larger ones is kept from patch to patch.
    """

    def __init__(self, links: Sequence[Link], context: Context, read: Read, clock: Clock, on_cpu: bool = True) -> None:
        self._links, self._context, self._read, self._clock, self._on_cpu = links, context, read, clock, on_cpu

    def make(self, location: PatchLocation, out: torch.Tensor | None = None) -> torch.Tensor:
        """The image after all transforms at `location`, in `out` if it is given: float32 (C, i, j, k)."""
        return self._after(len(self._links), location, location, out)

    def places(self, location: PatchLocation) -> list[PatchLocation]:
        """Where `make` will read, in its order."""
        return self._places(len(self._links), location, location)

    def _places(self, number: int, location: PatchLocation, patch: PatchLocation) -> list[PatchLocation]:
        if number == 0:
            return [location]
        link, at = self._links[number - 1], self._at(location, patch)
        grown = replace(at, location=location.grown(_reach(link, at)))
        places = self._places(number - 1, grown.location, patch)
        for window in _distinct(_windows(link, grown)):
            places += self._places(number - 1, window, window)
        return places

    def _after(self, number: int, location: PatchLocation, patch: PatchLocation, out: torch.Tensor | None) -> torch.Tensor:
        """The image after the first `number` transforms."""
        if number == 0:
            return self._read(location, out)
        link, at = self._links[number - 1], self._at(location, patch)
        grown = location.grown(_reach(link, at))
        larger = grown != location
        kept = _scratch(number, (self._context.info.channels, *grown.size)) if larger and self._on_cpu else None
        given = self._after(number - 1, grown, patch, kept if larger else out)
        at = replace(at, location=grown)
        asked = _windows(link, at)
        read = {window: self._after(number - 1, window, window, None) for window in _distinct(asked)}
        result = _changed(link, given, at, [[read[window] for window in windows] for windows in asked])
        self._clock.lap(link[0].name)
        if larger:
            middle = result[(slice(None), *location.within(grown))]
            return middle.clone() if out is None else out.copy_(middle)
        return result if out is None or result is out else out.copy_(result)

    def _at(self, location: PatchLocation, patch: PatchLocation) -> Context:
        return replace(self._context, location=location, patch=patch)


def _each(link: Link, context: Context) -> list[tuple[slice, Parameters]]:
    """The channels that a transform changes, and its parameters for them."""
    values = link[1]
    if isinstance(values, dict):
        return [(slice(None), values)]
    return [(slice(channel, channel + 1), drawn) for channel, drawn in enumerate(values) if drawn is not None]


def _reach(link: Link, context: Context) -> Int3:
    """As far as the transform looks around the patch, in any channel."""
    if type(link[0]).reach is IntensityTransform.reach:
        return STILL
    reaches = [link[0].reach(drawn, context) for _, drawn in _each(link, context)]
    i, j, k = (max((reach[axis] for reach in reaches), default=0) for axis in range(3))
    return i, j, k


def _windows(link: Link, context: Context) -> list[Sequence[PatchLocation]]:
    """What the transform asks for, for each of the parts that it changes."""
    return [link[0].windows(drawn, context) for _, drawn in _each(link, context)]


def _distinct(asked: Sequence[Sequence[PatchLocation]]) -> list[PatchLocation]:
    """The windows, each once: those of channels mostly are the same."""
    return list(dict.fromkeys(window for windows in asked for window in windows))


def _changed(link: Link, patch: torch.Tensor, context: Context, windows: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
    """What the transform makes of a patch, possibly in place; what a transform of the user's own returns is checked."""
    step = link[0]
    trusted = type(step).__dict__.get("trusted", False)  # a subclass is not trusted for its parent's sake
    parts = _each(link, context)
    for (channels, drawn), given_windows in zip(parts, windows, strict=True):
        given = patch[channels]
        mine = tuple(window[channels] for window in given_windows)
        try:
            with nullcontext() if trusted else one_thread():
                result = step.apply(given, drawn, replace(context, windows=mine))
        except Exception as error:
            error.add_note(f"raised in {where(step.name, context)}, image {context.image!r}")
            raise
        if trusted and len(parts) == 1 and given.shape == patch.shape:
            return result
        if trusted and result is not given:
            given.copy_(result)
        elif not trusted:
            put_back(given, result, f"{where(step.name, context)}, image {context.image!r}")
    return patch


_store = threading.local()


def _scratch(number: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Memory for a patch and what lies around it, kept for the next one of this thread: fresh memory costs as much as a pass over it.

    One for each place in the chain, as those further down are used while this one is in use.
    """
    buffers: dict[int, Any] = _store.__dict__.setdefault("buffers", {})
    size = torch.Size(shape).numel()
    if number not in buffers or buffers[number].numel() < size:
        buffers[number] = torch.empty(size, dtype=torch.float32)
    kept: torch.Tensor = buffers[number][:size].view(shape)
    return kept
