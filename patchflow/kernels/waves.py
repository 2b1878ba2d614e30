"""Plane waves added to a patch: amplitude * cos(2 pi (fi i / I + fj j / J + fk k / K) + phase), in voxel coordinates of the volume.

By the addition theorem a wave along a row is two numbers of the row times two tables of the column, so a voxel costs two multiplications
and no cosine. The tables are made in float64 from angles reduced in whole numbers: a wave is as good far from the origin as near it.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from patchflow.kernels.jit import kernel
from patchflow.types import Array, Int3


class Wave(NamedTuple):
    """A plane wave: `frequency` in periods per volume along I, J, K; `amplitude` in units of the values; `phase` in radians."""

    frequency: Int3
    amplitude: float
    phase: float


def add_waves(patch: Array, start: Int3, shape: Int3, waves: Sequence[Wave]) -> None:
    """Add waves to a patch, in place.

    Args:
        patch: float32 (C, i, j, k), C-contiguous; every channel gets the same.
        start: the volume's coordinates of the patch's first voxel; may be negative.
        shape: voxels of the volume.
        waves: what to add.
    """
    angles = [
        np.array([_turns(np.arange(a, a + size), wave.frequency[axis], n) for wave in waves]).reshape(len(waves), size) * (2 * math.pi)
        for axis, (a, size, n) in enumerate(zip(start, patch.shape[1:], shape, strict=True))
    ]
    amplitudes, phases = np.array([wave.amplitude for wave in waves]), np.array([wave.phase for wave in waves])
    columns = np.stack([np.cos(angles[2]), np.sin(angles[2])], axis=1).astype(np.float32)
    _add_waves(patch, angles[0] + phases[:, None], angles[1], columns, amplitudes)


def plain_add_waves(patch: torch.Tensor, start: Int3, shape: Int3, waves: Sequence[Wave]) -> torch.Tensor:
    """What `add_waves` adds, to 1e-6 of the amplitudes; a new tensor, on any device."""
    where = [torch.arange(a, a + size, device=patch.device) for a, size in zip(start, patch.shape[1:], strict=True)]
    for frequency, amplitude, phase in waves:
        turns = [_turns(x, f, n) for x, f, n in zip(where, frequency, shape, strict=True)]
        across = ((turns[0][:, None] + turns[1]) * (2 * math.pi) + phase)[:, :, None]
        along = turns[2] * (2 * math.pi)
        rows = [(amplitude * part).to(patch.dtype) for part in (torch.cos(across), -torch.sin(across))]
        columns = [part.to(patch.dtype) for part in (torch.cos(along), torch.sin(along))]
        patch = patch + rows[0] * columns[0] + rows[1] * columns[1]
    return patch


def _turns(voxels: Any, frequency: int, n: int) -> Any:
    """frequency * voxels / n, less whole turns."""
    return (voxels * frequency % n) / n


@kernel(fastmath={"contract"})
def _add_waves(patch, across, down, columns, amplitudes):  # type: ignore[no-untyped-def]
    channels, ni, nj, nk = patch.shape
    for i in range(ni):
        for j in range(nj):
            for w in range(amplitudes.size):
                angle = across[w, i] + down[w, j]
                one, other = np.float32(amplitudes[w] * np.cos(angle)), np.float32(-amplitudes[w] * np.sin(angle))
                cosines, sines = columns[w, 0], columns[w, 1]
                for c in range(channels):
                    row = patch[c, i, j]
                    for k in range(nk):
                        row[k] += one * cosines[k] + other * sines[k]
