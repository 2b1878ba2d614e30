"""Names for the shapes and arrays that pass between the rooms, and the one place that reads sizes and counts given by users."""

import operator
from collections.abc import Sequence
from fractions import Fraction
from math import isfinite
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt

from patchflow.errors import ArgumentError

Int3 = tuple[int, int, int]
"""Voxels along the three voxel axes I, J, K."""

Array = npt.NDArray[Any]
Affine = npt.NDArray[np.float64]
"""4x4 float64, voxel index to RAS+ millimetres."""

SizeLike = int | Sequence[int]
"""An int for all three axes, or three ints."""


def int3(value: SizeLike, what: str, minimum: int = 1) -> Int3:
    """Read a size in voxels: an int for all axes, or three ints.

    Args:
        value: what the user gave.
        what: the argument's name, for the error.
        minimum: the least allowed along each axis.

    Raises:
        ArgumentError: for a float (the message gives the number of voxels meant), another length, or less than `minimum`.
    """
    given: Any = value
    if type(given) is tuple and len(given) == 3 and all(type(part) is int and part >= minimum for part in given):
        return given  # what the package itself passes, millions of times
    parts: Any = given if isinstance(given, (list, tuple, np.ndarray)) else (given,) * 3
    if len(parts) != 3:
        raise ArgumentError(f"{what} must be an int or three ints (I, J, K), not {value!r}: it has {len(parts)} values")
    result = tuple(_voxels(part, what, value, minimum) for part in parts)
    return result[0], result[1], result[2]


def count(value: Any, what: str, minimum: int) -> int:
    """Read a count or number: an int, or what Python and its libraries take for one (a NumPy integer, a tensor of one).

    Args:
        value: what the user gave.
        what: the argument's name, for the error.
        minimum: the least allowed.

    Raises:
        ArgumentError: for anything else, or less than `minimum`.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum:
        raise ArgumentError(f"{what} must be an int of at least {minimum}, not {value!r}")
    return number


def _voxels(part: Any, what: str, value: Any, minimum: int) -> int:
    if isinstance(part, bool) or not isinstance(part, (Integral, np.integer)):
        if isinstance(part, Real) and isfinite(part):
            raise ArgumentError(f"{what} is counted in voxels and must be an int, not the float {part!r}: write {round(float(part))}")
        raise ArgumentError(f"{what} must be an int or three ints (I, J, K), not {value!r}")
    if part < minimum:
        raise ArgumentError(f"{what} must be at least {minimum} along every axis, not {value!r}")
    return int(part)


ScaleLike = float | Fraction | str | Sequence[float | Fraction | str]
"""A rational number for all three axes, or three; text is "1/2"."""

_LARGEST_DENOMINATOR = 64


def fraction3(value: ScaleLike, what: str) -> tuple[Fraction, Fraction, Fraction]:
    """Read a rational factor: a number for all axes, or three; 0.3333 is no third, Fraction(1, 3) and 1 / 3 are.

    Args:
        value: what the user gave.
        what: the argument's name, for the error.

    Raises:
        ArgumentError: for anything that is not above 0, or no fraction with a denominator of at most 64.
    """
    parts: Any = value if isinstance(value, (list, tuple, np.ndarray)) else (value,) * 3
    if len(parts) != 3:
        raise ArgumentError(f"{what} must be a number or three (I, J, K), not {value!r}: it has {len(parts)} values")
    result = []
    for given in parts:
        try:
            part = Fraction(given) if isinstance(given, str) else given
        except ValueError as error:
            raise ArgumentError(f'{what} must be a number, or text such as "1/2", not {given!r}') from error
        if isinstance(part, bool) or not isinstance(part, Real) or not isfinite(part) or part <= 0:
            raise ArgumentError(f"{what} must be a number above 0, not {part!r}")
        exact = part if isinstance(part, Fraction) else Fraction(float(part))
        near = exact.limit_denominator(_LARGEST_DENOMINATOR)
        if abs(near - exact) > Fraction(1, 10**9):
            raise ArgumentError(f"{what} must be a fraction of small numbers, such as Fraction(1, 3), not {part!r}")
        result.append(near)
    return result[0], result[1], result[2]
