"""Which windows of a grid have come."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from patchflow.errors import InferenceError
from patchflow.geometry.location import PatchLocation
from patchflow.inference.checks import describe
from patchflow.inference.grid import GridSampler
from patchflow.types import Int3


class Ledger:
    """Keeps account of the windows of a grid, each of which comes once, or is left out.

    Attributes:
        waiting: bool (windows along I, J, K): those that are still to come.
        added: those that came with a prediction.
    """

    def __init__(self, grid: GridSampler) -> None:
        self._name, self._tiling = grid.name, grid.tiling
        self.waiting = grid.wanted.copy()
        self.added = np.zeros(self._tiling.counts, dtype=np.bool_)

    def read(self, locations: Any) -> tuple[list[PatchLocation], list[Int3]]:
        """The windows that a table of locations (B, 6) names, and their places in the grid.

        Raises:
            InferenceError: for another table, or a window that is none of this grid or does not wait for a prediction.
        """
        table = locations.detach().cpu().numpy() if hasattr(locations, "detach") else np.asarray(locations)
        if table.ndim != 2 or table.shape[1] != 6 or table.dtype.kind not in "iu":
            raise InferenceError(
                f'subject "{self._name}": locations must be integers (B, 6), start then stop, not {table.dtype} of shape {table.shape}'
            )
        windows: list[PatchLocation] = []
        positions: list[Int3] = []
        for row in table.tolist():
            position = self._tiling.position(row)
            if position is None:
                box = ", ".join(f"{start}:{stop}" for start, stop in zip(row[:3], row[3:], strict=True))
                raise InferenceError(f'subject "{self._name}": [{box}] is no window of this grid: take locations from the same grid')
            window = PatchLocation.from_array(row)
            if not self.waiting[position] or position in positions:
                twice = self.added[position] or position in positions
                why = "was added before; add each once" if twice else "is not wanted: the mask leaves it out, or it was skipped"
                raise InferenceError(f"{describe(self._name, window)}: a prediction of this window {why}")
            windows.append(window)
            positions.append(position)
        return windows, positions

    def check_order(self, windows: Sequence[PatchLocation], positions: Sequence[Int3]) -> None:
        """Raise `InferenceError` if a window comes before all of those that begin before it along I have, those of this batch included."""
        left = self.waiting.sum(axis=(1, 2))
        for window, (row, _, _) in zip(windows, positions, strict=True):
            if left[:row].any():
                raise InferenceError(
                    f"{describe(self._name, window)}: windows that begin before it along I are missing: "
                    "where slabs are given out, add windows in the grid's order"
                )
            left[row] -= 1

    def check_complete(self, begun: bool) -> None:
        """Raise `InferenceError` if windows are missing, or if nothing has `begun` because all were left out."""
        if begun and not self.waiting.any():
            return
        waiting = self.waiting if self.waiting.any() else np.ones_like(self.waiting)
        a, b, c = np.argwhere(waiting)[0]
        starts = self._tiling.starts
        first = PatchLocation((starts[0][a], starts[1][b], starts[2][c]), self._tiling.size)
        raise InferenceError(
            f"{int(waiting.sum())} of {waiting.size} windows have no prediction yet; the first is {describe(self._name, first)}: "
            "add the prediction of every window of the grid before asking for the volume"
        )
