"""Connected components of equal labels, found run by run: rows of voxels along K are few runs, which are joined with those of rows beside.

Source: the union-find of Tarjan, "Efficiency of a good but not linear set union algorithm", Journal of the ACM 22, 1975, with path halving;
on runs, as He, Chao and Suzuki, "A run-based two-scan labeling algorithm", IEEE Transactions on Image Processing 17, 2008.
"""

from itertools import product
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from patchflow.kernels.jit import kernel
from patchflow.types import Array, Int3

Connectivity = Literal[6, 18, 26]
"""Voxels are neighbours if they share a face (6), a face or an edge (18), or a face, an edge or a corner (26)."""


class Components(NamedTuple):
    """Runs along K of equal labels that are not 0, in storage order, and which of them belong together."""

    values: npt.NDArray[np.int64]
    """Label of each run (R,)."""
    starts: npt.NDArray[np.int64]
    """Position of each run's first voxel in the flattened (I, J, K) array (R,)."""
    lengths: npt.NDArray[np.int64]
    """Voxels of each run (R,)."""
    component: npt.NDArray[np.int64]
    """The first run of the component to which each run belongs (R,)."""
    touching: npt.NDArray[np.bool_]
    """Whether a voxel of the run has a neighbour of another label, 0 left out (R,)."""


def components(labels: Array, connectivity: Connectivity = 6) -> Components:
    """The connected components of each label of a C-contiguous integer array (I, J, K); 0 is background.

    Releases the GIL; agrees with `plain_components`. Time goes with the voxels, memory with the runs.
    """
    found = RunFinder(labels.shape[2])
    found.add(labels)
    return joined(found.runs(), (labels.shape[0], labels.shape[1], labels.shape[2]), connectivity)


