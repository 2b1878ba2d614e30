"""Connected components of equal labels, found run by run: rows of voxels along K are few runs, which are joined with those of rows beside.

Source: the union-find of Tarjan, "Efficiency of a good but not linear set union algorithm", Journal of the ACM 22, 1975, with path halving;
on runs, as He, Chao and Suzuki, "A run-based two-scan labeling algorithm", IEEE Transactions on Image Processing 17, 2008.
"""

from itertools import product
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from patchflow.kernels.jit import kernel
from patchflow.types import Array

Connectivity = Literal[6, 18, 26]
"""Voxels are neighbours if they share a face (6), a face or an edge (18), or a face, an edge or a corner (26)."""


class Components(NamedTuple):
    """Runs along K of equal labels that are not 0, in storage order, and which of them belong together."""

    values: Array
    """Label of each run, dtype of the labels (R,)."""
    starts: npt.NDArray[np.int64]
    """Position of each run's first voxel in the flattened (I, J, K) array (R,)."""
    lengths: npt.NDArray[np.int64]
    """Voxels of each run (R,)."""
    component: npt.NDArray[np.int64]
    """The first run of the component to which each run belongs (R,)."""


def components(labels: Array, connectivity: Connectivity = 6) -> Components:
    """The connected components of each label of a C-contiguous integer array (I, J, K); 0 is background.

    Releases the GIL; agrees with `plain_components`. Time goes with the voxels, memory with the runs.
    """
    ni, nj, nk = labels.shape
    flat = labels.reshape(-1)
    first = np.empty(ni * nj + 1, np.int64)
    _count_runs(flat, nk, first)
    starts, lengths = np.empty(first[-1], np.int64), np.empty(first[-1], np.int64)
    _find_runs(flat, nk, first, starts, lengths)
    values = flat[starts]
    parent = np.arange(first[-1])
    _join(values, starts % nk if len(starts) else starts, lengths, first, nj, connectivity, parent)
    return Components(values, starts, lengths, parent)


def plain_components(labels: Array, connectivity: Connectivity = 6) -> npt.NDArray[np.int64]:
    """The plain twin of `components`: for each voxel the position of its component's first voxel, int64 (I, J, K); -1 for background."""
    steps = [step for step in product((-1, 0, 1), repeat=3) if 0 < sum(map(abs, step)) <= {6: 1, 18: 2, 26: 3}[connectivity]]
    padded = np.pad(labels, 1)
    far = labels.size
    found = np.pad(np.where(labels != 0, np.arange(far).reshape(labels.shape), far), 1, constant_values=far)
    before = None
    while before is None or (found != before).any():
        before = found.copy()
        for step in steps:
            same = np.roll(padded, step, (0, 1, 2)) == padded
            found = np.where(same & (padded != 0), np.minimum(found, np.roll(found, step, (0, 1, 2))), found)
    inner: npt.NDArray[np.int64] = np.where(labels != 0, found[1:-1, 1:-1, 1:-1], -1)
    return inner


@kernel
def _count_runs(flat, nk, first):  # type: ignore[no-untyped-def]
    """Where the runs of each row begin among all."""
    total = 0
    for row in range(first.size - 1):
        first[row] = total
        line = flat[row * nk : (row + 1) * nk]
        begins = np.int64(line[0] != 0)
        for k in range(1, nk):  # no branch, so that it vectorises
            begins += (line[k] != line[k - 1]) & (line[k] != 0)
        total += int(begins)
    first[first.size - 1] = total


@kernel
def _find_runs(flat, nk, first, starts, lengths):  # type: ignore[no-untyped-def]
    for row in range(first.size - 1):
        if first[row] == first[row + 1]:
            continue  # most rows hold nothing
        found, begin = first[row] - 1, row * nk
        before = flat[begin] - flat[begin]  # 0 of its dtype
        for position in range(begin, begin + nk):
            value = flat[position]
            if value != before and value != 0:
                found += 1
                starts[found], lengths[found] = position, 0
            if value != 0:
                lengths[found] += 1
            before = value


@kernel
def _root(parent, run):  # type: ignore[no-untyped-def]
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


@kernel
def _join_rows(values, places, lengths, own, other, reach, parent):  # type: ignore[no-untyped-def]
    """Join the runs of one row with those of another that lie beside them, or no more than `reach` voxels further."""
    q = other[0]
    for p in range(own[0], own[1]):
        start, stop = places[p] - reach, places[p] + lengths[p] + reach
        while q < other[1] and places[q] + lengths[q] <= start:
            q += 1
        at = q
        while at < other[1] and places[at] < stop:
            if values[at] == values[p]:
                one, two = _root(parent, p), _root(parent, at)
                parent[max(one, two)] = min(one, two)
            at += 1


@kernel
def _join(values, places, lengths, first, nj, connectivity, parent):  # type: ignore[no-untyped-def]
    near = 0 if connectivity == 6 else 1
    far = 1 if connectivity == 26 else 0
    for row in range(first.size - 1):
        own = first[row], first[row + 1]
        if own[0] == own[1]:
            continue
        j = row % nj
        if j > 0:
            _join_rows(values, places, lengths, own, (first[row - 1], first[row]), near, parent)
        if row >= nj:
            _join_rows(values, places, lengths, own, (first[row - nj], first[row - nj + 1]), near, parent)
            if connectivity > 6 and j > 0:
                _join_rows(values, places, lengths, own, (first[row - nj - 1], first[row - nj]), far, parent)
            if connectivity > 6 and j < nj - 1:
                _join_rows(values, places, lengths, own, (first[row - nj + 1], first[row - nj + 2]), far, parent)
    for run in range(parent.size):
        parent[run] = _root(parent, run)
