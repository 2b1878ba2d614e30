"""Runs of equal labels: what the label index is made of."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from patchflow.kernels.jit import kernel
from patchflow.types import Array


class Runs(NamedTuple):
    """Maximal runs of equal neighbours in storage order; a run ends where its channel ends."""

    values: Array
    """Label of each run, dtype of the labels (R,)."""
    starts: npt.NDArray[np.int64]
    """Position of each run's first voxel in the flattened (C, I, J, K) array (R,)."""
    lengths: npt.NDArray[np.int64]
    """Voxels of each run (R,); they add up to the size of the array."""


def label_runs(labels: Array) -> Runs:
    """The runs of a C-contiguous label array (C, I, J, K) of an integer dtype. Releases the GIL; agrees with `plain_label_runs`."""
    flat = labels.reshape(-1)
    channel = flat.size // labels.shape[0]
    starts = np.empty(_count_runs(flat, channel), np.int64)
    _find_runs(flat, channel, starts)
    return Runs(flat[starts], starts, np.diff(starts, append=flat.size))


def plain_label_runs(labels: Array) -> Runs:
    """What `label_runs` computes, in a few lines of numpy."""
    flat = labels.reshape(-1)
    begins = np.append(True, flat[1:] != flat[:-1])
    begins[:: flat.size // labels.shape[0]] = True
    starts = np.flatnonzero(begins)
    return Runs(flat[starts], starts, np.diff(starts, append=flat.size))


@kernel
def _count_runs(flat, channel):  # type: ignore[no-untyped-def]
    total = 0
    for begin in range(0, flat.size, channel):
        row = flat[begin : begin + channel]
        changes = 0
        for position in range(1, channel):  # no branch, so that it vectorises
            changes += row[position] != row[position - 1]
        total += changes + 1
    return total


@kernel
def _find_runs(flat, channel, starts):  # type: ignore[no-untyped-def]
    found = 0
    for begin in range(0, flat.size, channel):
        starts[found] = begin
        found += 1
        for position in range(begin + 1, begin + channel):
            if flat[position] != flat[position - 1]:
                starts[found] = position
                found += 1
