"""Dictionary transforms of MONAI inside a recipe."""

import copy
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch

from patchflow.adapters.base import Adapted, Sample, comes_from, handed_over, patch_affine, taken_back
from patchflow.adapters.objects import reachable
from patchflow.augment.base import Context
from patchflow.augment.foreign import where
from patchflow.errors import ArgumentError, UnknownNameError
from patchflow.types import Affine

_DRAW_GLOBALLY = (
    "torchvision",
    "torchio",
    "cornucopia",
    "kornia",
    "batchgenerators",
    "batchgeneratorsv2",
    "monai.transforms.signal",
    "monai.apps.deepedit",
    "monai.apps.vista3d",
)
"""Packages and modules whose transforms draw from the global generators of Python, NumPy or PyTorch. The others of MONAI do not."""

_MAY_ADD_IMAGES = ("name", "prefix", "postfix", "output", "overwrite")
"""Parts of the names of settings by which a dictionary transform adds entries to the sample."""


def from_monai(transform: Callable[..., Any], *, global_random: bool | None = None) -> "MonaiTransform":
    """A dictionary transform of MONAI as a step of a recipe.

    The same patch comes out for any number and kind of workers, threads included: every patch is made by a copy of the transform, seeded by
    `set_random_state` with a number below 2^32 drawn from the patch's own generator; `Compose`, `OneOf`, `SomeOf` and `RandomOrder` pass it
    on as they always do. Images are `MetaTensor`s (C, i, j, k) with the affine of the patch (voxel of the patch to RAS+ millimetres), as
    after `LoadImaged` and a crop. They come back as float32, and labels in their own dtype, in which they must be whole: MONAI's spatial
    transforms return float32, linearly interpolated unless `mode` says "nearest" for the label. Lazy operations that are still pending at
    the end are applied.

    Args:
        transform: a dictionary transform, or a `Compose` of them. It is copied.
        global_random: whether something in it also draws from the global generators of Python, NumPy or PyTorch, which are then seeded
            for each patch, and thread workers are refused. None: where it holds a transform of torchvision, TorchIO or another library
            known to do so. MONAI's own do not, but a function that you give to `Lambdad` may.

    Returns:
        A callable f(sample, rng, context), which can be pickled if the transform can.

    Raises:
        ArgumentError: for something that is no transform, an array transform (`RandFlip` instead of `RandFlipd`), or one that holds
            random state where it cannot be copied, such as in a closure.
    """
    return MonaiTransform(transform, global_random)


class MonaiTransform(Adapted):
    """See `from_monai`, which makes it."""

    library = "MONAI"

    def __init__(self, transform: Any, global_random: bool | None = None) -> None:
        super().__init__(transform)
        parts = reachable(self.transform)
        holders = [part for part in parts if _is_random(part)]
        self._is_monai = any(comes_from(part, ("monai",)) for part in parts)
        if not (self._is_monai or _is_random(self.transform)):
            raise ArgumentError(f"{transform!r} is no transform of MONAI; a function of the sample goes into a recipe as it is")
        _refuse_shared(holders, reachable(transform), self.__name__)
        for part in _in_composition(self.transform):
            _refuse_array_transform(part)
        self.global_random = any(comes_from(part, _DRAW_GLOBALLY) for part in parts) if global_random is None else bool(global_random)
        self._strays = _strays(self.transform, holders)

    def check(self, images: Mapping[str, Any]) -> None:
        """Raise for `keys` that no subject of these images has, up to the first transform that may add images.

        Raises:
            UnknownNameError: naming transform, key and images.
        """
        for part in reachable(self.transform):
            keys = getattr(part, "keys", None)
            if not isinstance(keys, (tuple, list)) or not hasattr(part, "allow_missing_keys"):
                continue
            for key in keys:
                if key not in images and key not in ("subject", "location") and not part.allow_missing_keys:
                    raise UnknownNameError(
                        f"{type(part).__name__} of MONAI has the key {key!r}, but the images are {sorted(images)}: mend its `keys`"
                    )
            if any(word in setting for setting in vars(part) for word in _MAY_ADD_IMAGES):
                return

    def __call__(self, sample: Sample, rng: np.random.Generator, context: Context) -> Any:
        copies: dict[int, Any] = {}
        transform = copy.deepcopy(self.transform, copies)  # state that a patch leaves behind must not reach another
        seeds = [int(seed) for seed in rng.integers(0, 2**32, size=1 + len(self._strays))]
        if _is_random(transform):
            transform.set_random_state(seed=seeds[0])
        for stray, seed in zip(self._strays, seeds[1:], strict=True):
            copies[id(stray)].set_random_state(seed=seed)
        images = {name: patch for name, patch in sample.items() if name in context.images}
        affine = patch_affine(context)
        given = {name: self._wrapped(handed_over(patch), affine) for name, patch in images.items()}
        result = self.applied(transform, {**sample, **given}, context)
        if not isinstance(result, dict):
            return result
        if self._is_monai:
            result = _without_pending(result)
        for name in images.keys() & result.keys():
            result[name] = taken_back(result[name], images[name], context.images[name].kind, where(self.__name__, context), name)
        return result

    def _wrapped(self, patch: torch.Tensor, affine: Affine) -> torch.Tensor:
        if not self._is_monai:
            return patch
        wrapped: torch.Tensor = import_module("monai.data").MetaTensor(patch, affine=torch.from_numpy(affine))
        return wrapped


def _without_pending(result: Sample) -> Sample:
    """The sample with all lazy operations of MONAI carried out, as the end of a `Compose` does."""
    if not any(getattr(value, "has_pending_operations", False) for value in result.values()):
        return result
    done: Sample = import_module("monai.transforms.lazy.functional").apply_pending_transforms(result, None, None, logger_name=False)
    return done


def _is_random(part: Any) -> bool:
    return not isinstance(part, type) and callable(getattr(part, "set_random_state", None))


def _strays(transform: Any, holders: list[Any]) -> list[Any]:
    """The holders of random state that seeding the whole transform does not reach: each needs a seed of its own.

    The others lose the state that they hold now, which is dear to copy: seeding gives them a new one.
    """
    before = [vars(part).get("R") for part in holders]
    if _is_random(transform):
        transform.set_random_state(seed=0)
    strays = []
    for part, state in zip(holders, before, strict=True):
        if vars(part).get("R") is not state:
            if hasattr(type(part), "R"):
                del part.R
        elif part is not transform:
            strays.append(part)
    return strays


def _refuse_shared(holders: list[Any], originals: list[Any], name: str) -> None:
    known = {id(part) for part in originals}
    for part in holders:
        if id(part) in known:
            raise ArgumentError(
                f"{name} holds {type(part).__name__}, which is random, where it cannot be copied, as in a closure (`adaptor` makes one): "
                "each patch needs a copy of its own; put it into the Compose directly"
            )


def _in_composition(transform: Any) -> list[Any]:
    inner = getattr(transform, "transforms", None)
    if not isinstance(inner, (list, tuple)) or hasattr(transform, "keys"):
        return [transform]
    return [part for member in inner for part in _in_composition(member)]


def _refuse_array_transform(part: Any) -> None:
    kind = type(part)
    if not kind.__module__.startswith("monai.transforms.") or hasattr(part, "keys") or "Lambda" in kind.__name__:
        return
    if hasattr(import_module("monai.transforms"), f"{kind.__name__}d"):
        raise ArgumentError(f"{kind.__name__} of MONAI takes an array; a sample is a dict: use {kind.__name__}d with `keys`")
