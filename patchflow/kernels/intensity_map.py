"""What a stored voxel means: a gain, a bias and a clamp; before them a curve, where values were standardised piece by piece."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from patchflow.errors import ArgumentError
from patchflow.kernels.jit import kernel

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A piecewise linear function through points; beyond the outermost points, the outermost pieces go on.

    Attributes:
        places: of the points: two or more, each above the one before.
        values: at the places, none below the one before.
        before: the map that is done first, so that places are among its values.
    """

    places: tuple[float, ...]
    values: tuple[float, ...]
    before: "IntensityMap"

    def __post_init__(self) -> None:
        for name in ("places", "values"):
            object.__setattr__(self, name, tuple(float(number) for number in getattr(self, name)))
        rising = all(a < b for a, b in pairwise(self.places)) and all(a <= b for a, b in pairwise(self.values))
        if len(self.places) != len(self.values) or len(self.places) < 2 or not rising:
            raise ArgumentError(f"the points of a curve must rise, at two or more places, not from {self.places} to {self.values}")
        with np.errstate(all="ignore"):
            if not np.isfinite(self.points()).all():
                raise ArgumentError(f"the points of a curve must be finite and not too close, not from {self.places} to {self.values}")

    def points(self) -> tuple[Floats, Floats, Floats]:
        """Places, values, and the slope from each point to the next (of the last: to the last), float64 (n,) each."""
        places, values = np.array(self.places), np.array(self.values)
        slopes = np.diff(values) / np.diff(places)
        return places, values, np.append(slopes, slopes[-1])


@dataclass(frozen=True)
class IntensityMap:
    """value = clip(gain * x + bias, low, high), computed per voxel in float64 and rounded once to float32; x is the stored voxel, or what
    the curve makes of it.

    Attributes:
        gain: finite and not 0.
        bias: finite.
        low: the least value as read; -inf for no limit.
        high: the greatest value as read; inf for no limit; not below `low`.
        curve: what is done first; None for nothing. Stored voxels of 8- and 16-bit integers alone are kept with one.
    """

    gain: float = 1.0
    bias: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    curve: Curve | None = None

    def __post_init__(self) -> None:
        for name in ("gain", "bias", "low", "high"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if not math.isfinite(self.gain) or self.gain == 0:
            raise ArgumentError(f"the gain of an intensity map must be finite and not 0, not {self.gain!r}")
        if not math.isfinite(self.bias):
            raise ArgumentError(f"the bias of an intensity map must be finite, not {self.bias!r}")
        if not self.low <= self.high:
            raise ArgumentError(f"the limits of an intensity map must be low <= high, not {self.low!r} and {self.high!r}")

    @property
    def has_clamp(self) -> bool:
        """Whether values are limited on either side."""
        return self.low > -math.inf or self.high < math.inf

    @property
    def is_identity(self) -> bool:
        """Whether values as read are the stored values (rounded to float32)."""
        return self.gain == 1 and self.bias == 0 and not self.has_clamp and self.curve is None

    def then(self, other: "IntensityMap") -> "IntensityMap":
        """The map that does this one first and `other` on its result: gain, bias and clamp are composed, a curve of `other` follows.

        Raises:
            ArgumentError: when the composed gain is not finite or vanishes in float64.
        """
        if other.curve is not None:
            return replace(other, curve=replace(other.curve, before=self.then(other.curve.before)))
        ends = sorted(other.gain * limit + other.bias for limit in (self.low, self.high))  # a negative gain swaps the limits
        low, high = (min(max(end, other.low), other.high) for end in ends)
        return IntensityMap(other.gain * self.gain, other.gain * self.bias + other.bias, low, high, self.curve)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a missing limit is None, as JSON has no infinity."""
        low = self.low if math.isfinite(self.low) else None
        high = self.high if math.isfinite(self.high) else None
        plain = {"gain": self.gain, "bias": self.bias, "low": low, "high": high}
        if self.curve is None:
            return plain
        curve = {"before": self.curve.before.to_dict(), "places": list(self.curve.places), "values": list(self.curve.values)}
        return {"curve": curve, "then": plain}  # without a gain of its own: who knows no curves must not read on

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "IntensityMap":
        """The map written by `to_dict`."""
        if "curve" in values:
            curve = values["curve"]
            found = Curve(tuple(curve["places"]), tuple(curve["values"]), cls.from_dict(curve["before"]))
            return replace(cls.from_dict(values["then"]), curve=found)
        low, high = values["low"], values["high"]
        return cls(values["gain"], values["bias"], -math.inf if low is None else low, math.inf if high is None else high)


def exact_values(stored: npt.ArrayLike, intensities: IntensityMap) -> Floats:
    """Values of stored voxels before they are rounded to float32: float64, of the shape of `stored`.

    It agrees with `plain_exact_values` bit for bit.
    """
    m, x = intensities, np.asarray(stored, np.float64)
    if m.curve is not None:
        x = exact_values(x, m.curve.before)
        out = np.empty(x.shape)
        _follow(np.ascontiguousarray(x).reshape(-1), *m.curve.points(), out.reshape(-1))
        x = out
    x = x * m.gain + m.bias
    return _limited(x, m) if m.has_clamp else x


def plain_exact_values(stored: npt.ArrayLike, intensities: IntensityMap) -> Floats:
    """The plain twin of `exact_values`."""
    m, x = intensities, np.asarray(stored, np.float64)
    if m.curve is not None:
        places, values, slopes = m.curve.points()
        x = plain_exact_values(x, m.curve.before)
        piece = np.maximum(np.searchsorted(places, x, side="right") - 1, 0)
        x = values[piece] + slopes[piece] * (x - places[piece])
    return _limited(x * m.gain + m.bias, m)


def _limited(x: Floats, intensities: IntensityMap) -> Floats:
    """As kernels do it: a -0.0 at a limit of 0 stays, where `np.clip` makes it 0.0."""
    x = np.where(x < intensities.low, intensities.low, x)
    return np.where(x > intensities.high, intensities.high, x)


@kernel
def _follow(x, places, values, slopes, out):  # type: ignore[no-untyped-def]
    """From the piece of the voxel before, as neighbours mostly share one."""
    piece, last = 0, places.size - 1
    for q in range(x.size):
        while piece < last and x[q] >= places[piece + 1]:
            piece += 1
        while piece > 0 and x[q] < places[piece]:
            piece -= 1
        out[q] = values[piece] + slopes[piece] * (x[q] - places[piece])
