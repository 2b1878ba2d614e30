"""One subject on its way from windows to results: all outputs of the model, stitched, finished and kept or written."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchflow.errors import InferenceError
from patchflow.geometry.location import PatchLocation
from patchflow.geometry.space import VoxelGrid, scaled_grid
from patchflow.inference.aggregator import GridAggregator, OnBrick, OnSlab
from patchflow.inference.chain import OutputChain
from patchflow.inference.checks import channels_of_prediction, describe
from patchflow.inference.grid import GridSampler
from patchflow.inference.memory import Budget, Work, per_channel
from patchflow.inference.settings import Settings, is_single, listed, setting_of
from patchflow.types import ScaleLike, fraction3

Results = torch.Tensor | Path | dict[str, torch.Tensor | Path]
Paths = Callable[[str], Path | None]
"""The file of an output by its name; None where it is kept in memory."""


class Stitching:
    """Stitches every output of a model for one subject, whose windows come in the grid's order.

    Attributes:
        grid: the subject's windows.
        budget: what may be held in memory.

    Args:
        grid, budget: as above.
        settings: what becomes of them.
        target: the voxel grid of the results; None for the subject's own.
        paths: where outputs are written.
        path: `paths` as the user gave it, for messages.
    """

    def __init__(
        self, grid: GridSampler, settings: Settings, target: VoxelGrid | None, paths: Paths, path: Any = None, budget: Budget | None = None
    ) -> None:
        self.grid, self._settings, self._target, self._paths, self._path = grid, settings, target, paths, path
        self.budget = Budget() if budget is None else budget
        own = VoxelGrid(grid.source.shape, grid.source.affine)
        self._own = own
        self._aggregators: dict[str, GridAggregator] = {}
        self._chains: dict[str, OutputChain] = {}
        self._skipped: list[PatchLocation] = []

    @property
    def complete(self) -> bool:
        """Whether every window has come or was skipped."""
        return bool(self._aggregators) and all(aggregator.complete for aggregator in self._aggregators.values())

    def add(self, outputs: Mapping[str, Any], windows: Sequence[PatchLocation]) -> None:
        """Add the predictions of some windows: each output (B, C, i, j, k), a row for each window.

        Raises:
            InferenceError: for predictions that cannot be stitched; names the subject and the window.
            ArgumentError: if settings name other outputs than the model returns.
        """
        if not self._aggregators:
            self._settings.check_names(outputs, self._path, windows, self.grid.name)
            self._begin(outputs)
        elif outputs.keys() != self._aggregators.keys():
            raise InferenceError(
                f"{describe(self.grid.name, windows[0])}: the model returned {listed(outputs)}, but {listed(self._aggregators)} before"
            )
        locations = np.stack([window.as_array() for window in windows])
        for name, aggregator in self._aggregators.items():
            aggregator.add_batch(outputs[name], locations)

    def skip(self, window: PatchLocation) -> None:
        """Go without a prediction for a window."""
        if not self._aggregators:
            self._skipped.append(window)
        for aggregator in self._aggregators.values():
            aggregator.skip(window.as_array()[None])

    def finish(self) -> Results:
        """The result of each output: a tensor, or the path of the file written; one without a name by itself.

        Raises:
            InferenceError: if windows are missing.
            ImageFileError: if a file cannot be written; those of outputs before it stay.
        """
        for name in self._aggregators:
            self._aggregators[name].check_complete()
        results: dict[str, torch.Tensor | Path] = {}
        for name in list(self._aggregators):
            del self._aggregators[name]  # its slices go before the file is closed, which takes memory of its own
            results[name] = self._chains.pop(name).close()
        return next(iter(results.values())) if is_single(results) else results

    def abort(self) -> None:
        """Give up; no file is left."""
        for chain in self._chains.values():
            chain.abort()

    def _begin(self, outputs: Mapping[str, Any]) -> None:
        """Make room for each output, once its channels are known."""
        for name, output in outputs.items():
            kind, path = setting_of(self._settings.output, name), self._paths(name)
            factors = fraction3(setting_of(self._settings.scale, name), "scale")
            grid = scaled_grid(self._own, factors)
            target = self._target
            if target is not None and target.agrees(grid):
                target = None
            activation = setting_of(self._settings.activation, name)
            chain = OutputChain(self.grid.name, kind, activation, self._settings.ready, grid, target, path)
            self._chains[name] = chain
            self._aggregators[name] = self._aggregator(output, chain, chain.take if chain.takes_bricks else None, factors, path)
        for window in self._skipped:
            self.skip(window)
        self._skipped = []

    def _aggregator(
        self, output: Any, on_slab: OnSlab, on_brick: OnBrick | None = None, scale: ScaleLike = 1, path: Path | None = None
    ) -> GridAggregator:
        """What stitches an output: by slabs if they fit the budget, else by bricks (less memory, more time), else in a file."""
        mode, tiling = self._settings.overlap_mode, self.grid.tiling.scaled(fraction3(scale, "scale"))
        channels = channels_of_prediction(output)
        slabs, bricks = (channels * per_channel(tiling, mode, bricks, Work()) for bricks in (False, True))
        tight = on_brick is not None and slabs > self.budget.bytes
        taker: Any = {"on_brick": on_brick} if tight else {"on_slab": on_slab}
        scratch = self.budget.scratch(bricks if tight else slabs, path)
        return GridAggregator(self.grid, mode, scale=scale, scratch_dir=scratch, **taker)
