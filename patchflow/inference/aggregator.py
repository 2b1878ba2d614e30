"""Predictions of windows, stitched back into a volume."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from patchflow.errors import InferenceError
from patchflow.geometry.location import Overlap, PatchLocation
from patchflow.geometry.windows import axis_weights, check_overlap_mode, crop_bounds
from patchflow.inference.grid import GridSampler
from patchflow.kernels.blend import add_window, count_nonfinite
from patchflow.types import Array, Int3

_FLOAT32_TERMS = 32
"""Rounding grows with the windows that are added to one voxel: at 27 (an overlap of one half) float32 stays well within 1e-6 of the range,
at some hundreds (an overlap of 7/8) it does not."""


class GridAggregator:
    """Stitches the predictions of a grid's windows into one volume; each window is given once, in any order.

    Where windows overlap, predictions are combined by weights that sum to one at every voxel (`patchflow.geometry.windows`): stitching the
    windows of a volume gives that volume to 1e-6 of its range, borders and corners included. Sums are float32, or float64 where more than
    32 windows meet in a voxel. The memory taken is that of the output. Several outputs of one model take one aggregator each.

    Args:
        grid: the grid that the windows come from.
        overlap_mode: "crop" takes each voxel from the window whose middle is nearest (overlaps are split at their middle) and is the one
            for integers; "average" weighs all equally; "hann" and "gaussian" weigh the middle of a window more than its borders.

    Raises:
        ArgumentError: for another `overlap_mode`.
    """

    def __init__(self, grid: GridSampler, overlap_mode: str = "crop") -> None:
        self.overlap_mode = check_overlap_mode(overlap_mode)
        self._name = grid.name
        self._tiling = grid.tiling
        axes = list(zip(self._tiling.starts, self._tiling.size, self._tiling.shape, strict=True))
        self._weights = [axis_weights(self.overlap_mode, starts, size, n) for starts, size, n in axes]
        self._owned = [crop_bounds(starts, size, n) for starts, size, n in axes]
        self._seen = np.zeros(self._tiling.counts, dtype=np.bool_)
        self._volume: Array | None = None
        self._first: tuple[PatchLocation, torch.dtype] | None = None

    def add_batch(self, predictions: torch.Tensor, locations: torch.Tensor | npt.NDArray[np.int64]) -> None:
        """Add the predictions of some windows. A batch that is refused changes nothing.

        Args:
            predictions: (B, C, i, j, k) of any device: floating point (float16 and bfloat16 become float32 first, and so does float64), or
                integers if the mode is "crop".
            locations: integers (B, 6), start then stop, as in the grid's "location".

        Raises:
            InferenceError: names the subject and the window whose prediction cannot be used: of another size or another number of channels,
                NaN or infinite, already added, or of no window of this grid.
        """
        windows, positions = self._windows(locations)
        patches = self._patches(predictions, windows)
        for patch, window, position in zip(patches, windows, positions, strict=True):
            if self.overlap_mode == "crop":
                self._copy(patch, window, position)
            else:
                self._blend(patch, window, position)
            self._seen[position] = True

    def get_output_tensor(self) -> torch.Tensor:
        """The stitched volume (C, I, J, K): float32, or the predictions' integer dtype. It shares memory with the aggregator.

        Raises:
            InferenceError: if windows are missing; says how many and where the first one lies.
        """
        if self._volume is None or not self._seen.all():
            a, b, c = np.argwhere(~self._seen)[0]
            starts = self._tiling.starts
            first = PatchLocation((starts[0][a], starts[1][b], starts[2][c]), self._tiling.size)
            missing = int(self._seen.size - self._seen.sum())
            raise InferenceError(
                f"{missing} of {self._seen.size} windows have no prediction yet; the first is {describe(self._name, first)}: "
                "add the prediction of every window of the grid before asking for the volume"
            )
        volume = torch.from_numpy(self._volume)
        return volume.to(torch.float32) if volume.dtype == torch.float64 else volume

    def _windows(self, locations: Any) -> tuple[list[PatchLocation], list[Int3]]:
        table = locations.detach().cpu().numpy() if isinstance(locations, torch.Tensor) else np.asarray(locations)
        if table.ndim != 2 or table.shape[1] != 6 or table.dtype.kind not in "iu":
            raise InferenceError(
                f'subject "{self._name}": locations must be integers (B, 6), start then stop, not {table.dtype} of shape {table.shape}'
            )
        windows, positions = [], []
        for row in table.tolist():
            position = self._tiling.position(row)
            if position is None:
                box = ", ".join(f"{start}:{stop}" for start, stop in zip(row[:3], row[3:], strict=True))
                raise InferenceError(f'subject "{self._name}": [{box}] is no window of this grid: take locations from the same grid')
            window = PatchLocation.from_array(row)
            if self._seen[position] or position in positions:
                raise InferenceError(f"{describe(self._name, window)}: a prediction of this window was added before; add each once")
            windows.append(window)
            positions.append(position)
        return windows, positions

    def _patches(self, predictions: Any, windows: Sequence[PatchLocation]) -> Array:
        check_prediction(predictions, self._name, windows, self._tiling.size)
        if not windows:
            return np.empty((0, 0, *self._tiling.size), np.float32)
        floating = predictions.dtype.is_floating_point
        if not floating and self.overlap_mode != "crop":
            raise InferenceError(
                f'{describe(self._name, windows[0])}: predictions of {predictions.dtype} cannot be weighed by "{self.overlap_mode}": '
                'use overlap_mode="crop" for labels, or give floating-point predictions'
            )
        values = predictions.detach().to("cpu", torch.float32 if floating else predictions.dtype).contiguous()
        self._check_same_kind(values, windows)
        array: Array = values.numpy()
        if floating:
            for patch, window in zip(array, windows, strict=True):
                if bad := count_nonfinite(patch):
                    raise InferenceError(
                        f"{describe(self._name, window)}: {bad} of {patch.size} predicted values are NaN or infinite: "
                        "check the model's weights and the image's voxels"
                    )
        if self._volume is None:
            self._volume = np.zeros((array.shape[1], *self._tiling.shape), self._sum_dtype(array))
            self._first = windows[0], values.dtype
        return array

    def _check_same_kind(self, values: torch.Tensor, windows: Sequence[PatchLocation]) -> None:
        if self._volume is None or self._first is None:
            return
        channels, (first, dtype) = len(self._volume), self._first
        if values.shape[1] != channels:
            raise InferenceError(
                f"{describe(self._name, windows[0])}: the prediction has {values.shape[1]} channels, but that of window {box(first)} has "
                f"{channels}"
            )
        if values.dtype != dtype:
            raise InferenceError(
                f"{describe(self._name, windows[0])}: the prediction is {values.dtype}, but that of window {box(first)} is {dtype}"
            )

    def _sum_dtype(self, array: Array) -> Any:
        if self.overlap_mode == "crop":
            return array.dtype
        return np.float32 if self._tiling.covering() <= _FLOAT32_TERMS else np.float64

    def _copy(self, patch: Array, window: PatchLocation, position: Int3) -> None:
        assert self._volume is not None
        bounds = [owned[rank] for owned, rank in zip(self._owned, position, strict=True)]
        into = tuple(slice(low, high) for low, high in bounds)
        part = tuple(slice(low - start, high - start) for (low, high), start in zip(bounds, window.start, strict=True))
        self._volume[(slice(None), *into)] = patch[(slice(None), *part)]

    def _blend(self, patch: Array, window: PatchLocation, position: Int3) -> None:
        assert self._volume is not None
        wi, wj, wk = (weights[rank] for weights, rank in zip(self._weights, position, strict=True))
        inside: Overlap | None = window.overlap(self._tiling.shape)
        assert inside is not None  # every window of a tiling reaches the volume
        add_window(self._volume, patch, (wi, wj, wk), inside)


def check_prediction(prediction: Any, name: str, windows: Sequence[PatchLocation], size: Int3) -> None:
    """Raise `InferenceError`, naming the subject and a window, unless `prediction` is a tensor (B, C, i, j, k) for these windows."""
    if not isinstance(prediction, torch.Tensor):
        what = "None" if prediction is None else f"a {type(prediction).__name__}"
        where = describe(name, windows[0]) if windows else f'subject "{name}"'
        raise InferenceError(f"{where}: the prediction must be a tensor (B, C, i, j, k), not {what}")
    expected = f"({len(windows)}, C, {size[0]}, {size[1]}, {size[2]})"
    shape = tuple(prediction.shape)
    where = describe(name, windows[0]) if windows else f'subject "{name}"'
    if len(shape) != 5 or shape[0] != len(windows) or shape[2:] != size or (shape[1] == 0 and windows):
        raise InferenceError(f"{where}: the prediction must be {expected}, one for each window and of the windows' size, not {shape}")
    if prediction.dtype.is_complex:
        raise InferenceError(f"{where}: the prediction must hold real numbers, not {prediction.dtype}")


def describe(name: str, window: PatchLocation) -> str:
    """The subject and the window, for errors."""
    return f'subject "{name}", window {box(window)}'


def box(window: PatchLocation) -> str:
    """A window as slices: [i0:i1, j0:j1, k0:k1]."""
    return "[" + ", ".join(f"{start}:{stop}" for start, stop in zip(window.start, window.stop, strict=True)) + "]"
