"""The patches that a sheet shows: as a queue makes them, and as they are without augmentation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from patchflow.augment.recipe import Recipe
from patchflow.cache.entry import Entry
from patchflow.cache.read import Cache
from patchflow.errors import ArgumentError, UnknownNameError
from patchflow.geometry.location import PatchLocation
from patchflow.loading.queue import Queue
from patchflow.sampling.base import Sampler
from patchflow.sampling.label import LabelSampler
from patchflow.sampling.uniform import UniformSampler
from patchflow.types import SizeLike, count

_PLANES = 24
"""Planes across I of which the grey window of a volume is taken, spread over it: percentiles need no more, and volumes are large."""
PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Shown:
    """One patch of a sheet.

    Attributes:
        entry: the subject.
        location: where the patch lies.
        plain: the images of the patch without augmentation, (C, i, j, k) each, by name.
        augmented: the same with it; None where there is nothing to augment with.
        parameters: what was drawn, as `Recipe.draw` returns it.
        label: what stands above the pictures, such as the patch's number.
    """

    entry: Entry
    location: PatchLocation
    plain: Mapping[str, torch.Tensor]
    augmented: Mapping[str, torch.Tensor] | None
    parameters: Mapping[str, Any] | None
    label: str = ""


def chosen_names(images: Mapping[str, Any], image: str | None = None, label: str | None = None) -> tuple[str, str | None]:
    """The `ScalarImage` and the `LabelMap` to show: those named, or the first of each kind; no label map where there is none.

    Args:
        images: name to record.
        image, label: what the user asked for.

    Raises:
        UnknownNameError: for a name that is no image of its kind, or where there is no `ScalarImage` at all.
    """
    chosen = []
    for name, kind, noun in ((image, "scalar", "ScalarImage"), (label, "label", "LabelMap")):
        known = [key for key, record in images.items() if record.kind == kind]
        if name not in (None, *known):
            raise UnknownNameError(f"there is no {noun} {name!r} to show; there are {', '.join(map(repr, known)) or 'none'}")
        chosen.append(name or (known[0] if known else None))
    if chosen[0] is None:
        raise UnknownNameError(f"there is no ScalarImage to show among {sorted(images)}")
    return chosen[0], chosen[1]


def foreground_sampler(cache: Cache, patch_size: SizeLike, label: str | None) -> Sampler:
    """A sampler of what a reader wants to see: patches around voxels of the classes other than 0, or anywhere where there are none."""
    if label is None:
        return UniformSampler(patch_size)
    found = {value for entry in cache if label in entry.images for value in entry.images[label].classes} - {0}
    if not found:
        return UniformSampler(patch_size)
    return LabelSampler(patch_size, label, dict.fromkeys(sorted(found), 1.0), fallback="uniform")


def drawn_patches(queue: Queue, number: int = 6, epoch: int = 0) -> list[Shown]:
    """Patches of a queue, spread evenly over an epoch, each beside what it would be without augmentation.

    Args:
        queue: is left as it stands.
        number: how many.
        epoch: of which epoch.

    Raises:
        ArgumentError: for less than one patch, or more than an epoch has.
        TransformError: as making the patches raises it.
    """
    number, epoch, most = count(number, "number", 1), count(epoch, "epoch", 0), len(queue.dataset)
    if number > most:
        raise ArgumentError(f"an epoch of this queue has {most} patches, not {number}: ask for fewer, or raise samples_per_volume")
    return [_drawn(queue, epoch, place * most // number) for place in range(number)]


def _drawn(queue: Queue, epoch: int, index: int) -> Shown:
    made = queue.replay(epoch, index)
    entry, location, parameters = queue.cache[made["subject"]], PatchLocation.from_array(made["location"]), made["parameters"]
    names = [name for name in entry.images if name in made]
    plain = plain_patch(queue.recipe, entry, location, parameters, names)
    if not parameters["steps"]:
        return Shown(entry, location, plain, None, None, f"patch {index}")
    return Shown(entry, location, plain, {name: made[name] for name in names}, parameters, f"patch {index}")


def plain_patch(
    recipe: Recipe, entry: Entry, location: PatchLocation, parameters: Mapping[str, Any], names: list[str]
) -> dict[str, torch.Tensor]:
    """The patch as the recipe reads it when nothing is drawn: with its fill, and whatever else lies outside the volume."""
    nothing = {**parameters, "steps": [{**step, "parameters": None} for step in parameters["steps"]]}
    return recipe.apply(entry, location, nothing, keys=names)


def grey_window(entry: Entry, name: str) -> tuple[float, float]:
    """The values to be shown black and white: the 0.5th and 99.5th percentiles of the first channel of the volume as read.

    They are taken of planes spread evenly over the volume. A volume of almost one value has the window of its whole range.
    """
    depth, height, width = entry.shape
    planes = np.unique(np.linspace(0, depth - 1, min(_PLANES, depth)).round().astype(int))
    values = np.concatenate([entry.read(name, PatchLocation((int(i), 0, 0), (1, height, width)))[0].ravel() for i in planes])
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    if low < high:
        return low, high
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low - 0.5, low + 0.5)
