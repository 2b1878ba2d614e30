"""Looking into objects of other libraries: what they hold, and what tells them apart."""

import functools
import hashlib
import math
import types
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch

_LEAVES = (
    str,
    bytes,
    bool,
    int,
    float,
    complex,
    type(None),
    type,
    types.ModuleType,
    np.ndarray,
    np.generic,
    torch.Tensor,
    torch.dtype,
    Enum,
)


def reachable(root: Any) -> list[Any]:
    """An object and everything that it holds: in attributes, lists, dicts, closures, partial calls and bound methods; each once, in order.

    Numbers, text, arrays, tensors, classes and modules are left out.
    """
    found: list[Any] = []
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, _LEAVES):
            continue
        seen.add(id(thing))
        found.append(thing)
        waiting += reversed([part for _, part in _parts(thing)])
    return found


def described(thing: Any, above: tuple[int, ...] = ()) -> Any:
    """Plain JSON values that tell an object from others of its class: its settings, and those of what it holds.

    Arrays are told apart by a digest; the state of random generators is left out.

    Args:
        thing: any object.
        above: ids of the objects that hold it, so that one which holds itself has an end.
    """
    if thing is None or isinstance(thing, (bool, int)):
        return thing
    if isinstance(thing, Enum):
        return f"{type(thing).__name__}.{thing.name}"
    if isinstance(thing, str):
        return str(thing)
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else repr(thing)
    if isinstance(thing, (np.ndarray, np.generic, torch.Tensor)):
        return _digest(thing)
    name = f"{type(thing).__module__}.{type(thing).__qualname__}"
    if name.startswith("numpy.random"):
        return None
    if hasattr(thing, "__qualname__"):
        name = f"{thing.__module__}.{thing.__qualname__}"
    if id(thing) in above or isinstance(thing, _LEAVES):
        return name if hasattr(thing, "__qualname__") or id(thing) in above else repr(thing)
    parts = {str(key): described(part, (*above, id(thing))) for key, part in _parts(thing)}
    if isinstance(thing, (list, tuple)):
        return list(parts.values())
    return {"class": name, **parts}


def _parts(thing: Any) -> list[tuple[Any, Any]]:
    """What an object holds, each with its name or place."""
    if isinstance(thing, Mapping):
        return list(thing.items())
    if isinstance(thing, (list, tuple)):
        return list(enumerate(thing))
    if isinstance(thing, (set, frozenset)):
        return list(enumerate(sorted(thing, key=repr)))
    if isinstance(thing, functools.partial):
        return [("func", thing.func), ("args", thing.args), ("keywords", thing.keywords)]
    if isinstance(thing, types.MethodType):
        return [("self", thing.__self__)]
    if isinstance(thing, types.FunctionType):
        cells = thing.__closure__ or ()
        return [(name, cell.cell_contents) for name, cell in zip(thing.__code__.co_freevars, cells, strict=True) if _is_filled(cell)]
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ()) if isinstance(name, str)]
    held = {name: getattr(thing, name) for name in slots if not name.startswith("__") and hasattr(thing, name)}
    return [*held.items(), *getattr(thing, "__dict__", {}).items()]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a name that was not yet given a value
        return False
    return True


def _digest(array: Any) -> str:
    values = array.detach().cpu().contiguous() if isinstance(array, torch.Tensor) else np.ascontiguousarray(array)
    raw = values.view(torch.uint8).numpy().tobytes() if isinstance(values, torch.Tensor) and values.ndim else np.asarray(values).tobytes()
    return f"{values.dtype} {tuple(values.shape)} {hashlib.sha256(raw).hexdigest()[:16]}"