class RunFinder:
    """Finds runs of equal labels that are not 0 along the rows of a volume, whose rows come in pieces, in storage order."""

    def __init__(self, row: int) -> None:
        """For rows of `row` voxels."""
        self._row = row
        self._voxels, self._found = 0, 0
        self._runs = np.empty((max(row, 1 << 12), 3), np.int64)

    def add(self, rows: Array) -> npt.NDArray[np.int64]:
        """Take whole rows, C-contiguous integers of any shape, and give back their runs, as `runs` does."""
        flat = rows.reshape(-1)
        per = 8 // flat.itemsize
        words = flat[: flat.size // per * per].view(np.uint64)
        place, first = 0, self._found
        while True:
            self._found, place = _find_runs(flat, words, *_PATTERNS[flat.itemsize], self._row, place, self._voxels, self._found, self._runs)
            if place == flat.size:
                break
            self._runs = np.concatenate([self._runs, np.empty_like(self._runs)])
        self._voxels += flat.size
        return self._runs[first : self._found]

    def runs(self) -> npt.NDArray[np.int64]:
        """All runs so far, int64 (R, 3): label, position of the first voxel among all, voxels."""
        return self._runs[: self._found]


def joined(runs: npt.NDArray[np.int64], shape: Int3, connectivity: Connectivity) -> Components:
    """The components of runs (R, 3) as `RunFinder` gives them, of a volume (I, J, K)."""
    ni, nj, nk = shape
    values, starts, lengths = (np.ascontiguousarray(column) for column in runs.T)
    first = np.append(0, np.cumsum(np.bincount(starts // nk, minlength=ni * nj)))
    parent, touching = np.arange(len(runs)), np.zeros(len(runs), np.bool_)
    _join(values, starts % nk, lengths, first, nj, connectivity, parent, touching)
    return Components(values, starts, lengths, parent, touching)


def plain_components(labels: Array, connectivity: Connectivity = 6) -> npt.NDArray[np.int64]:
    """The plain twin of `components`: for each voxel the position of its component's first voxel, int64 (I, J, K); -1 for background."""
    padded = np.pad(labels, 1)
    far = labels.size
    found = np.pad(np.where(labels != 0, np.arange(far).reshape(labels.shape), far), 1, constant_values=far)
    before = None
    while before is None or (found != before).any():
        before = found.copy()
        for step in _steps(connectivity):
            same = np.roll(padded, step, (0, 1, 2)) == padded
            found = np.where(same & (padded != 0), np.minimum(found, np.roll(found, step, (0, 1, 2))), found)
    inner: npt.NDArray[np.int64] = np.where(labels != 0, found[1:-1, 1:-1, 1:-1], -1)
    return inner


def plain_touching(labels: Array, connectivity: Connectivity = 6) -> npt.NDArray[np.bool_]:
    """The plain twin of `Components.touching`: whether each voxel is not 0 and has a neighbour of another label that is not, (I, J, K)."""
    padded = np.pad(labels, 1)
    others = [np.roll(padded, step, (0, 1, 2)) for step in _steps(connectivity)]
    found: npt.NDArray[np.bool_] = np.any([(padded != 0) & (other != 0) & (other != padded) for other in others], axis=0)
    return found[1:-1, 1:-1, 1:-1]


def _steps(connectivity: Connectivity) -> list[tuple[int, ...]]:
    """To the neighbours of a voxel."""
    return [step for step in product((-1, 0, 1), repeat=3) if 0 < sum(map(abs, step)) <= {6: 1, 18: 2, 26: 3}[connectivity]]


_PATTERNS = {
    size: (np.uint64(2 ** (8 * size) - 1), np.uint64(sum(1 << (8 * size * place) for place in range(8 // size)))) for size in (1, 2, 4, 8)
}
"""By the bytes of a voxel: the bits of one in a word of 64, and what repeats them over the word."""


_BLOCK = 32
"""Words that are looked at together."""


@kernel
def _find_runs(flat, words, bits, repeat, row, place, before, found, runs):  # type: ignore[no-untyped-def]
    """Find the runs of `flat` from `place` on; `before` voxels came before it. Stops where `runs` is full.

    Voxels that go on as before are passed over by words: in a run to the end of its row, in the background as far as it goes.
    """
    per = 8 // flat.itemsize
    value, end = flat[0] ^ flat[0], place // row * row + row  # 0 of its dtype
    while place < flat.size:
        if place % per == 0:
            word, last, alike = place // per, words.size, np.uint64(0)
            if value != 0:
                last, alike = min(end // per, last), (np.uint64(value) & bits) * repeat
            while word + _BLOCK <= last:
                block, differ = words[word : word + _BLOCK], np.uint64(0)
                for ahead in range(block.size):  # vectorises, as a loop to a constant does not
                    differ |= block[ahead] ^ alike
                if differ != 0:
                    break
                word += _BLOCK
            while word < last and words[word] == alike:
                word += 1
            place = word * per
            if value == 0:
                end = place // row * row + row
        stop = min(place // per * per + per, end, flat.size)
        while place < stop:
            if flat[place] != value:
                if value != 0:
                    runs[found, 2] = before + place - runs[found, 1]
                    found += 1
                    value = flat[0] ^ flat[0]
                if flat[place] != 0:
                    if found == runs.shape[0]:
                        return found, place
                    value = flat[place]
                    runs[found, 0], runs[found, 1] = value, before + place
            place += 1
        if place == end:
            if value != 0:
                runs[found, 2] = before + place - runs[found, 1]
                found += 1
                value = flat[0] ^ flat[0]
            end += row
    return found, place


@kernel
def _root(parent, run):  # type: ignore[no-untyped-def]
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


@kernel
def _join_rows(values, places, lengths, own, other, reach, parent, touching):  # type: ignore[no-untyped-def]
    """Join the runs of one row with those of another that lie beside them, or no more than `reach` voxels further."""
    q = other[0]
    for p in range(own[0], own[1]):
        start, stop = places[p] - reach, places[p] + lengths[p] + reach
        while q < other[1] and places[q] + lengths[q] <= start:
            q += 1
        at = q
        while at < other[1] and places[at] < stop:
            if values[at] == values[p]:
                if parent[at] != parent[p]:  # else they are joined already, as is usual
                    one, two = _root(parent, p), _root(parent, at)
                    parent[max(one, two)] = min(one, two)
            else:
                touching[p] = touching[at] = True
            at += 1


@kernel
def _join(values, places, lengths, first, nj, connectivity, parent, touching):  # type: ignore[no-untyped-def]
    near = 0 if connectivity == 6 else 1
    far = 1 if connectivity == 26 else 0
    for row in range(first.size - 1):
        own = first[row], first[row + 1]
        if own[0] == own[1]:
            continue
        for run in range(own[0] + 1, own[1]):
            if places[run - 1] + lengths[run - 1] == places[run]:
                touching[run - 1] = touching[run] = True
        j = row % nj
        if j > 0:
            _join_rows(values, places, lengths, own, (first[row - 1], first[row]), near, parent, touching)
        if row >= nj:
            _join_rows(values, places, lengths, own, (first[row - nj], first[row - nj + 1]), near, parent, touching)
            if connectivity > 6 and j > 0:
                _join_rows(values, places, lengths, own, (first[row - nj - 1], first[row - nj]), far, parent, touching)
            if connectivity > 6 and j < nj - 1:
                _join_rows(values, places, lengths, own, (first[row - nj + 1], first[row - nj + 2]), far, parent, touching)
    for run in range(parent.size):
        parent[run] = _root(parent, run)
