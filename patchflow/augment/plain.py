"""Whether drawn parameters are what they must be to be saved and replayed: plain JSON values."""

import math
from typing import Any

from patchflow.augment.base import Parameters
from patchflow.errors import TransformError


def check_plain(parameters: Parameters) -> None:
    """Raise `TransformError`, naming the transform and the parameter, unless what `Recipe.draw` returned consists of plain JSON values.

    These are dicts by text, lists (and tuples, which become lists), texts, ints, finite floats, bools and None; integers, bools and arrays
    of NumPy and tensors are not.
    """
    for step in parameters["steps"]:
        if (found := _foreign(step["parameters"], "")) is not None:
            place, value = found
            raise TransformError(
                f"{step['transform']} drew the parameter {place} as {value!r:.100} ({type(value).__name__}), which is no plain JSON value: "
                "let `draw` return int(...), float(...), bool(...) or array.tolist()"
            )


def _foreign(value: Any, place: str) -> tuple[str, Any] | None:
    """The first value that JSON cannot keep, and where it stands."""
    if value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value)):
        return None
    if not isinstance(value, (dict, list, tuple)):
        return place, value
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        inner = f"{place}[{key!r}]"
        found = (f"{inner} (its key)", key) if isinstance(value, dict) and not isinstance(key, str) else _foreign(part, inner)
        if found is not None:
            return found
    return None
