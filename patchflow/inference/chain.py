"""One output of one subject, from stitched slabs to where it is kept: finished, brought to the grid asked for, and there put away."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from patchflow.errors import InferenceError
from patchflow.geometry.space import VoxelGrid
from patchflow.images.slabs import open_slabs
from patchflow.inference.aggregator import Brick
from patchflow.inference.native import SlabResampler
from patchflow.inference.outputs import Activation, Output, background, finish, labels
from patchflow.types import Array


class Sink(Protocol):
    """What takes slabs (C, I, J, K) along one axis of a volume, each slice once."""

    def put(self, first: int, slab: Array) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class MemorySink:
    """A volume in memory, made when the first slab comes."""

    def __init__(self, grid: VoxelGrid, axis: int = 0) -> None:
        self._shape, self._axis = grid.shape, axis
        self.volume: torch.Tensor | None = None

    def put(self, first: int, slab: Array) -> None:
        """Copy a slab (C, I, J, K) to its place."""
        place = [slice(None)] * 3
        place[self._axis] = slice(first, first + slab.shape[1 + self._axis])
        self._copy(slab, place)

    def part(self, brick: Array, first: int, low: int) -> None:
        """Copy a part of a slab along I, (C, i, j, K), that begins at slice `first` and at `low` along J."""
        self._copy(brick, [slice(first, first + brick.shape[1]), slice(low, low + brick.shape[2])])

    def _copy(self, values: Array, place: list[slice]) -> None:
        if self.volume is None:
            self.volume = torch.from_numpy(np.empty((len(values), *self._shape), values.dtype))
        self.volume[(slice(None), *place)] = torch.from_numpy(values)

    def close(self) -> None:
        """Nothing is left to do."""

    def abort(self) -> None:
        """Let go of what came."""
        self.volume = None


class OutputChain:
    """Takes the slabs of one output of one subject in order, as `GridAggregator` gives them out.

    Labels are those of the greatest probability on the grid asked for: where that needs interpolation, probabilities are interpolated
    linearly and the arg-max or threshold comes last. A function's floats are interpolated too, its integers take the nearest voxel.

    Args:
        name: the subject, for errors.
        output, activation, ready: see `patchflow.inference.outputs.finish`.
        grid: where the stitched voxels lie.
        target: where they are wanted; None for where they lie.
        path: a file to write; None to keep the volume in memory.
    """

    def __init__(
        self, name: str, output: Output, activation: Activation, ready: bool, grid: VoxelGrid, target: VoxelGrid | None, path: Path | None
    ) -> None:
        self._name, self._output, self._activation, self._ready = name, output, activation, ready
        self.path = path
        self._grid, self._target = grid, target
        self._resampler: SlabResampler | None = None
        self._kind: tuple[int, torch.dtype] | None = None
        self._slab: Array | None = None
        axis = 0
        if target is not None:
            plan = SlabResampler(grid, target)
            axis, self._moves = plan.axis, plan.exact
        self._sink: Sink = MemorySink(target or grid, axis) if path is None else open_slabs(path, target or grid, axis)

    def __call__(self, first: int, slab: torch.Tensor, covered: torch.Tensor | None) -> None:
        """Take the next slab of stitched voxels."""
        if self._target is None:
            self._put(first, self._finished(first, slab, covered, self._output))
            return
        late = self._output == "labels" and not self._moves and slab.dtype.is_floating_point  # arg-max comes after interpolation
        done = self._finished(first, slab, covered, "probabilities" if late else self._output)
        if self._resampler is None:
            classes = late or self._output == "probabilities"
            fill = background(len(done), self._activation) if classes else [0.0] * len(done)
            self._resampler = SlabResampler(self._grid, self._target, fill)
        for place, piece in self._resampler.push(first, done.numpy()):
            values = torch.from_numpy(piece)
            self._put(place, labels(values, self._activation, ready=True) if late else values)

    @property
    def takes_bricks(self) -> bool:
        """Whether parts of slabs may come, by `take`: they are finished at once, and only what they become waits for its slab."""
        return self._target is None and self._output in ("labels", "probabilities")

    def take(self, brick: Brick) -> None:
        """Take a part of a slab."""
        done = self._finished(brick.place, brick.values, brick.covered, self._output).numpy()
        if isinstance(self._sink, MemorySink):
            self._sink.part(done, brick.place, brick.low)
            return
        if self._slab is None:
            self._slab = np.empty((len(done), brick.stop - brick.first, *self._grid.shape[1:]), done.dtype)
        rows = slice(brick.place - brick.first, brick.place - brick.first + done.shape[1])
        high = brick.low + done.shape[2]
        self._slab[:, rows, brick.low : high] = done
        if rows.stop == self._slab.shape[1] and high == self._slab.shape[2]:
            self._put(brick.first, torch.from_numpy(self._slab))
            self._slab = None

    def _finished(self, first: int, slab: torch.Tensor, covered: torch.Tensor | None, output: Output) -> torch.Tensor:
        done = finish(slab, covered, output, self._activation, self._ready, self._name, first)
        kind = len(done), done.dtype
        if self._kind not in (None, kind):
            raise InferenceError(
                f'subject "{self._name}": the output function returned {kind[0]} channels of {kind[1]} for the slab at I={first}, '
                f"and {self._kind[0]} of {self._kind[1]} for the one before"
            )
        self._kind = kind
        return done.float() if done.dtype == torch.bfloat16 else done  # which NumPy does not know

    def _put(self, first: int, values: torch.Tensor) -> None:
        self._sink.put(first, values.numpy())

    def close(self) -> "torch.Tensor | Path":
        """The volume, or the path of the file, which now stands under its name."""
        self._sink.close()
        if self.path is not None:
            return self.path
        volume = self._sink.volume if isinstance(self._sink, MemorySink) else None
        assert volume is not None
        return volume

    def abort(self) -> None:
        """Let go of everything; no file is left."""
        self._sink.abort()
