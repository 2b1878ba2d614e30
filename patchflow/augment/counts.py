"""Whole numbers that users give: ranges of them, both ends included, for counts and sizes in voxels; and voxel axes."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from patchflow.errors import ArgumentError

Count = tuple[int, int]
"""The least and the greatest number."""
Counts = tuple[Count, Count, Count]
"""One for each axis I, J, K."""


def whole_range(value: int | Sequence[int], name: str, least: int = 0) -> Count:
    """Read a whole number n as (n, n), or a pair (fewest, most).

    Raises:
        ArgumentError: for other numbers, numbers below `least`, or a pair the wrong way round.
    """
    numbers = _whole(value, name, least)
    if len(numbers) not in (1, 2):
        raise ArgumentError(f"{name} must be a whole number or a pair (fewest, most), not {value!r}")
    return _ordered(numbers[0], numbers[-1], name, value)


def whole_ranges(value: int | Sequence[int], name: str, least: int = 0) -> Counts:
    """Read n for all axes, a pair for all axes, three numbers (one per axis) or six (a pair per axis).

    Raises:
        ArgumentError: as `whole_range` does.
    """
    numbers = _whole(value, name, least)
    if len(numbers) not in (1, 2, 3, 6):
        raise ArgumentError(f"{name} must be a whole number, a pair, three numbers or six, not {value!r}")
    if len(numbers) in (1, 3):
        numbers = [number for number in numbers for _ in range(2)]
    numbers = numbers * (6 // len(numbers))
    i, j, k = (_ordered(low, high, name, value) for low, high in zip(numbers[::2], numbers[1::2], strict=True))
    return i, j, k


def voxel_axes(axes: int | Sequence[int]) -> tuple[int, ...]:
    """Read one or several of the voxel axes 0 (I), 1 (J), 2 (K), each once; raises `ArgumentError` otherwise."""
    given: list[Any] = list(axes) if isinstance(axes, (Sequence, np.ndarray)) else [axes]
    wrong = any(isinstance(axis, (bool, np.bool_)) or not isinstance(axis, Integral) or axis not in (0, 1, 2) for axis in given)
    if not given or wrong or len(set(given)) < len(given):
        raise ArgumentError(f"axes must be some of 0, 1, 2 (I, J, K), each once, not {axes!r}")
    return tuple(int(axis) for axis in given)


def draw_count(ends: Count, rng: np.random.Generator) -> int:
    """A number between both ends, each as likely."""
    return int(rng.integers(ends[0], ends[1] + 1))


def _whole(value: Any, name: str, least: int) -> list[int]:
    parts = list(value) if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) else [value]
    for part in parts:
        if isinstance(part, (bool, np.bool_)) or not isinstance(part, Integral):
            raise ArgumentError(f"{name} must be made of whole numbers, not {value!r}")
        if part < least:
            raise ArgumentError(f"{name} must be at least {least}, but {value!r} reaches {part}")
    return [int(part) for part in parts]


def _ordered(low: int, high: int, name: str, value: Any) -> Count:
    if low > high:
        raise ArgumentError(f"{name} has a range the wrong way round: ({low}, {high}) in {value!r}; give the lower end first")
    return low, high
