"""Ranges as users of TorchIO give them, and other distributions of one number, checked when a transform is made."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from patchflow.errors import ArgumentError


class Uniform(NamedTuple):
    """Uniform between two ends; what a pair (low, high) stands for."""

    low: float
    high: float

    def at(self, share: float) -> float:
        """The number below which `share` (0 to 1) of all draws lie."""
        return self.low + (self.high - self.low) * share

    def draw(self, rng: np.random.Generator) -> float:
        """A number."""
        return self.at(float(rng.random()))


class Balanced(NamedTuple):
    """Uniform below a middle in half of the draws, uniform above it in the other half: as often less as more, however long each side.

    nnU-Net draws brightness, contrast and gamma so.
    """

    low: float
    high: float
    middle: float = 1.0

    def at(self, share: float) -> float:
        """The number below which `share` (0 to 1) of all draws lie."""
        if share < 0.5:
            return self.low + (self.middle - self.low) * 2 * share
        return self.middle + (self.high - self.middle) * (2 * share - 1)

    def draw(self, rng: np.random.Generator) -> float:
        """A number."""
        return self.at(float(rng.random()))


class Reciprocal(NamedTuple):
    """1 / x for x uniform between 1 / high and 1 / low.

    For scales drawn as nnU-Net draws them: uniform in how far apart the source's voxels are taken, not in the size of the anatomy.
    """

    low: float
    high: float

    def at(self, share: float) -> float:
        """The number below which `share` (0 to 1) of all draws lie."""
        return 1 / (1 / self.low + (1 / self.high - 1 / self.low) * share)

    def draw(self, rng: np.random.Generator) -> float:
        """A number."""
        return self.at(float(rng.random()))


Range = Uniform | Balanced | Reciprocal
Ranges = tuple[Range, Range, Range]
"""One for each axis I, J, K."""
RangeLike = float | Sequence[float] | Range
"""A number, a pair (low, high), or a distribution: `Balanced`, `Reciprocal`."""
RangesLike = float | Sequence[float] | Range | Sequence[Range]
"""A number, a pair for all axes, three numbers (one per axis), six (a pair per axis), a distribution for all axes, or three of them."""


@dataclass(frozen=True)
class Limits:
    """What a range may be.

    Attributes:
        around: the middle of the range that a single number stands for.
        one_sided: whether a single number x is (0, x) instead of (around - x, around + x).
        least, most: the least and the greatest allowed.
        above: what every value must exceed.
    """

    around: float = 0.0
    one_sided: bool = False
    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf


ANY = Limits()
NOT_NEGATIVE = Limits(one_sided=True, least=0.0)


def probability(value: Any, name: str) -> float:
    """Read a number from 0 to 1; raises `ArgumentError` otherwise."""
    number = _numbers(value, name)
    if len(number) != 1 or not 0 <= number[0] <= 1:
        raise ArgumentError(f"{name} is a probability and must be a number from 0 to 1, not {value!r}")
    return number[0]


def one_range(value: RangeLike, name: str, limits: Limits = ANY) -> Range:
    """Read a range: a number, a pair (low, high) or a distribution.

    Args:
        value: what the user gave.
        name: the argument's name, for the error.
        limits: what it may be.

    Raises:
        ArgumentError: for a range the wrong way round, a negative single number, values beyond the limits or not finite, or another length.
    """
    if isinstance(value, (Balanced, Reciprocal)):
        return _checked(value, name, value, limits)
    numbers = _numbers(value, name)
    if len(numbers) == 1:
        numbers = _spread(numbers[0], name, limits)
    if len(numbers) != 2:
        raise ArgumentError(f"{name} must be a number or a pair (low, high), not {value!r}")
    return _checked(Uniform(numbers[0], numbers[1]), name, value, limits)


def axis_ranges(value: RangesLike, name: str, limits: Limits = ANY) -> Ranges:
    """Read a range per axis I, J, K: x, (low, high), (xi, xj, xk) or (low_i, high_i, low_j, high_j, low_k, high_k), as TorchIO 1 does.

    Arguments and errors are those of `one_range`.
    """
    if isinstance(value, (Balanced, Reciprocal)):
        given = _checked(value, name, value, limits)
        return given, given, given
    parts: list[Any] = list(value) if isinstance(value, (list, tuple)) else []
    if len(parts) == 3 and all(isinstance(part, (Uniform, Balanced, Reciprocal)) for part in parts):
        i, j, k = (_checked(part, name, value, limits) for part in parts)
        return i, j, k
    numbers = _numbers(value, name)
    if len(numbers) not in (1, 2, 3, 6):
        raise ArgumentError(f"{name} must be a number, a pair, three numbers or six, not {value!r}")
    if len(numbers) in (1, 3):
        numbers = [end for number in numbers for end in _spread(number, name, limits)]
    numbers = numbers * (6 // len(numbers))
    i, j, k = (_checked(Uniform(low, high), name, value, limits) for low, high in zip(numbers[::2], numbers[1::2], strict=True))
    return i, j, k


def _numbers(value: Any, name: str) -> list[float]:
    parts = list(value) if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) else [value]
    for part in parts:
        if isinstance(part, (bool, np.bool_)) or not isinstance(part, Real) or not math.isfinite(part):
            raise ArgumentError(f"{name} must be made of finite numbers, not {value!r}")
    return [float(part) for part in parts]


def _spread(number: float, name: str, limits: Limits) -> list[float]:
    if number < 0:
        raise ArgumentError(f"{name} given as a single number must not be negative, as {number:g} is: give a pair (low, high)")
    return [0.0 if limits.one_sided else limits.around - number, number if limits.one_sided else limits.around + number]


def _checked(ends: Range, name: str, value: Any, limits: Limits) -> Range:
    ends = type(ends)(*_numbers(tuple(ends), name))
    if ends.low > ends.high:
        raise ArgumentError(f"{name} has a range the wrong way round: ({ends.low:g}, {ends.high:g}) in {value!r}; give the lower end first")
    if isinstance(ends, Balanced) and not ends.low <= ends.middle <= ends.high:
        raise ArgumentError(f"{name} must have its middle between its ends, but {value!r} has not")
    if ends.low <= (0.0 if isinstance(ends, Reciprocal) else limits.above):
        raise ArgumentError(f"{name} must be above {max(limits.above, 0.0):g}, but {value!r} reaches {ends.low:g}")
    if ends.low < limits.least:
        raise ArgumentError(f"{name} must be at least {limits.least:g}, but {value!r} reaches {ends.low:g}")
    if ends.high > limits.most:
        raise ArgumentError(f"{name} must be at most {limits.most:g}, but {value!r} reaches {ends.high:g}")
    return ends
