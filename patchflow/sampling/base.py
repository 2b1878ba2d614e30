"""What every sampler is: an entry and a generator go in, a location comes out; pixels are never touched."""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from patchflow.errors import ArgumentError, UnknownNameError
from patchflow.geometry.location import PatchLocation, clamped, last_start
from patchflow.types import Int3, SizeLike, int3

if TYPE_CHECKING:
    from patchflow.cache import Entry, ImageRecord

Fallback = Literal["uniform"] | None
"""What a sampler does with a subject that has nothing to aim at: raise (None), or draw uniformly ("uniform")."""


class Sampler(ABC):
    """Draws where the patches of a subject lie.

    A sampler holds settings alone, so it can be pickled and shared by workers, and the same generator state always gives the same location.
    One of your own implements `draw`; it overrides `check` if some subjects do not suit it, and `to_dict` if it has settings beside the
    patch size.

    Args:
        patch_size: voxels along I, J, K: an int for all three, or three ints.

    Raises:
        ArgumentError: if `patch_size` is not in whole voxels of at least 1.
    """

    def __init__(self, patch_size: SizeLike) -> None:
        self.patch_size: Int3 = int3(patch_size, "patch_size")

    @abstractmethod
    def draw(self, entry: "Entry", rng: np.random.Generator) -> PatchLocation:
        """Draw one location.

        Args:
            entry: the subject to draw from.
            rng: the only source of randomness; it is advanced.

        Returns:
            A location of `patch_size`. Parts of it hang over the border only along axes where the patch is larger than the volume.

        Raises:
            SamplerError: if nothing can be drawn from this subject.
            UnknownNameError: if the subject lacks the image that the sampler reads.
        """

    def check(self, entry: "Entry") -> None:  # noqa: B027  (a sampler that suits every subject has nothing to add)
        """Raise what `draw` would raise for this subject, reading no voxel: for use before the training starts."""

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-safe values; samplers with equal settings draw the same locations from the same generators."""
        kind = type(self)
        own = kind.__module__.startswith("patchflow.")
        return {"type": kind.__name__ if own else f"{kind.__module__}.{kind.__qualname__}", "patch_size": list(self.patch_size)}

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that stand for the settings; a resumed run compares them."""
        settings = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(settings.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        settings = {key: value for key, value in self.to_dict().items() if key != "type"} | {"patch_size": self.patch_size}
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"


def uniform_location(shape: Int3, patch_size: Int3, rng: np.random.Generator) -> PatchLocation:
    """A patch at a start drawn uniformly from all starts at which it lies in a volume of `shape` (I, J, K).

    Along an axis where the patch is as large as the volume or larger there is one start, at which the overhang is shared between both
    sides, and no number is drawn.
    """
    i, j, k = (int(rng.integers(n + 1)) if n else 0 for n in last_start(patch_size, shape))
    return clamped((i, j, k), patch_size, shape)


def cumulative(weights: Sequence[float]) -> list[float]:
    """Cumulative sums of weights in float64, divided by the total, so that the last is exactly 1.

    `weights` holds at least one positive number and no negative one.
    """
    sums = list(accumulate(weights))  # Python floats are float64; numpy would be slower for the few classes there are
    return [value / sums[-1] for value in sums]


def pick(sums: Sequence[float], rng: np.random.Generator) -> int:
    """Draw an index with the probabilities whose cumulative sums are `sums`; an index of weight 0 is never drawn."""
    return bisect_right(sums, rng.random())


def check_weight(value: Any, what: str) -> float:
    """Return a weight as a float; raises `ArgumentError` unless it is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentError(f"{what} must be a number of at least 0, not {value!r}")
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ArgumentError(f"{what} must be a finite number of at least 0, not {value!r}")
    return number


def check_total(weights: Sequence[float], what: str) -> None:
    """Raise `ArgumentError` unless the weights add up to a finite number above 0."""
    total = sum(weights)
    if not math.isfinite(total) or total <= 0:
        raise ArgumentError(f"{what} must add up to a finite number above 0, not {total!r}: give at least one a positive weight")


def check_fallback(fallback: Any) -> Fallback:
    """Return `fallback` if it is None or "uniform"; raises `ArgumentError` otherwise."""
    if fallback is None or fallback == "uniform":
        return fallback  # type: ignore[no-any-return]
    raise ArgumentError(f'fallback must be None (raise an error) or "uniform" (draw uniformly), not {fallback!r}')


def check_name(name: Any, what: str) -> str:
    """Return `name` if it can be the name of an image; raises `ArgumentError` otherwise."""
    if not isinstance(name, str) or not name:
        raise ArgumentError(f'{what} must be the name of an image of the subjects, such as "label", not {name!r}')
    return name


def find_record(entry: "Entry", name: str, what: str) -> "ImageRecord":
    """The record of an image of an entry; raises `UnknownNameError`, naming the subject and its images, if there is none."""
    record = entry.images.get(name)
    if record is None:
        known = ", ".join(f'"{key}"' for key in entry.images)
        raise UnknownNameError(
            f'{what}="{name}" of the sampler: subject "{entry.name}" has no image of that name, it has {known or "none"}'
        )
    return record
