"""What is checked, how strictly, and against which classes."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from patchflow.errors import ArgumentError
from patchflow.quality.findings import CHECKS
from patchflow.types import count

Names = dict[int, str]
"""Labels to the names of their classes."""


@dataclass(frozen=True)
class Settings:
    """As `check_subjects` says of its arguments.

    Attributes:
        classes: labels and names for every label map (under None) or for those named; empty where none are declared.
        island_voxels: parts of at most this many voxels are islands.
        outlier: robust z-score beyond which a subject is an outlier.
        skip: checks that are left out.
        pictures: whether mid-planes are drawn.
    """

    classes: dict[str | None, Names]
    island_voxels: int
    outlier: float
    skip: frozenset[str]
    pictures: bool

    def classes_of(self, image: str) -> Names | None:
        """Those declared for a label map; None if none are."""
        return self.classes.get(image, self.classes.get(None))


def settings_from(classes: Any, island_voxels: Any, outlier: Any, skip: Iterable[str], pictures: bool) -> Settings:
    """What the user gave, looked at.

    Raises:
        ArgumentError: for what cannot be used.
    """
    skipped = {skip} if isinstance(skip, str) else set(skip)
    if unknown := skipped - set(CHECKS) | skipped & {"readable", "failed"}:
        raise ArgumentError(
            f"skip names {sorted(unknown)}: the checks that can be skipped are {', '.join(sorted(set(CHECKS) - {'readable', 'failed'}))}"
        )
    if isinstance(outlier, bool) or not isinstance(outlier, Real) or not (math.isfinite(outlier) and float(outlier) > 0):
        raise ArgumentError(f"outlier must be a robust z-score above 0, not {outlier!r}: 5 is usual")
    return Settings(_classes(classes), count(island_voxels, "island_voxels", 0), float(outlier), frozenset(skipped), bool(pictures))


def _classes(given: Any) -> dict[str | None, Names]:
    if given is None:
        return {}
    if isinstance(given, Mapping) and given and all(isinstance(key, str) for key in given):
        return {key: _names(value) for key, value in given.items()}
    return {None: _names(given)}


def _names(given: Any) -> Names:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise ArgumentError(f"classes must be labels, or a mapping of labels to names such as {{1: 'liver', 2: 'tumour'}}, not {given!r}")
    names = dict(given.items()) if isinstance(given, Mapping) else {value: f"class {value}" for value in given}
    for value, name in names.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or not isinstance(name, str):
            raise ArgumentError(f"classes must map labels (integers) to names (texts), not {value!r} to {name!r}")
    return {int(value): name for value, name in names.items()}
