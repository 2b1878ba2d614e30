"""What the adapters share: a copy of the transform, and images on the way to a library and back."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from patchflow.adapters.objects import described
from patchflow.augment.base import Context
from patchflow.augment.foreign import where
from patchflow.errors import ArgumentError, TransformError
from patchflow.types import Affine

Sample = dict[str, Any]

_WIDER = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}
"""Labels are handed over as these where PyTorch itself can do little with their own dtype."""


class Adapted:
    """A transform of another library as a callable of a recipe: a copy of it, its name, and what tells it from others.

    Args:
        transform: is copied.

    Raises:
        ArgumentError: for something that cannot be called, or cannot be copied.
    """

    library: str

    def __init__(self, transform: Any) -> None:
        if isinstance(transform, type) or not callable(transform):
            raise ArgumentError(f"expected a transform of {self.library}, such as the result of Compose, not {transform!r}")
        try:
            self.transform = copy.deepcopy(transform)
        except Exception as error:
            raise ArgumentError(f"{type(transform).__name__} of {self.library} cannot be copied, as each patch needs: {error}") from error
        self.__name__ = f"{type(transform).__name__} ({self.library})"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values that tell the transform from others: its class and settings, and those of all transforms in it."""
        return {"transform": described(self.transform)}

    def applied(self, transform: Callable[[Any], Any], given: Any, context: Context) -> Any:
        """What the library returns; its errors become a `TransformError` that gives their first cause and says where."""
        try:
            return transform(given)
        except Exception as error:
            cause: BaseException = error  # libraries wrap the reason in a chain of errors that do not tell it
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise TransformError(f"{where(self.__name__, context)}: {type(cause).__name__}: {_text(cause)}") from error

    def __repr__(self) -> str:
        return self.__name__


def patch_affine(context: Context) -> Affine:
    """4x4 float64, voxel of the patch to RAS+ millimetres; of a source without an affine, voxel axes are taken for those of the world."""
    affine = np.diag([*context.spacing, 1.0]) if context.affine is None else np.array(context.affine, np.float64)
    affine[:3, 3] += (affine[:3, :3] * np.asarray(context.location.start, np.float64)).sum(axis=1)
    return affine


def comes_from(thing: Any, modules: tuple[str, ...]) -> bool:
    """Whether the class of an object, or one that it derives from, is defined in one of the modules or below."""
    homes = [kind.__module__ for kind in type(thing).__mro__]
    return any(home == module or home.startswith(f"{module}.") for home in homes for module in modules)


def handed_over(patch: torch.Tensor) -> torch.Tensor:
    """The patch, in a dtype with which PyTorch can compute."""
    return patch.to(_WIDER.get(patch.dtype, patch.dtype))


def taken_back(result: Any, patch: torch.Tensor, kind: str, what: str, name: str) -> Any:
    """What a library made of a patch, in the patch's dtype if that changes no value; anything else is left to the recipe's own checks.

    Args:
        result: a tensor, of a subclass maybe, or an array.
        patch: what it was made of.
        kind: "scalar" or "label".
        what: transform and patch in words, for an error.
        name: the image's.

    Raises:
        TransformError: for a label map whose values are no labels of its dtype any more.
    """
    if isinstance(result, np.ndarray):
        result = torch.from_numpy(np.ascontiguousarray(result))
    if not isinstance(result, torch.Tensor):
        return result
    if hasattr(result, "as_tensor"):
        result = result.as_tensor()  # MONAI's subclass
    if result.shape != patch.shape or result.dtype == patch.dtype:
        return result
    if kind == "scalar":
        return result.to(patch.dtype) if result.is_floating_point() else result
    labels = result.to(patch.dtype)
    wrong = result[handed_over(labels).to(result.dtype) != result]
    if len(wrong):
        raise TransformError(
            f"{what}, image {name!r}: turned {len(wrong)} labels into values that are no {patch.dtype}, such as {float(wrong[0]):g}: "
            'labels must be read from the nearest voxel (in MONAI, mode="nearest" for this key)'
        )
    if result.is_floating_point() and float(result.abs().max()) > 2 / torch.finfo(result.dtype).eps:
        raise TransformError(f"{what}, image {name!r}: labels above 2^24 went through {result.dtype}, which does not hold them exactly")
    return labels


def _text(error: BaseException) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
