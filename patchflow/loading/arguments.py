"""What a queue is given, read and checked."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing import get_all_start_methods
from typing import Any

import torch

from patchflow.augment.recipe import Recipe
from patchflow.errors import ArgumentError

Transform = Recipe | Sequence[Any] | Callable[..., Any] | None


def checked_start_method(start_method: str | None) -> str | None:
    """A way to start processes that this platform has, or None for Python's default."""
    known = get_all_start_methods()
    if start_method is not None and start_method not in known:
        raise ArgumentError(f"start_method must be {' or '.join(map(repr, known))} here, or None, not {start_method!r}")
    return start_method


def checked_keys(keys: Any) -> tuple[str, ...] | None:
    """Names of images, or None for all; whether there are such images is seen later."""
    if keys is None:
        return None
    names = (keys,) if isinstance(keys, str) else tuple(keys) if isinstance(keys, Iterable) else ()
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ArgumentError(f"keys must be names of images, each once, or None for all images, not {keys!r}")
    return names


def checked_pinning(pin_memory: bool | None) -> bool:
    """Whether to pin; asks for no memory, which would start CUDA before worker processes are forked."""
    if pin_memory and not torch.cuda.is_available():
        raise ArgumentError("pin_memory=True needs a CUDA device, and there is none here: leave it out, and it is used where there is one")
    return torch.cuda.is_available() if pin_memory is None else pin_memory


def checked_place(augment_on: str, worker_kind: str, recipe: Recipe, memory_budget: Any) -> str:
    """Where patches are augmented: "worker" or "device"."""
    if augment_on not in ("worker", "device"):
        raise ArgumentError(f'augment_on must be "worker" or "device", not {augment_on!r}')
    if augment_on == "device":
        if worker_kind == "process":
            raise ArgumentError('augment_on="device" hands voxels over as they are read, without a copy: use worker_kind="thread"')
        if memory_budget is not None:
            raise ArgumentError(
                'a memory_budget cannot be kept with augment_on="device": how many voxels a patch needs depends on what is drawn'
            )
        if recipe.uses_global_random:
            raise ArgumentError(
                'with augment_on="device" a function of the sample alone would draw from the device: let it take (sample, rng)'
            )
    return augment_on


def as_recipe(transform: Transform, fill: float | Mapping[str, float] | None) -> Recipe:
    """The recipe that a queue was given, or one of the transforms that it was given."""
    if isinstance(transform, Recipe):
        if fill is not None:
            raise ArgumentError("give `fill` to the Recipe, which fills voxels outside the volume, not to the Queue")
        return transform
    transforms = [] if transform is None else list(transform) if isinstance(transform, Sequence) else [transform]
    return Recipe(transforms, fill=0 if fill is None else fill)
