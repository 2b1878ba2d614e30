"""Checks of one label map, from the runs of its labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import numpy.typing as npt

from patchflow.kernels.components import Components, components
from patchflow.quality.facts import LabelClass
from patchflow.quality.findings import Finding
from patchflow.quality.reading import Stored
from patchflow.quality.settings import Names, Settings
from patchflow.types import Array, Int3

SHORT = 0.25
"""Where more voxels than this differ from the next in memory, a label map holds no regions, but intensities or noise."""

PLANES = 8
"""From so many planes that is seen."""

LISTED = 6


@dataclass(frozen=True, eq=False)
class LabelSummary:
    """What is kept of a label map.

    Attributes:
        classes: without 0, ascending, all channels together.
        islands: by label, the sizes of the parts of at most `Settings.island_voxels` voxels that touch no other label, and where the first
            of them begins (I, J, K).
        middle: the planes along I, J and K that hold most labels; None where there are none.
        torn: whether it holds no regions, so that nothing was counted.
    """

    classes: tuple[LabelClass, ...] = ()
    islands: dict[int, tuple[list[int], Int3]] | None = None
    middle: Int3 | None = None
    torn: bool = False


def summary(stored: Stored, millilitres: float, island_voxels: int) -> LabelSummary:
    """Go through a label map once.

    Args:
        stored: a label map.
        millilitres: of a voxel.
        island_voxels: parts of at most this many voxels are islands.
    """
    counts: dict[int, int] = {}
    parts: dict[int, int] = {}
    islands: dict[int, tuple[list[int], Int3]] = {}
    assert stored.labels is not None  # it has been read
    along = [np.zeros(n, np.int64) for n in stored.labels.shape[1:]]
    for channel in stored.labels:
        if _is_torn(channel):
            return LabelSummary(torn=True)
        found = components(channel, 26)
        _count_voxels(found, counts, along)
        _count_parts(found, channel, island_voxels, parts, islands)
    classes = tuple(LabelClass(value, counts[value], counts[value] * millilitres, parts[value]) for value in sorted(counts))
    if stored.turned:
        along, islands = along[::-1], {value: (sizes, (i, j, k)) for value, (sizes, (k, j, i)) in islands.items()}
    i, j, k = (int(np.argmax(numbers)) for numbers in along)
    return LabelSummary(classes, islands, (i, j, k) if counts else None)


def _is_torn(channel: Array) -> bool:
    """Whether neighbours differ at many places, seen from some planes: the memory that runs take goes with their number."""
    if channel.shape[2] < 2:
        return False
    planes = channel[:: max(len(channel) // PLANES, 1)]
    changes = np.count_nonzero(planes[..., 1:] != planes[..., :-1])
    return planes.size > 1000 and int(changes) > SHORT * planes.size


def _count_voxels(found: Components, counts: dict[int, int], along: list[npt.NDArray[np.int64]]) -> None:
    values, inverse = np.unique(found.values, return_inverse=True)
    for value, voxels in zip(values, np.bincount(inverse, found.lengths, len(values)), strict=True):
        counts[int(value)] = counts.get(int(value), 0) + int(voxels)
    ni, nj, nk = map(len, along)
    rows, firsts = np.divmod(found.starts, nk)
    planes = np.bincount(rows, found.lengths, ni * nj).astype(np.int64).reshape(ni, nj)
    along[0] += planes.sum(axis=1)
    along[1] += planes.sum(axis=0)
    changes = np.bincount(firsts, minlength=nk + 1) - np.bincount(firsts + found.lengths, minlength=nk + 1)
    along[2] += np.cumsum(changes)[:nk]


def _count_parts(found: Components, channel: Array, most: int, parts: dict[int, int], islands: dict[int, tuple[list[int], Int3]]) -> None:
    """Count the parts of each class, and list those that are small and have nothing but 0 around them, unless the class has no other."""
    roots = np.flatnonzero(found.component == np.arange(len(found.component)))
    sizes = np.bincount(found.component, found.lengths, len(found.component))[roots].astype(np.int64)
    values = found.values[roots]
    for value in np.unique(values):
        own = values == value
        parts[int(value)] = parts.get(int(value), 0) + int(own.sum())
        small = np.flatnonzero(own & (sizes <= most))
        if len(small) and len(small) < own.sum():
            small = small[_alone(found, roots[small], channel)]
        if len(small) and len(small) < own.sum():
            i, j, k = (int(place) for place in np.unravel_index(int(found.starts[roots[small[0]]]), channel.shape))
            listed, first = islands.get(int(value), ([], (i, j, k)))
            islands[int(value)] = listed + [int(size) for size in sizes[small]], first


def _alone(found: Components, parts: npt.NDArray[np.int64], channel: Array) -> npt.NDArray[np.bool_]:
    """Which small parts, given by their first runs, ascending, touch no voxel of another label."""
    runs = np.flatnonzero(np.isin(found.component, parts))
    lengths = found.lengths[runs]
    voxels = np.repeat(found.starts[runs] - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
    places = np.stack(np.unravel_index(voxels, channel.shape), axis=-1)
    own, touching = channel.reshape(-1)[voxels], np.zeros(len(voxels), bool)
    for step in product((-1, 0, 1), repeat=3):
        beside = channel[tuple(np.clip(places + step, 0, np.array(channel.shape) - 1).T)]
        touching |= (beside != 0) & (beside != own)
    touched = np.zeros(len(parts), bool)
    np.logical_or.at(touched, np.searchsorted(parts, np.repeat(found.component[runs], lengths)), touching)
    return ~touched


def label_findings(subject: str, image: str, found: LabelSummary, shape: tuple[int, ...], settings: Settings) -> Iterator[Finding]:
    """Labels that were not declared, none at all, islands, and intensities that were taken for labels."""
    if found.torn:
        yield Finding(
            "error",
            "labels",
            subject,
            image,
            "neighbours differ almost everywhere: it holds intensities or noise, not regions",
            "read it as a ScalarImage, or give the right file",
        )
        return
    declared = settings.classes_of(image)
    yield from _wrong_labels(subject, image, found, declared)
    if not found.classes:
        yield Finding(
            "warning",
            "empty",
            subject,
            image,
            f"no voxel of {prod(shape)} holds a label other than 0",
            "if nothing was found there, skip the check 'empty'; else segment it, or give the right file",
        )
    for value, (sizes, first) in (found.islands or {}).items():
        parts = next(part.parts for part in found.classes if part.value == value)
        yield Finding(
            "note",
            "islands",
            subject,
            image,
            f"{_called(value, declared)} has {len(sizes)} of its {parts} parts of at most {settings.island_voxels} voxels and "
            f"alone in the background ({sum(sizes)} voxels in all), the first at {first}",
            "look at it, and remove what is a slip of the pen; or raise or lower island_voxels",
        )


def _wrong_labels(subject: str, image: str, found: LabelSummary, declared: Names | None) -> Iterator[Finding]:
    if declared is not None:
        strange = [part for part in found.classes if part.value not in declared]
        known = ", ".join(map(str, sorted({0, *declared})))
        if strange:
            yield Finding(
                "error",
                "labels",
                subject,
                image,
                f"holds {_listed(strange)}, and the classes declared are {known}",
                "declare them, or remap the labels",
            )
    elif negative := [part for part in found.classes if part.value < 0]:
        yield Finding(
            "warning",
            "labels",
            subject,
            image,
            f"holds negative labels: {_listed(negative)}",
            "declare the classes if they are meant; else remap them",
        )


def _called(value: int, declared: Names | None) -> str:
    name = (declared or {}).get(value)
    return f"label {value}" if name is None else f"label {value} ({name})"


def _listed(parts: list[LabelClass]) -> str:
    shown = ", ".join(f"{part.value} ({part.voxels} voxels)" for part in parts[:LISTED])
    return shown + (f" and {len(parts) - LISTED} more" if len(parts) > LISTED else "")
