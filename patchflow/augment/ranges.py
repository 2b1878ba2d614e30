"""Ranges as users of TorchIO give them, checked when a transform is made."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from patchflow.errors import ArgumentError

Range = tuple[float, float]
RangeLike = float | Sequence[float]
"""A number or a pair (low, high)."""
RangesLike = float | Sequence[float]
"""A number, a pair for all axes, three numbers (one per axis), or six (a pair per axis)."""


def probability(value: Any, name: str) -> float:
    """Read a number from 0 to 1; raises `ArgumentError` otherwise."""
    number = _numbers(value, name)
    if len(number) != 1 or not 0 <= number[0] <= 1:
        raise ArgumentError(f"{name} is a probability and must be a number from 0 to 1, not {value!r}")
    return number[0]


def one_range(value: RangeLike, name: str, *, around: float = 0.0, least: float = -math.inf, one_sided: bool = False) -> Range:
    """Read a range: a number x is (around - x, around + x), or (0, x) where `one_sided`; a pair is itself.

    Args:
        value: what the user gave.
        name: the argument's name, for the error.
        around: the middle of the range that a single number stands for.
        least: the least allowed.
        one_sided: whether a single number is the upper end, from 0.

    Raises:
        ArgumentError: for a range the wrong way round, a negative single number, values below `least` or not finite, or another length.
    """
    numbers = _numbers(value, name)
    if len(numbers) == 1:
        numbers = _spread(numbers[0], name, around, one_sided)
    if len(numbers) != 2:
        raise ArgumentError(f"{name} must be a number or a pair (low, high), not {value!r}")
    return _checked(numbers[0], numbers[1], name, value, least)


def axis_ranges(value: RangesLike, name: str, *, around: float = 0.0, above: float | None = None) -> tuple[Range, Range, Range]:
    """Read a range per axis I, J, K: x, (low, high), (xi, xj, xk) or (low_i, high_i, low_j, high_j, low_k, high_k), as TorchIO 1 does.

    Args:
        value: what the user gave; a number x stands for (around - x, around + x).
        name: the argument's name, for the error.
        around: the middle of the range that a single number stands for.
        above: what every end must exceed.

    Raises:
        ArgumentError: as `one_range`, or where an end is not above `above`.
    """
    numbers = _numbers(value, name)
    if len(numbers) not in (1, 2, 3, 6):
        raise ArgumentError(f"{name} must be a number, a pair, three numbers or six, not {value!r}")
    if len(numbers) in (1, 3):
        numbers = [end for number in numbers for end in _spread(number, name, around, False)]
    numbers = numbers * (6 // len(numbers))
    i, j, k = (_checked(low, high, name, value, -math.inf) for low, high in zip(numbers[::2], numbers[1::2], strict=True))
    for low, _ in (i, j, k):
        if above is not None and low <= above:
            raise ArgumentError(f"{name} must be above {above:g}, but {value!r} reaches {low:g}")
    return i, j, k


def uniform(rng: np.random.Generator, ends: Range) -> float:
    """A number drawn uniformly from a range."""
    return ends[0] + (ends[1] - ends[0]) * float(rng.random())


def _numbers(value: Any, name: str) -> list[float]:
    parts = list(value) if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) else [value]
    for part in parts:
        if isinstance(part, (bool, np.bool_)) or not isinstance(part, Real) or not math.isfinite(part):
            raise ArgumentError(f"{name} must be made of finite numbers, not {value!r}")
    return [float(part) for part in parts]


def _spread(number: float, name: str, around: float, one_sided: bool) -> list[float]:
    if number < 0:
        raise ArgumentError(f"{name} given as a single number must not be negative, as {number:g} is: give a pair (low, high)")
    return [0.0 if one_sided else around - number, number if one_sided else around + number]


def _checked(low: float, high: float, name: str, value: Any, least: float) -> Range:
    if low > high:
        raise ArgumentError(f"{name} has a range the wrong way round: ({low:g}, {high:g}) in {value!r}; give the lower end first")
    if low < least:
        raise ArgumentError(f"{name} must be at least {least:g}, but {value!r} reaches {low:g}")
    return low, high
