"""Reading the fields of steps: what users give becomes plain values, so that equal parameters have equal fingerprints."""

import math
from itertools import pairwise
from typing import Any

from patchflow.errors import ArgumentError


def finite(value: Any, what: str) -> float | None:
    """A number as a float; None stays None."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{what} must be a number, not {value!r}") from error
    if not math.isfinite(number):
        raise ArgumentError(f"{what} must be finite, not {value!r}")
    return number


def number(value: Any, what: str, above: float | None = None) -> float:
    """A number as a float, `above` another if one is given."""
    found = finite(value, what)
    if found is None or isinstance(value, (bool, str)):
        raise ArgumentError(f"{what} must be a number, not {value!r}")
    if above is not None and found <= above:
        raise ArgumentError(f"{what} must be above {above:g}, not {value!r}")
    return found


def ends(value: Any, what: str) -> tuple[float, float]:
    """Two numbers, the smaller first."""
    found = [finite(end, what) for end in value] if isinstance(value, (tuple, list)) else []
    if len(found) != 2 or found[0] is None or found[1] is None or found[0] >= found[1]:
        raise ArgumentError(f"{what} must be two numbers, the smaller first, not {value!r}")
    return found[0], found[1]


def percents(value: Any, what: str, least: int) -> tuple[float, ...]:
    """At least `least` numbers from 0 to 100, each above the one before."""
    found = tuple(number(each, what) for each in value) if isinstance(value, (tuple, list)) else ()
    rising = all(low < high for low, high in pairwise(found))
    if len(found) < least or not rising or found[0] < 0 or found[-1] > 100:
        raise ArgumentError(f"{what} must be {least} or more numbers from 0 to 100, each above the one before, not {value!r}")
    return found


def chosen(value: Any, what: str, choices: tuple[str, ...]) -> None:
    """Refuse what is none of `choices`."""
    if value not in choices:
        raise ArgumentError(f"{what} must be {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}, not {value!r}")


def set_fields(step: object, **fields: Any) -> None:
    """Set fields of a frozen step as it is made."""
    for name, value in fields.items():
        object.__setattr__(step, name, value)
