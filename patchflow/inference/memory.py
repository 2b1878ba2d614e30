"""How much memory a prediction takes, and where its slices go if that is too much."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import prod
from pathlib import Path

from patchflow.files import machine_memory
from patchflow.geometry.space import VoxelGrid
from patchflow.inference.grid import GridSampler
from patchflow.inference.ring import PIECE_BYTES
from patchflow.inference.sources import find_image
from patchflow.notices import size

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

    @property
    def bytes(self) -> int:
        """Bytes for slices in work."""
        return machine_memory() // 4 if self.memory is None else self.memory

    def scratch(self, grid: GridSampler, channels: int, scale: Sequence[Fraction], bricks: bool, path: Path | None) -> Path | None:
        """The folder for slices in work, or None if they fit the budget beside the windows in flight."""
        if (slices(grid, scale, bricks) + in_flight(grid, scale)) * channels <= self.bytes:
            return None
        if self.scratch_dir is not None:
            return self.scratch_dir
        return Path(tempfile.gettempdir()) if path is None else path.parent

    def one_at_a_time(self, nbytes: int) -> bool:
        """Whether the model must wait until its last predictions, of this many bytes, are stitched: two of them exceed half the budget."""
        return 2 * nbytes > self.bytes // 2


def slices(grid: GridSampler, scale: Sequence[Fraction] = (Fraction(1),) * 3, bricks: bool = False) -> int:
    """Bytes of the voxels in work for each channel.

    As many slices J x K as a window is thick (or the volume, if it is thinner). With bricks, of the slices that the next windows along I do
    not reach, only what the next along J do: `K (overlap x J + step x size)`.
    """
    tiling = grid.tiling.scaled(scale)
    (n, j, k), (size, width, _) = tiling.shape, tiling.size
    starts = tiling.starts[0]
    thick = min(size, n)
    step = min((b - a for a, b in pairwise(starts)), default=thick) if bricks else 0
    return _FLOAT * k * ((thick - step) * j + step * min(width, j))


def in_flight(grid: GridSampler, scale: Sequence[Fraction] = (Fraction(1),) * 3, batch_size: int = 1) -> int:
    """Bytes of the predictions in flight for each channel: one batch that the model makes, and one that is stitched."""
    return 2 * _FLOAT * batch_size * prod(grid.tiling.scaled(scale).size)


def describe_needs(grid: GridSampler, batch_size: int, in_memory: bool, target: VoxelGrid | None, bricks: bool) -> str:
    """What a prediction takes beside the model and its input, as a sentence; nothing but a result in memory depends on I."""
    inputs = sum(find_image(grid.source, name).shape[0] for name in grid.keys)
    fixed = (AHEAD + 2) * batch_size * inputs * prod(grid.patch_size) * _FLOAT + PIECE_BYTES
    each = slices(grid, bricks=bricks) + in_flight(grid, batch_size=batch_size)
    if target is not None:
        each += 2 * _FLOAT * prod(target.shape[1:])
    (_, j, k), (thick, width, _) = grid.source.shape, grid.patch_size
    work = f"{k} x (overlap x {j} + step x {width})" if bricks else f"{thick} x {j} x {k}"
    result = f", and the result: {size(prod(grid.source.shape if target is None else target.shape))} a byte" if in_memory else ""
    return (
        f"{grid.name}: {len(grid)} windows; memory beside model and image: {size(fixed)} to read and finish, and for each channel that the "
        f"model returns {size(each)} ({work} voxels in work, and 2 batches of {batch_size} x {' x '.join(map(str, grid.patch_size))}){result}"
    )
