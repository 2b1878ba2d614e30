"""Drawing some of several transforms: `OneOf`, `SomeOf`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from patchflow.augment.base import IntensityTransform, SpatialTransform, Transform
from patchflow.augment.foreign import Foreign
from patchflow.augment.ranges import probability
from patchflow.errors import ArgumentError
from patchflow.types import count

Leaf = Transform | Foreign
"""What changes patches."""


class Choice:
    """Some of several transforms, drawn anew for each patch.

    Those that are chosen apply in the order of the list, each with its own `p`; spatial ones compose with the recipe's others.

    Args:
        transforms: transforms, functions of a sample, choices, or lists of them (of which all apply).
        weights: how often each is chosen, in proportion; None for alike.
        p: probability of choosing any.
    """

    def __init__(self, transforms: Iterable[Any], weights: Sequence[float] | None, p: float) -> None:
        self.transforms = [node_of(transform) for transform in transforms]
        if not self.transforms:
            raise ArgumentError(f"{type(self).__name__} needs transforms to choose from")
        self.weights = _shares(weights, len(self.transforms), type(self).__name__)
        self.p = probability(p, "p")

    def number(self, rng: np.random.Generator) -> int:
        """How many are chosen."""
        return 1

    def choose(self, rng: np.random.Generator) -> list[bool]:
        """Which are chosen."""
        chosen = [False] * len(self.transforms)
        if rng.random() < self.p:
            for place in rng.choice(len(self.transforms), size=self.number(rng), replace=False, p=self.weights):
                chosen[int(place)] = True
        return chosen

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.transforms!r})"


class OneOf(Choice):
    """One of several transforms.

    Args:
        transforms: as a list, or as a dict of transform to weight.
        weights: how often each is chosen, in proportion; None for alike.
        p: probability of choosing any.

    Raises:
        ArgumentError: for no transforms, weights that do not fit, or a `p` outside 0 to 1.
    """

    def __init__(self, transforms: Iterable[Any] | Mapping[Any, float], weights: Sequence[float] | None = None, *, p: float = 1.0) -> None:
        if isinstance(transforms, Mapping):
            if weights is not None:
                raise ArgumentError("give weights in the dict of transforms, or as `weights`, not both")
            weights = list(transforms.values())
        super().__init__(transforms, weights, p)


class SomeOf(Choice):
    """A number of several transforms, none twice.

    Args:
        transforms: to choose from.
        number_of: how many: an int, or a pair (least, most) from which the number is drawn uniformly.
        weights: how often each is chosen, in proportion; None for alike.
        p: probability of choosing any.

    Raises:
        ArgumentError: for no transforms, more than there are, weights that do not fit, or a `p` outside 0 to 1.
    """

    def __init__(
        self, transforms: Iterable[Any], number_of: int | tuple[int, int] = 1, weights: Sequence[float] | None = None, *, p: float = 1.0
    ) -> None:
        super().__init__(transforms, weights, p)
        pair = tuple(number_of) if isinstance(number_of, (list, tuple)) else (number_of, number_of)
        if len(pair) != 2:
            raise ArgumentError(f"number_of must be an int or a pair (least, most), not {number_of!r}")
        self.least, self.most = (count(end, "number_of", 0) for end in pair)
        possible = len(self.transforms) if self.weights is None else sum(share > 0 for share in self.weights)
        if not self.least <= self.most <= possible:
            raise ArgumentError(f"number_of must be ordered and at most {possible}, the transforms to choose from, not {number_of!r}")

    def number(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.least, self.most + 1))


def node_of(given: Any) -> "Leaf | Choice | list[Any]":
    """A transform, a choice, a list of them, or a callable made a transform.

    Raises:
        ArgumentError: for anything else.
    """
    if isinstance(given, (SpatialTransform, IntensityTransform, Choice)):
        return given
    if isinstance(given, (list, tuple)):
        return [node_of(part) for part in given]
    if isinstance(given, (type, Transform)) or not callable(given):
        raise ArgumentError(
            f"a recipe takes instances of SpatialTransform and IntensityTransform, OneOf, SomeOf, and functions of a sample dict, "
            f"not {given!r}"
        )
    return Foreign(given)


def leaves_of(node: Any) -> list[Leaf]:
    """All transforms that a node may apply, in order."""
    parts = node.transforms if isinstance(node, Choice) else node
    return [leaf for part in parts for leaf in leaves_of(part)] if isinstance(parts, list) else [node]


def _shares(weights: Sequence[float] | None, number: int, name: str) -> list[float] | None:
    if weights is None:
        return None
    given = [float(weight) for weight in weights]
    if len(given) != number or not all(0 <= weight < float("inf") for weight in given) or not sum(given) > 0:
        raise ArgumentError(f"the weights of {name} must be {number} numbers of at least 0, one of them above, not {list(weights)!r}")
    return [weight / sum(given) for weight in given]
