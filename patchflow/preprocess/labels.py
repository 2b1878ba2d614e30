"""Steps that change label maps: other numbers, fewer islands, regions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from patchflow.errors import ArgumentError, ImageError, UnknownNameError
from patchflow.images.labels import LABEL_DTYPES
from patchflow.images.volume import Volume
from patchflow.kernels.components import Connectivity, components
from patchflow.kernels.runs import label_runs
from patchflow.preprocess.base import Step, checked_keys, volume_named, where
from patchflow.preprocess.fields import chosen, set_fields
from patchflow.types import Array

Keys = tuple[str, ...] | None


@dataclass(frozen=True)
class RemapLabels(Step):
    """Give labels other numbers.

    All numbers change at once, so that {1: 2, 2: 1} swaps. The dtype stays if it holds the new numbers, else it becomes the first of uint8,
    int8, int16, int32 and int64 that holds them and the old ones.

    Args:
        mapping: old label to new label. Several may become one; then there is no way back.
        keys: names of label maps; None for every label map.
        others: what becomes of labels that are not in the mapping: "keep", "error", or a label for all of them.

    Raises:
        ImageError: when applied with `others="error"` to a label map that holds another label.
    """

    mapping: Mapping[int, int] | tuple[tuple[int, int], ...]
    keys: Keys = None
    others: Literal["keep", "error"] | int = "keep"

    def __post_init__(self) -> None:
        pairs = self.mapping.items() if isinstance(self.mapping, Mapping) else self.mapping
        if not isinstance(pairs, Iterable) or not pairs:
            raise ArgumentError(f"mapping must be a dict of old labels to new ones, not {self.mapping!r}")
        read = sorted((_label(old, "an old label"), _label(new, "a new label")) for old, new in pairs)
        if len({old for old, _ in read}) < len(read):
            raise ArgumentError(f"a label has two new ones in {read}")
        if isinstance(self.others, str):
            chosen(self.others, "others, unless it is a label,", ("keep", "error"))
        else:
            set_fields(self, others=_label(self.others, "others"))
        set_fields(self, mapping=tuple(read), keys=checked_keys(self.keys))

    def inverse(self) -> "RemapLabels":
        """The step that takes labels, such as those predicted, back to the old numbers.

        Raises:
            ArgumentError: where two labels become one, or labels that stay would be taken for others.
        """
        pairs = cast(tuple[tuple[int, int], ...], self.mapping)
        olds, news = {old for old, _ in pairs}, {new for _, new in pairs}
        if len(news) < len(pairs) or isinstance(self.others, int):
            raise ArgumentError(f"{self} makes one label of several, so that there is no way back")
        if self.others == "keep" and news - olds:
            raise ArgumentError(
                f'{self} keeps other labels, which could be {sorted(news - olds)} as well: say others="error" where there are none'
            )
        return RemapLabels({new: old for old, new in pairs}, self.keys, self.others)

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Look the labels up."""
        for key in _label_names(self.keys, volumes, subject_name):
            volumes[key] = replace(volumes[key], array=self._mapped(volumes[key].array, where(subject_name, key, volumes[key])))
        return volumes

    def _mapped(self, array: Array, what: str) -> Array:
        table = dict(cast(tuple[tuple[int, int], ...], self.mapping))
        runs = label_runs(array)  # labels come in long runs: each is looked up once
        present, places = np.unique(runs.values, return_inverse=True)
        missing = [label for label in present.tolist() if label not in table]
        if missing and self.others == "error":
            raise ImageError(f"{what}: holds the labels {missing[:10]}, for which RemapLabels has no new ones: add them, or set others")
        found = [table.get(label, label if isinstance(self.others, str) else self.others) for label in present.tolist()]
        values = np.array(found, _holding([*found, *table.values()], array.dtype))
        mapped: Array = np.repeat(values[places], runs.lengths).reshape(array.shape)
        return mapped


