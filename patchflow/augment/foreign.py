"""Callables of the user's own in a recipe, made deterministic per patch, and checks of what user code returns."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch

from patchflow import seeding
from patchflow.augment.base import Context, Parameters
from patchflow.errors import TransformError


class Foreign:
    """A callable f(sample) or f(sample, rng) as the last steps of a recipe.

    It runs with one PyTorch thread, in whichever thread or process: sums over a patch differ in the last bit between one thread and two.

    Args:
        function: takes the generator where it has a parameter named `rng`, or a second one without a default; and the `Context` of the
            patch (kinds of the images, affine, spacing) where it has one named `context`. It may have `check(images)`, which raises what
            would go wrong with subjects of these images; `to_dict()`, plain JSON values that tell it from others; and `global_random`, True
            where it draws from global generators although it takes one.

    Attributes:
        name: the function's or class's name.
        takes_rng: whether the generator is all it draws from; otherwise global generators are seeded around it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name: str = getattr(function, "__name__", type(function).__name__)
        self._takes = _taken(function)
        self.takes_rng = self._takes.rng is not None and not getattr(function, "global_random", False)

    def check(self, images: Mapping[str, Any]) -> None:
        """Raise what would go wrong with subjects of these images (name to record), as far as the callable can tell."""
        check = getattr(self.function, "check", None)
        if callable(check):
            check(images)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values that tell callables apart: where it was defined, and its own `to_dict()` if it has one."""
        kind = self.function if hasattr(self.function, "__qualname__") else type(self.function)
        described = {"function": f"{kind.__module__}.{kind.__qualname__}"}
        own = getattr(self.function, "to_dict", None)
        return {**described, "settings": own()} if callable(own) else described

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
            with one_thread():
                result = self._call(given, parameters["seed"], context)
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

    def _call(self, given: dict[str, Any], seed: int, context: Context) -> Any:
        named: dict[str, Any] = {"context": context} if self._takes.context else {}
        by_place: list[Any] = []
        if self._takes.rng == "":
            by_place.append(seeding.generator(seed))
        elif self._takes.rng is not None:
            named[self._takes.rng] = seeding.generator(seed)
        with nullcontext() if self.takes_rng else seeding.foreign_generators(seed):
            return self.function(given, *by_place, **named)

    def __repr__(self) -> str:
        return self.name


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute with one thread in this thread; others keep theirs, but for threads that are started meanwhile."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    if result is patch:
        return
    if result.untyped_storage().data_ptr() == patch.untyped_storage().data_ptr():
        result = result.clone()  # a view of the patch itself, such as its transpose
    patch.copy_(result)


class _Taken(NamedTuple):
    """What a callable takes besides the sample.

    Attributes:
        rng: the name of the parameter for the generator, "" where it has to be given by its place, None where there is none.
        context: whether it takes the context.
    """

    rng: str | None
    context: bool


def _taken(function: Callable[..., Any]) -> _Taken:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some callables written in C have no signature
        return _Taken(None, False)
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    second = next((p for p in positional[1:] if p.name != "context"), None)
    if "rng" in named:
        rng: str | None = "rng"
    elif second is None:
        rng = None
    else:
        rng = second.name if second.kind is second.POSITIONAL_OR_KEYWORD else ""
    return _Taken(rng, "context" in named)
