"""Checks of one label map, from the runs of its labels."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from patchflow.kernels.components import Components, RunFinder, joined
from patchflow.quality.facts import LabelClass
from patchflow.quality.findings import Finding
from patchflow.quality.settings import Names, Settings
from patchflow.types import Array, Int3

MANY, SHORT = 0.05, 2.0
"""Where runs of labels are more than this share of the voxels, and shorter than so many voxels on average, a label map holds no regions,
but intensities or noise."""

FEW = 1000
"""Of fewer voxels that cannot be told."""

LISTED = 6


@dataclass(frozen=True, eq=False)
class LabelSummary:
    """What is kept of a label map.

    Attributes:
        classes: without 0, ascending, all channels together.
        islands: by label, the sizes of the parts of at most `Settings.island_voxels` voxels that touch no other label, and where the first
            of them begins (I, J, K).
        torn: whether it holds no regions, so that nothing was counted.
    """

    classes: tuple[LabelClass, ...] = ()
    islands: dict[int, tuple[list[int], Int3]] | None = None
    torn: bool = False


class Regions:
    """The runs of a label map that goes by slice by slice. No voxels are kept, but in the end everything about its labels is known."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        """For a label map (C, I, J, K)."""
        self._shape = shape
        self._finder = RunFinder(shape[1])
        self._held = 0
        self.torn = False

    def add(self, slices: Array) -> Array:
        """Take slices (k, J, I), channel after channel; gives back what tells them from any others: their runs, as a rule."""
        if self.torn:
            return slices
        runs = self._finder.add(slices)
        self._held += int(runs[:, 2].sum())
        found, voxels = len(self._finder.runs()), prod(self._shape)
        self.torn = self._shape[1] > SHORT and voxels > FEW and found > MANY * voxels and self._held < SHORT * found
        return runs

    def _channel(self, channel: int) -> npt.NDArray[np.int64]:
        """The runs of a channel."""
        runs, size = self._finder.runs(), prod(self._shape[1:])
        if self._shape[0] == 1:
            return runs
        first, last = np.searchsorted(runs[:, 1], (channel * size, (channel + 1) * size))
        return runs[first:last] - (0, channel * size, 0)

    def summary(self, millilitres: float, island_voxels: int) -> LabelSummary:
        """What there is to know.

        Args:
            millilitres: of a voxel.
            island_voxels: parts of at most this many voxels are islands.
        """
        if self.torn:
            return LabelSummary(torn=True)
        channels, ni, nj, nk = self._shape
        counts: dict[int, int] = {}
        parts: dict[int, int] = {}
        islands: dict[int, tuple[list[int], Int3]] = {}
        for channel in range(channels):
            found = joined(self._channel(channel), (nk, nj, ni), 26)
            _count(found, (nk, nj, ni), island_voxels, counts, parts, islands)
        return LabelSummary(
            tuple(LabelClass(value, counts[value], counts[value] * millilitres, parts[value]) for value in sorted(counts)), islands
        )

    def middle(self) -> Int3 | None:
        """The planes along I, J and K that hold most labels, all channels together; None where there are none."""
        if not self._held:
            return None
        channels, ni, nj, nk = self._shape
        _, starts, lengths = self._finder.runs().T
        rows, firsts = np.divmod(starts, ni)
        planes = np.bincount(rows, lengths, channels * nk * nj).reshape(channels, nk, nj).sum(axis=0)
        changes = np.bincount(firsts, minlength=ni + 1) - np.bincount(firsts + lengths, minlength=ni + 1)
        return int(np.argmax(np.cumsum(changes)[:ni])), int(np.argmax(planes.sum(axis=0))), int(np.argmax(planes.sum(axis=1)))

    def planes(self, wanted: Iterable[tuple[int, int]]) -> list[npt.NDArray[np.int64]]:
        """The first channel's labels in planes, given as a voxel axis 0, 1 or 2 and a place along it: the other two axes, in order."""
        _, ni, nj, nk = self._shape
        values, starts, lengths = self._channel(0).T
        k, j, i = np.unravel_index(starts, (nk, nj, ni))
        planes = []
        for axis, place in wanted:
            plane = np.zeros([n for at, n in enumerate((ni, nj, nk)) if at != axis], np.int64)
            if axis == 0:
                held = np.flatnonzero((i <= place) & (place < i + lengths))
                plane[j[held], k[held]] = values[held]
            else:
                row, across = (k, j) if axis == 1 else (j, k)
                held = np.flatnonzero(across == place)
                long = lengths[held]
                inside = np.arange(int(long.sum())) - np.repeat(np.cumsum(long) - long, long)
                plane[np.repeat(i[held], long) + inside, np.repeat(row[held], long)] = np.repeat(values[held], long)
            planes.append(plane)
        return planes


def _count(
    found: Components, shape: Int3, most: int, counts: dict[int, int], parts: dict[int, int], islands: dict[int, tuple[list[int], Int3]]
) -> None:
    """Count voxels and parts of each class, and list parts that are small and have nothing but 0 around, unless the class has no other."""
    roots = np.flatnonzero(found.component == np.arange(len(found.component)))
    sizes = np.bincount(found.component, found.lengths, len(found.component))[roots].astype(np.int64)
    touched = np.zeros(len(found.component), bool)
    touched[found.component[found.touching]] = True
    values, alone = found.values[roots], (sizes <= most) & ~touched[roots]
    for value in np.unique(values):
        own = values == value
        counts[int(value)] = counts.get(int(value), 0) + int(sizes[own].sum())
        parts[int(value)] = parts.get(int(value), 0) + int(own.sum())
        small = np.flatnonzero(own & alone)
        if 0 < len(small) < own.sum():
            k, j, i = (int(place) for place in np.unravel_index(int(found.starts[roots[small[0]]]), shape))
            listed, first = islands.get(int(value), ([], (i, j, k)))
            islands[int(value)] = listed + [int(size) for size in sizes[small]], first


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
    yield from _islands(subject, image, found, settings)


def _islands(subject: str, image: str, found: LabelSummary, settings: Settings) -> Iterator[Finding]:
    declared, parts = settings.classes_of(image), {part.value: part.parts for part in found.classes}
    mend = "look at it, and remove what is a slip of the pen; or raise or lower island_voxels"
    islands = found.islands or {}
    for value, (sizes, first) in list(islands.items())[:LISTED]:
        sentence = (
            f"{_called(value, declared)} has {len(sizes)} of its {parts[value]} parts of at most {settings.island_voxels} voxels and "
            f"alone in the background ({_voxels(sum(sizes))} in all), the first at {first}"
        )
        yield Finding("note", "islands", subject, image, sentence, mend)
    if len(islands) > LISTED:
        yield Finding("note", "islands", subject, image, f"and so have {len(islands) - LISTED} more labels", mend)


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


def _voxels(number: int) -> str:
    return f"{number} voxel{'s' * (number != 1)}"


def _listed(parts: list[LabelClass]) -> str:
    shown = ", ".join(f"{part.value} ({_voxels(part.voxels)})" for part in parts[:LISTED])
    return shown + (f" and {len(parts) - LISTED} more" if len(parts) > LISTED else "")
