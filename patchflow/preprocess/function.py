"""A user's own function as a preprocessing step, and what identifies it."""

import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

from patchflow.errors import ArgumentError, TransformError
from patchflow.images.labels import as_labels
from patchflow.images.volume import Volume, as_array
from patchflow.kernels.pointwise import IntensityMap
from patchflow.preprocess.base import Step, where
from patchflow.types import Array


class FunctionStep(Step):
    """A function from a dict of values to a dict of values.

    It gets every image's values, (C, I, J, K): float32 for scalar images, integers for label maps, in arrays of its own. It returns
    arrays or tensors under the same names with the same I, J, K (the affine stays true); channels may differ. Scalar images come back
    as integers or floats (kept as float32), label maps as integers.

    It is identified by its attribute `fingerprint` if it has one; else by its source code, its defaults, and the plain values (and
    functions of its own module) that it refers to. What other modules do is not followed.
    """

    needs_finite = False

    def __init__(self, function: Callable[[dict[str, Array]], Mapping[str, Any]]) -> None:
        self.function = function
        self.name = getattr(function, "__qualname__", type(function).__qualname__)

    def to_dict(self) -> dict[str, Any]:
        """What identifies the function."""
        return {"step": "function", "function": identity(self.function)}

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Call the function and check what it returns."""
        given = {key: volume.array.copy() if volume.kind == "label" else volume.values() for key, volume in volumes.items()}
        try:
            result = self.function(given)
        except Exception as error:
            error.add_note(f"raised by the preprocessing step {self.name} for subject {subject_name!r}")
            raise
        self._check_names(result, volumes, subject_name)
        return {key: self._taken(result[key], key, volume, subject_name) for key, volume in volumes.items()}

    def _check_names(self, result: Any, volumes: Mapping[str, Volume], subject_name: str) -> None:
        about = f"the preprocessing step {self.name}, for subject {subject_name!r},"
        if not isinstance(result, Mapping):
            raise TransformError(f"{about} returned {type(result).__name__}, not a dict of arrays: let it return the dict")
        if set(result) != set(volumes):
            raise TransformError(f"{about} returned images {sorted(map(str, result))}, not {sorted(volumes)}: let it return each of them")

    def _taken(self, value: Any, key: str, volume: Volume, subject_name: str) -> Volume:
        what = f"{where(subject_name, key, volume)}, after the preprocessing step {self.name}"
        if not isinstance(value, np.ndarray) and not hasattr(value, "detach"):
            raise TransformError(f"{what}, is a {type(value).__name__}, not an array")
        array = as_array(value)
        if array.ndim != 4 or array.shape[1:] != volume.spatial_shape or not array.shape[0]:
            raise TransformError(
                f"{what}, has shape {array.shape}, not (C, {', '.join(map(str, volume.spatial_shape))}): a function cannot say how the "
                "affine changes, so that it must keep I, J and K"
            )
        array = np.ascontiguousarray(array)
        if volume.kind == "label":
            return replace(volume, array=as_labels(array, 1.0, 0.0, what))
        if array.dtype == np.float64:
            with np.errstate(over="ignore"):  # what is infinite then is refused when the pipeline ends
                array = array.astype(np.float32)
        return replace(volume, array=array, map=IntensityMap())


def identity(thing: Any, seen: frozenset[int] = frozenset()) -> Any:
    """Plain JSON values that identify a function, or a value that a function depends on.

    The same in every process and run of Python as long as the source code is the same.

    Raises:
        ArgumentError: for something that cannot be identified so.
    """
    if isinstance(getattr(thing, "fingerprint", None), str):
        return {"fingerprint": thing.fingerprint}
    if id(thing) in seen:
        return "recursion"
    inner = functools.partial(identity, seen=seen | {id(thing)})
    if thing is None or isinstance(thing, (bool, int, str)):
        return thing
    if isinstance(thing, float):
        return repr(thing)  # JSON has no NaN and no infinity
    if isinstance(thing, (np.ndarray, np.generic)) and thing.dtype != object:
        return {"array": [thing.dtype.str, list(thing.shape), hashlib.sha256(thing.tobytes()).hexdigest()]}
    if isinstance(thing, (list, tuple)):
        return [inner(value) for value in thing]
    if isinstance(thing, (set, frozenset)):
        return {"set": sorted((inner(value) for value in thing), key=repr)}
    if isinstance(thing, Mapping):
        return {"dict": [[inner(key), inner(value)] for key, value in thing.items()]}
    if isinstance(thing, Path):
        return str(thing)
    if isinstance(thing, functools.partial):
        return {"partial": inner(thing.func), "with": [inner(thing.args), inner(thing.keywords)]}
    if isinstance(thing, MethodType):
        return {"method": thing.__name__, "of": inner(thing.__self__)}
    if isinstance(thing, FunctionType):
        return _function(thing, inner)
    if isinstance(thing, type) or not hasattr(thing, "__dict__"):
        raise _unknown(thing)
    return {"object": type(thing).__qualname__, "source": _source(type(thing)), "state": inner(vars(thing))}


def _function(function: FunctionType, inner: Callable[[Any], Any]) -> dict[str, Any]:
    variables = inspect.getclosurevars(function)
    plain = {
        name: inner(value)
        for name, value in sorted(variables.globals.items())
        if isinstance(value, (bool, int, float, str, list, tuple, dict, np.ndarray, np.generic))
        or (isinstance(value, FunctionType) and value.__module__ == function.__module__)
    }
    return {
        "name": function.__qualname__,
        "source": _source(function),
        # The source of a lambda that goes on over several lines is found in part only.
        "code": _code(function.__code__) if function.__name__ == "<lambda>" else None,
        "defaults": inner([function.__defaults__, function.__kwdefaults__]),
        "closure": {name: inner(value) for name, value in sorted(variables.nonlocals.items())},
        "globals": plain,
    }


def _code(code: CodeType) -> list[Any]:
    constants = [_code(value) if isinstance(value, CodeType) else repr(value) for value in code.co_consts]
    return [hashlib.sha256(code.co_code).hexdigest(), list(code.co_names), constants]


def _source(thing: Any) -> str:
    try:
        return hashlib.sha256(textwrap.dedent(inspect.getsource(thing)).encode()).hexdigest()
    except (OSError, TypeError) as error:
        raise _unknown(thing) from error


def _unknown(thing: Any) -> ArgumentError:
    return ArgumentError(
        f"{thing!r} cannot be told from others like it, so that a cache would not know when to rebuild: write a function in a file, "
        "or give the function an attribute `fingerprint`, a text that changes whenever its results do"
    )
