"""Patches from several samplers in stated shares."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation
from patchflow.sampling.base import Sampler, check_total, check_weight, cumulative, pick

if TYPE_CHECKING:
    from patchflow.cache import Entry


class MixedSampler(Sampler):
    """Draws one of several samplers, then a location from it.

    Distribution: part p is drawn with probability weight_p / sum of the weights, independently for every location; the location has the
    distribution of that part. `MixedSampler([(0.67, uniform), (0.33, LabelSampler(...))])` is nnU-Net's "a third of the patches hold
    foreground" (Isensee et al., 2021, doi:10.1038/s41592-020-01008-z), by chance and not by place in the batch.

    Args:
        parts: pairs of a weight, at least 0, and a sampler; all samplers have one patch size.

    Raises:
        ArgumentError: if there are no parts, weights cannot be used, or the patch sizes differ.
    """

    def __init__(self, parts: Sequence[tuple[float, Sampler]]) -> None:
        pairs = _check_parts(parts)
        super().__init__(pairs[0][1].patch_size)
        self.parts: tuple[tuple[float, Sampler], ...] = pairs
        self._sums = cumulative([weight for weight, _ in pairs])

    def draw(self, entry: "Entry", rng: np.random.Generator) -> PatchLocation:
        """Draw one location; see the class for the distribution. Raises what the part drawn raises."""
        return self.parts[pick(self._sums, rng)][1].draw(entry, rng)

    def check(self, entry: "Entry") -> None:
        """Raise what any part that can be drawn would raise for this subject."""
        for weight, sampler in self.parts:
            if weight > 0:
                sampler.check(entry)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-safe values; `parts` as pairs of weight and settings."""
        return {**super().to_dict(), "parts": [[weight, sampler.to_dict()] for weight, sampler in self.parts]}

    def __repr__(self) -> str:
        return f"MixedSampler({list(self.parts)!r})"


def _check_parts(parts: Sequence[tuple[float, Sampler]]) -> tuple[tuple[float, Sampler], ...]:
    """Parts with their weights normalised to add up to 1."""
    if not isinstance(parts, Iterable):
        raise ArgumentError(f"parts must be a list of pairs of a weight and a sampler, such as [(1, UniformSampler(96))], not {parts!r}")
    pairs: list[tuple[float, Sampler]] = []
    for number, part in enumerate(parts):
        if not isinstance(part, Sequence) or len(part) != 2 or not isinstance(part[1], Sampler):
            raise ArgumentError(
                f"parts must be pairs of a weight and a sampler, such as (0.67, UniformSampler(96)); part {number} is {part!r}"
            )
        pairs.append((check_weight(part[0], f"the weight of part {number}"), part[1]))
    check_total([weight for weight, _ in pairs], "the weights of the parts")
    sizes = {sampler.patch_size for _, sampler in pairs}
    if len(sizes) > 1:
        raise ArgumentError(f"the parts of a MixedSampler must share one patch size, not {sorted(sizes)}")
    total = sum(weight for weight, _ in pairs)
    return tuple((weight / total, sampler) for weight, sampler in pairs)
