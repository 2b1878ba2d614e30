"""How much memory a prediction takes, and where its slices go if that is too much."""

import tempfile
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from patchflow.errors import ArgumentError
from patchflow.files import machine_memory
from patchflow.geometry.grid import Tiling
from patchflow.geometry.space import VoxelGrid
from patchflow.geometry.windows import OverlapMode
from patchflow.inference.aggregator import sum_dtype
from patchflow.inference.grid import GridSampler
from patchflow.inference.ring import PIECE_BYTES
from patchflow.inference.settings import Settings, values_of
from patchflow.inference.sources import find_image
from patchflow.loading.memory import parse_size
from patchflow.notices import size
from patchflow.types import fraction3

AHEAD = 1
"""Batches of windows that are read ahead of the model."""

_FLOAT = 4


@dataclass(frozen=True)
class Budget:
    """What may be held in memory.

    Attributes:
        memory: bytes for slices in work; None for a quarter of the machine's memory.
        scratch_dir: where a file holds them otherwise; None for the folder of the output, or the system's for temporary files.
    """

    memory: int | None = None
    scratch_dir: Path | None = None

    @classmethod
    def of(cls, memory_budget: int | str | None, scratch_dir: str | Path | None) -> "Budget":
        """The budget that a user gave; raises `ArgumentError` for a size that is none, or a folder that is not there."""
        if scratch_dir is not None and not Path(scratch_dir).is_dir():
            raise ArgumentError(f"scratch_dir {scratch_dir} is no folder: make it first")
        memory = None if memory_budget is None else parse_size(memory_budget)
        if memory == 0:
            raise ArgumentError(f"memory_budget must be some bytes at least, not {memory_budget!r}")
        return cls(memory, None if scratch_dir is None else Path(scratch_dir))

    @property
    def bytes(self) -> int:
        """Bytes for slices in work."""
        return machine_memory() // 4 if self.memory is None else self.memory

    def scratch(self, needs: int, path: Path | None) -> Path | None:
        """The folder for slices in work, or None if they fit the budget: with predictions in flight, `needs` bytes."""
        if needs <= self.bytes:
            return None
        if self.scratch_dir is not None:
            return self.scratch_dir
        return Path(tempfile.gettempdir()) if path is None else path.parent

    def one_at_a_time(self, nbytes: int) -> bool:
        """Whether the model must wait until its last predictions, of this many bytes, are stitched: two of them exceed half the budget."""
        return 2 * nbytes > self.bytes // 2


class Work(NamedTuple):
    """What is in work at a time.

    Attributes:
        batch_size: windows.
        recipes: views that are read beside the windows as they lie.
        averaged: whether predictions are summed before they are stitched, as those of several views and models are.
    """

    batch_size: int = 1
    recipes: int = 0
    averaged: bool = False


def per_channel(tiling: Tiling, mode: OverlapMode, bricks: bool, work: Work) -> int:
    """Bytes for each channel of an output: the voxels in work, and the predictions of two batches.

    In work are as many slices J x K as a window is thick (or the volume, if it is thinner). With bricks, of the slices that the next
    windows along I do not reach, only what the next along J do: `K (overlap x J + step x size)`.

    Args:
        tiling: of the output, in its own voxels.
        mode: how windows overlap.
        bricks: whether parts of slabs leave.
        work: what is in work.
    """
    (n, j, k), (size, width, _) = tiling.shape, tiling.size
    thick = min(size, n)
    step = min((b - a for a, b in pairwise(tiling.starts[0])), default=thick) if bricks else 0
    voxels = k * ((thick - step) * j + step * min(width, j))
    in_flight = (3 if work.averaged else 2) * work.batch_size * prod(tiling.size)
    return voxels * int(np.dtype(sum_dtype(tiling, mode)).itemsize) + in_flight * _FLOAT


def describe_needs(
    grid: GridSampler, settings: Settings, work: Work, budget: Budget, target: VoxelGrid | None, in_memory: bool = False
) -> str:
    """What a prediction takes beside the model and its input, as a sentence; nothing but a result in memory depends on I."""
    inputs = sum(find_image(grid.source, name).shape[0] for name in grid.keys)
    fixed = (AHEAD + 2) * work.batch_size * (1 + work.recipes) * inputs * prod(grid.patch_size) * _FLOAT + PIECE_BYTES
    tilings = [grid.tiling.scaled(fraction3(scale, "scale")) for scale in values_of(settings.scale)]
    each = max(per_channel(tiling, settings.overlap_mode, False, work) for tiling in tilings)
    if target is not None:
        each += 2 * _FLOAT * prod(target.shape[1:])
    (_, j, k), (thick, _, _) = grid.source.shape, grid.patch_size
    batches = f"{3 if work.averaged else 2} batches of {work.batch_size} x {' x '.join(map(str, grid.patch_size))}"
    result = f", and the result: {size(prod(grid.source.shape if target is None else target.shape))} a byte" if in_memory else ""
    return (
        f"{grid.name}: {len(grid)} windows; memory beside model and image: {size(fixed)} to read and finish, and for each channel that the "
        f"model returns {size(each)} ({thick} x {j} x {k} voxels in work, and {batches}); above {size(budget.bytes)}, a file holds "
        f"what is in work{result}"
    )
