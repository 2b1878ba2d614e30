"""Patches around voxels of chosen classes."""

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from patchflow.errors import ArgumentError, SamplerError
from patchflow.geometry.location import PatchLocation, centred_on
from patchflow.sampling.base import (
    Fallback,
    Sampler,
    check_fallback,
    check_name,
    check_total,
    check_weight,
    cumulative,
    find_record,
    pick,
    uniform_location,
)
from patchflow.types import SizeLike

if TYPE_CHECKING:
    from patchflow.cache import Entry


class LabelSampler(Sampler):
    """Draws a class, then a voxel of it, then the patch around that voxel: patches that are balanced over classes.

    Distribution:
        - class: in proportion to `probabilities`, renormalised over the classes that the subject has (so they weigh classes, not voxels: a
          class of one voxel is drawn as often as one of a million with the same weight);
        - voxel: uniform among the voxels of that class, border voxels included. With several channels and `channel=None` the channels are
          pooled: every pair of a channel and a voxel where that channel holds the class is equally likely;
        - location: the patch with that voxel at index `size // 2`, moved as little as needed to lie in the volume; along an axis where the
          patch is larger than the volume, the volume is centred in it. The location's `target` is the class.

    Args:
        patch_size: voxels along I, J, K: an int for all three, or three ints.
        label: name of the label map.
        probabilities: weight of each class (label value), at least 0; classes not named are never aimed at. None gives all classes that the
            subject has equal weights, background (0) included.
        channel: the one channel of the label map to look at, counted from 0; None pools all channels.
        fallback: what to do with a subject that has none of the classes: None raises, "uniform" draws as `UniformSampler` does.

    Raises:
        ArgumentError: if an argument cannot be used: a weight that is negative or not finite, weights that are all zero, a class that is
            not an int.
    """

    def __init__(
        self,
        patch_size: SizeLike,
        label: str = "label",
        probabilities: Mapping[int, float] | None = None,
        channel: int | None = None,
        fallback: Fallback = None,
    ) -> None:
        super().__init__(patch_size)
        self.label = check_name(label, "label")
        self.probabilities = None if probabilities is None else _check_probabilities(probabilities)
        self.channel = None if channel is None else _check_channel(channel)
        self.fallback = check_fallback(fallback)

    def draw(self, entry: "Entry", rng: np.random.Generator) -> PatchLocation:
        """Draw one location; see the class for the distribution.

        Raises:
            UnknownNameError: if the subject has no image of that name.
            SamplerError: if the image is not a label map with that channel, or has none of the classes and there is no fallback.
        """
        self._check_image(entry)
        index = entry.label_index(self.label)
        counts = {value: index.count(value, self.channel) for value in self._wanted(index.classes)}
        values = [value for value, count in counts.items() if count > 0]
        if not values:
            if self.fallback is None:
                raise self._no_class(entry, index.classes)
            return uniform_location(entry.shape, self.patch_size, rng)
        weights = self.probabilities
        value = values[pick(cumulative([1.0 if weights is None else weights[value] for value in values]), rng)]
        _, i, j, k = index.voxel(value, int(rng.integers(counts[value])), self.channel)
        return centred_on((i, j, k), self.patch_size, entry.shape, target=value)

    def check(self, entry: "Entry") -> None:
        """Raise what `draw` would raise for this subject; reads the record of the label map and, for one channel of several, its index."""
        channels = self._check_image(entry)
        if self.fallback is not None:
            return
        counts: Mapping[int, int] = entry.images[self.label].classes
        if self.channel is not None and channels > 1:  # the record pools the channels
            index = entry.label_index(self.label)
            counts = {value: index.count(value, self.channel) for value in index.classes}
        if not any(counts.get(value, 0) for value in self._wanted(tuple(counts))):
            raise self._no_class(entry, tuple(value for value, count in counts.items() if count))

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-safe values; `probabilities` as pairs of class and weight, in the order of the classes."""
        pairs = None if self.probabilities is None else [[value, weight] for value, weight in self.probabilities.items()]
        return {**super().to_dict(), "label": self.label, "probabilities": pairs, "channel": self.channel, "fallback": self.fallback}

    def __repr__(self) -> str:
        return (
            f"LabelSampler(patch_size={self.patch_size!r}, label={self.label!r}, probabilities={self.probabilities!r}, "
            f"channel={self.channel!r}, fallback={self.fallback!r})"
        )

    def _wanted(self, classes: tuple[int, ...]) -> list[int]:
        """The classes to aim at, if the subject has them."""
        if self.probabilities is None:
            return list(classes)
        return [value for value, weight in self.probabilities.items() if weight > 0]

    def _check_image(self, entry: "Entry") -> int:
        """Raise unless the image is a label map with the channel asked for; returns its number of channels."""
        record = find_record(entry, self.label, "label")
        image = f'image "{self.label}" of subject "{entry.name}"'
        if record.kind != "label":
            raise SamplerError(f"{image} has no classes to draw from: it is not a LabelMap. Make it one, or use WeightedSampler")
        if self.channel is not None and self.channel >= record.channels:
            raise SamplerError(f"{image} has no channel {self.channel}: its channels are 0 to {record.channels - 1}. Mend channel=")
        return int(record.channels)

    def _no_class(self, entry: "Entry", classes: tuple[int, ...]) -> SamplerError:
        where = "" if self.channel is None else f" in channel {self.channel}"
        return SamplerError(
            f'image "{self.label}" of subject "{entry.name}" has none of the classes {self._wanted(())}{where}: it has {list(classes)}. '
            f'Give one of those a weight in probabilities, leave the subject out, or give the sampler fallback="uniform"'
        )


def _check_probabilities(probabilities: Any) -> dict[int, float]:
    """Probabilities in the order of the classes, so that the order in which they were given does not matter."""
    if not isinstance(probabilities, Mapping):
        raise ArgumentError(f"probabilities must map classes to weights, such as {{0: 1, 1: 2}}, not {probabilities!r}")
    for value in probabilities:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ArgumentError(f"probabilities must map classes, which are ints, to weights: {value!r} is not an int")
    weights = {int(value): check_weight(probabilities[value], f"the weight of class {value}") for value in sorted(probabilities)}
    check_total(list(weights.values()), "the weights in probabilities")
    return weights


def _check_channel(channel: Any) -> int:
    if isinstance(channel, bool) or not isinstance(channel, Integral) or channel < 0:
        raise ArgumentError(f"channel must be None (all channels pooled) or a channel of the label map, counted from 0, not {channel!r}")
    return int(channel)