@dataclass(frozen=True)
class KeepLargest(Step):
    """Keep the largest connected component of each label; all other voxels of that label become 0.

    Of equally large ones the first in storage order stays. Channels are looked at one by one.

    Args:
        keys: names of label maps; None for every label map.
        labels: of these labels alone; None for all but 0.
        connectivity: 6 (voxels that share a face are connected), 18 (a face or an edge) or 26 (a corner too).
    """

    keys: Keys = None
    labels: tuple[int, ...] | None = None
    connectivity: Connectivity = 6

    def __post_init__(self) -> None:
        set_fields(self, keys=checked_keys(self.keys))
        if self.labels is not None:
            given = self.labels if isinstance(self.labels, Iterable) else (self.labels,)
            set_fields(self, labels=tuple(sorted({_label(label, "a label") for label in given})))
            if not self.labels or 0 in self.labels:
                raise ArgumentError(f"labels must be one or more labels other than 0, or None, not {self.labels!r}")
        if self.connectivity not in (6, 18, 26):
            raise ArgumentError(f"connectivity must be 6, 18 or 26, not {self.connectivity!r}")

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Remove the islands."""
        for key in _label_names(self.keys, volumes, subject_name):
            array = volumes[key].array
            islands = [self._islands(channel) for channel in array]
            if any(positions.size for positions in islands):
                array = array.copy()
                for channel, positions in zip(array, islands, strict=True):
                    channel.reshape(-1)[positions] = 0
                volumes[key] = replace(volumes[key], array=array)
        return volumes

    def _islands(self, channel: Array) -> Array:
        """Positions of the voxels that go."""
        found = components(channel, self.connectivity)
        sizes = np.bincount(found.component, weights=found.lengths, minlength=len(found.starts))
        order = np.lexsort((np.arange(len(sizes)), -sizes))
        order = order[sizes[order] > 0]
        _, first = np.unique(found.values[order], return_index=True)  # the first is the largest
        largest = order[first]
        kept = np.isin(found.component, largest)
        if self.labels is not None:
            kept |= ~np.isin(found.values, self.labels)
        starts, lengths = found.starts[~kept], found.lengths[~kept]
        ends = np.cumsum(lengths)
        return np.repeat(starts - (ends - lengths), lengths) + np.arange(int(ends[-1]) if len(ends) else 0)


@dataclass(frozen=True)
class OneHotRegions(Step):
    """Make a label map of one channel for each region of another: 1 where a voxel's label is of the region, else 0 (uint8).

    Regions may overlap, such as "whole tumour" and "tumour core". Channels are in the order of the regions.

    Args:
        regions: label, or labels, of each region: a list, or a dict whose keys say what they are.
        keys: names of label maps of one channel; None for every label map.
    """

    regions: Any
    keys: Keys = None

    def __post_init__(self) -> None:
        given = list(self.regions.values()) if isinstance(self.regions, Mapping) else self.regions
        if not isinstance(given, (list, tuple)) or not given:
            raise ArgumentError(f"regions must be a list or dict of labels, not {self.regions!r}")
        sets = [part if isinstance(part, (list, tuple, set, frozenset)) else (part,) for part in given]
        if not all(sets):
            raise ArgumentError(f"a region has no label in {self.regions!r}")
        read = tuple(tuple(sorted({_label(label, "a region's label") for label in part})) for part in sets)
        set_fields(self, regions=read, keys=checked_keys(self.keys))

    def apply(self, volumes: dict[str, Volume], subject_name: str) -> dict[str, Volume]:
        """Make the channels."""
        for key in _label_names(self.keys, volumes, subject_name):
            volume = volumes[key]
            if volume.channels != 1:
                raise ImageError(f"{where(subject_name, key, volume)}: has {volume.channels} channels, and regions are made of one")
            runs = label_runs(volume.array)
            array = np.stack([np.repeat(np.isin(runs.values, region), runs.lengths) for region in self.regions]).view(np.uint8)
            array = array.reshape(len(self.regions), *volume.spatial_shape)
            volumes[key] = replace(volume, array=array)
        return volumes


def _label_names(keys: Keys, volumes: Mapping[str, Volume], subject_name: str) -> list[str]:
    if keys is None:
        found = [key for key, volume in volumes.items() if volume.kind == "label"]
        if not found:
            raise UnknownNameError(f"subject {subject_name!r} has no label map: it has {', '.join(map(repr, volumes))}")
        return found
    for key in keys:
        if volume_named(key, volumes, subject_name).kind != "label":
            raise ArgumentError(f"image {key!r} of subject {subject_name!r} is a scalar image, which has no labels: leave it out of keys")
    return list(keys)


def _label(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ArgumentError(f"{what} must be an integer, not {value!r}")
    return int(value)


def _holding(labels: list[int], dtype: Any) -> Any:
    for each in (dtype, *LABEL_DTYPES):
        if np.iinfo(each).min <= min(labels) and max(labels) <= np.iinfo(each).max:
            return each
    raise ArgumentError(f"the labels {min(labels)} to {max(labels)} do not fit a 64-bit integer")
