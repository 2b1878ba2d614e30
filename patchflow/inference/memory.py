"""How much memory a prediction takes, and where its slices go if that is too much."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from pathlib import Path

from patchflow.files import machine_memory
from patchflow.geometry.space import VoxelGrid
from patchflow.inference.grid import GridSampler
from patchflow.inference.ring import PIECE_BYTES
from patchflow.inference.sources import find_image
from patchflow.notices import size

AHEAD = 2
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

    def scratch(self, grid: GridSampler, channels: int, scale: Sequence[Fraction], path: Path | None) -> Path | None:
        """The folder for slices in work, or None if they fit the budget beside the windows in flight."""
        if slices(grid, scale) * channels + in_flight(grid, scale) * channels <= self.bytes:
            return None
        if self.scratch_dir is not None:
            return self.scratch_dir
        return Path(tempfile.gettempdir()) if path is None else path.parent

    def one_at_a_time(self, nbytes: int) -> bool:
        """Whether the model must wait until its last predictions, of this many bytes, are stitched: two of them exceed half the budget."""
        return 2 * nbytes > self.bytes // 2


def slices(grid: GridSampler, scale: Sequence[Fraction] = (Fraction(1),) * 3) -> int:
    """Bytes of the slices in work for each channel: as many as a window is thick (or the volume, if it is thinner), times J x K."""
    tiling = grid.tiling.scaled(scale)
    return _FLOAT * min(tiling.size[0], tiling.shape[0]) * tiling.shape[1] * tiling.shape[2]


def in_flight(grid: GridSampler, scale: Sequence[Fraction] = (Fraction(1),) * 3, batch_size: int = 1) -> int:
    """Bytes of the predictions in flight for each channel: one batch that the model makes, and one that is stitched."""
    return 2 * _FLOAT * batch_size * prod(grid.tiling.scaled(scale).size)


def describe_needs(grid: GridSampler, batch_size: int, in_memory: bool, target: VoxelGrid | None) -> str:
    """What a prediction takes beside the model and its input, as a sentence; nothing but a result in memory depends on I."""
    inputs = sum(find_image(grid.source, name).shape[0] for name in grid.keys)
    reading = (AHEAD + 1) * batch_size * inputs * prod(grid.patch_size) * _FLOAT
    fixed = reading + 3 * PIECE_BYTES
    each = slices(grid) + in_flight(grid, batch_size=batch_size)
    if target is not None:
        each += 2 * _FLOAT * prod(target.shape[1:])
    shape = grid.source.shape if target is None else target.shape
    result = f", and the result itself ({size(prod(shape))} a byte of a voxel)" if in_memory else ""
    return (
        f"{grid.name}: {len(grid)} windows; memory: {size(fixed)} for reading and finishing, and {size(each)} for each channel of the "
        f"model's output (patch {grid.patch_size[0]} x {grid.source.shape[1]} x {grid.source.shape[2]} voxels of slices in work, and "
        f"2 batches of {batch_size} windows){result}"
    )
