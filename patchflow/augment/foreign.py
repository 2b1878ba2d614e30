"""Callables of the user's own in a recipe, made deterministic per patch, and checks of what user code returns."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from patchflow import seeding
from patchflow.augment.base import Context, Parameters
from patchflow.errors import TransformError


class Foreign:
    """A callable f(sample) or f(sample, rng) as the last steps of a recipe.

    Args:
        function: takes the generator where it has a parameter named `rng`, or a second one without a default.

    Attributes:
        name: the function's or class's name.
        takes_rng: whether it takes a generator; otherwise global generators are seeded around it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name: str = getattr(function, "__name__", type(function).__name__)
        self._by_name, self.takes_rng = _generator_parameter(function)

    def draw(self, rng: np.random.Generator) -> Parameters:
        """The seed of the patch's own generator."""
        return {"seed": int(rng.integers(0, 2**63))}

    def apply(self, sample: dict[str, torch.Tensor], parameters: Parameters, context: Context) -> None:
        """Run the callable on the images of `sample`, which are filled in place with what it returns.

        Raises:
            TransformError: if it returns something other than the same images in the same shape and dtype, or values that are not finite.
        """
        given: dict[str, Any] = {**sample, "subject": context.name, "location": torch.from_numpy(context.location.as_array())}
        try:
            result = self._call(given, parameters["seed"])
        except Exception as error:
            error.add_note(f"raised in {where(self.name, context)}")
            raise
        if not isinstance(result, dict):
            raise TransformError(f"{where(self.name, context)} returned {type(result).__name__}: return the sample, a dict")
        if result.keys() - given.keys() or sample.keys() - result.keys():
            raise TransformError(
                f"{where(self.name, context)} returned {sorted(map(str, result))}: a sample keeps exactly its images, here {sorted(sample)}"
            )
        for name, patch in sample.items():
            put_back(patch, result[name], f"{where(self.name, context)}, image {name!r}")

    def _call(self, given: dict[str, Any], seed: int) -> Any:
        if not self.takes_rng:
            with seeding.foreign_generators(seed):
                return self.function(given)
        rng = seeding.generator(seed)
        return self.function(given, rng=rng) if self._by_name else self.function(given, rng)

    def __repr__(self) -> str:
        return self.name


def where(transform: str, context: Context) -> str:
    """The transform and the patch in words, for an error."""
    location = context.location
    return f"{transform} for subject {context.name!r} at {location.start} to {location.stop}"


def put_back(patch: torch.Tensor, result: Any, what: str) -> None:
    """Fill `patch` with what user code made of it.

    Raises:
        TransformError: for another type, shape or dtype, or values that are not finite.
    """
    if not isinstance(result, torch.Tensor):
        raise TransformError(f"{what}: returned {type(result).__name__} instead of a tensor")
    if result.shape != patch.shape or result.dtype != patch.dtype:
        raise TransformError(
            f"{what}: returned {result.dtype} of shape {tuple(result.shape)} instead of {patch.dtype} of shape {tuple(patch.shape)}; "
            "a transform keeps shape and dtype, so that patches fit into a batch"
        )
    if result.is_floating_point() and not torch.isfinite(result.sum()):  # one quick pass; only an odd sum is looked into
        bad = int((~torch.isfinite(result)).sum())
        if bad:
            raise TransformError(f"{what}: returned {bad} values that are NaN or infinite")
    if result is not patch:
        patch.copy_(result)


def _generator_parameter(function: Callable[..., Any]) -> tuple[bool, bool]:
    """Whether the callable takes a generator by the name `rng`, and whether it takes one at all."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some callables written in C have no signature
        return False, False
    if any(p.name == "rng" and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters):
        return True, True
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    return False, len(positional) >= 2
