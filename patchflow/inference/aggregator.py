"""Predictions of windows, stitched back into a volume: whole, or slab by slab while windows come."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from patchflow.errors import InferenceError
from patchflow.geometry.grid import Tiling
from patchflow.geometry.location import Overlap, PatchLocation
from patchflow.geometry.windows import OverlapMode, axis_weights, check_overlap_mode, crop_bounds
from patchflow.inference.checks import box, check_finite, check_prediction, describe, float_channels
from patchflow.inference.grid import GridSampler
from patchflow.inference.ledger import Ledger
from patchflow.inference.ring import Ring
from patchflow.kernels.blend import add_window
from patchflow.types import Array, Int3, ScaleLike, fraction3

_FLOAT32_TERMS = 32
"""Rounding grows with the windows that are added to one voxel: at 27 (an overlap of one half) float32 stays well within 1e-6 of the range,
at some hundreds (an overlap of 7/8) it does not."""

OnSlab = Callable[[int, torch.Tensor, torch.Tensor | None], None]
"""Called with the first slice of a slab, the slab (C, i, J, K), and which of its voxels (i, J, K) a window covers; None for all of them."""


class Brick(NamedTuple):
    """A part of a slab that no window to come reaches. Its memory is used again.

    Attributes:
        first, stop: the slices along I of the slab that it belongs to.
        place: its own first slice.
        low: its first voxel along J; along K it is whole. Bricks of a slab come in ascending order of J.
        values: (C, i, j, K).
        covered: which of its voxels (i, j, K) a window covers; None for all of them.
    """

    first: int
    stop: int
    place: int
    low: int
    values: torch.Tensor
    covered: torch.Tensor | None


OnBrick = Callable[[Brick], None]


_CROPS = ("crop", "crop", "crop")


def sum_dtype(tiling: Tiling, overlap_mode: OverlapMode) -> Any:
    """The dtype of sums: float32, or float64 where more than 32 windows meet in a voxel."""
    return np.float32 if check_overlap_mode(overlap_mode) == _CROPS or tiling.covering() <= _FLOAT32_TERMS else np.float64


class GridAggregator:
    """Stitches the predictions of a grid's windows into one volume; each window is given once.

    Where windows overlap, predictions are combined by weights that sum to one at every voxel (`patchflow.geometry.windows`): stitching the
    windows of a volume gives that volume to 1e-6 of its range, borders and corners included. Where windows were left out (by the grid's
    mask, or by `skip`), the sum of the weights that did come divides instead; voxels that no window covers are 0. Sums are float32, or
    float64 where more than 32 windows meet in a voxel. Several outputs of one model take one aggregator each.

    Without `on_slab` windows may come in any order, and the memory taken is that of the output. With it they come in the grid's order, and
    slices leave as soon as no later window reaches them: the memory taken is that of slices as many as a window is thick. With `on_brick`
    parts of slices leave too, and memory is held for the voxels alone that windows have reached and others will.

    Args:
        grid: the grid that the windows come from.
        overlap_mode: "crop" takes each voxel from the window whose middle is nearest (overlaps are split at their middle) and is the one
            for integers; "average" weighs all equally; "hann" and "gaussian" weigh the middle of a window more than its borders; a function
            of a size in voxels returns that many weights of at least 0. One for all axes, or three (I, J, K).
        scale: voxels of the output per voxel of the input along each axis, a rational number or three: a model that predicts at half the
            resolution has 1/2. The grid's windows must start at multiples of its denominator (`GridSampler(multiple=)`).
        on_slab: called with finished slabs, in order: `on_slab(first, slab, covered)` with the slab's first slice along I, its voxels
            (C, i, J, K) and, where not all are covered by a window, which are, bool (i, J, K). The slab's memory is used again afterwards:
            clone what you keep.
        on_brick: called instead with parts of slabs, which leave earlier still: see `Brick`.
        scratch_dir: a folder for a scratch file that holds the slices in work instead of memory.

    Raises:
        ArgumentError: for another `overlap_mode`, or a `scale` in which windows are no whole voxels.
    """

    def __init__(
        self,
        grid: GridSampler,
        overlap_mode: OverlapMode = "crop",
        *,
        scale: ScaleLike = 1,
        on_slab: OnSlab | None = None,
        on_brick: OnBrick | None = None,
        scratch_dir: str | Path | None = None,
    ) -> None:
        self._modes = modes = check_overlap_mode(overlap_mode)
        self._crops = modes == _CROPS
        self._name = grid.name
        self.tiling = grid.tiling.scaled(fraction3(scale, "scale"))
        axes = list(zip(modes, self.tiling.starts, self.tiling.size, self.tiling.shape, strict=True))
        self._weights = [axis_weights(mode, starts, size, n) for mode, starts, size, n in axes]
        self._owned = [crop_bounds(starts, size, n) for _, starts, size, n in axes]
        self._on_slab, self._on_brick = on_slab, on_brick
        self._streams = on_slab is not None or on_brick is not None
        self._scratch = None if scratch_dir is None else Path(scratch_dir)
        self._ledger = Ledger(grid)
        self._row, self._band, self._final, self._done, self._partial = 0, 0, 0, 0, False
        self._ring: Ring | None = None
        self._counts: Ring | None = None
        self._first: tuple[PatchLocation, torch.dtype] | None = None
        self._advance()

    @property
    def complete(self) -> bool:
        """Whether every window of the grid was added or skipped."""
        return not self._ledger.waiting.any()

    def add_batch(self, predictions: torch.Tensor, locations: torch.Tensor | npt.NDArray[np.int64]) -> None:
        """Add the predictions of some windows. A batch that is refused changes nothing.

        Args:
            predictions: (B, C, i, j, k) of any device: floating point (float16 and bfloat16 become float32 first, and so does float64), or
                integers if the mode is "crop".
            locations: integers (B, 6), start then stop, as in the grid's "location".

        Raises:
            InferenceError: names the subject and the window whose prediction cannot be used: of another size or another number of channels,
                NaN or infinite, already added, out of order where slabs are given out, or of no window of this grid.
        """
        windows, positions = self._ledger.read(locations)
        values = self._values(predictions, windows)
        if self._streams:
            self._ledger.check_order(windows, positions)
        if not windows:
            return
        self._prepare(values, windows[0])
        for patch, position in zip(values, positions, strict=True):
            if self._crops:
                self._copy(patch, position)
            else:
                self._blend(patch, position)
            if self._counts is not None:
                self._count(position)
            self._ledger.waiting[position], self._ledger.added[position] = False, True
            self._advance()

    def skip(self, locations: torch.Tensor | npt.NDArray[np.int64]) -> None:
        """Say that some windows get no prediction; their voxels are those of the windows that overlap them, or 0.

        Args:
            locations: as in `add_batch`.

        Raises:
            InferenceError: for locations that are no window of this grid, or were added or skipped before.
        """
        for position in self._ledger.read(locations)[1]:
            self._ledger.waiting[position] = False
        self._advance()

    def get_output_tensor(self) -> torch.Tensor:
        """The stitched volume (C, I, J, K): float32, or the predictions' integer dtype. It shares memory with the aggregator.

        Raises:
            InferenceError: if windows are missing (says how many and where the first one lies), or the slabs were given out.
        """
        if self._streams:
            raise InferenceError(f'subject "{self._name}": its slabs were given to on_slab, and are not kept: leave on_slab out')
        self.check_complete()
        assert self._ring is not None
        self._count_if_needed()
        self._normalise(self._ring.values, 0)
        self._counts, self._partial = None, False
        volume = torch.from_numpy(self._ring.values)
        return volume.to(torch.float32) if volume.dtype == torch.float64 else volume

    def check_complete(self) -> None:
        """Raise `InferenceError` if windows are missing, or none was given."""
        self._ledger.check_complete(self._ring is not None)

    def _values(self, predictions: Any, windows: Sequence[PatchLocation]) -> torch.Tensor:
        """The predictions on the CPU, checked."""
        check_prediction(predictions, self._name, windows, self.tiling.size)
        if not windows:
            return torch.empty(0)
        floating = predictions.dtype.is_floating_point
        if not floating and not self._crops:
            raise InferenceError(
                f"{describe(self._name, windows[0])}: predictions of {predictions.dtype} cannot be weighed: "
                'use overlap_mode="crop" for labels, or give floating-point predictions'
            )
        values: torch.Tensor = predictions.detach().to("cpu")
        self._check_same_kind(values, windows)
        if floating:
            check_finite(values, self._name, windows)
        return values

    def _check_same_kind(self, values: torch.Tensor, windows: Sequence[PatchLocation]) -> None:
        if self._ring is None or self._first is None:
            return
        channels, (first, dtype) = len(self._ring.values), self._first
        if values.shape[1] != channels:
            raise InferenceError(
                f"{describe(self._name, windows[0])}: the prediction has {values.shape[1]} channels, but that of window {box(first)} has "
                f"{channels}"
            )
        if values.dtype != dtype:
            raise InferenceError(
                f"{describe(self._name, windows[0])}: the prediction is {values.dtype}, but that of window {box(first)} is {dtype}"
            )

    def _prepare(self, values: torch.Tensor, window: PatchLocation) -> None:
        if self._ring is not None:
            return
        self._first = window, values.dtype
        dtype: Any = values[:0].numpy().dtype if not values.dtype.is_floating_point else sum_dtype(self.tiling, self._modes)
        self._ring = Ring(values.shape[1], self.depth(), self.tiling.shape, dtype, self._scratch, gives_back=self._on_brick is not None)
        self._give_out()  # of the rows that the mask leaves out

    def depth(self) -> int:
        """Slices held at a time."""
        n, size = self.tiling.shape[0], self.tiling.size[0]
        return min(n, size) if self._streams else n

    def _copy(self, patch: torch.Tensor, position: Int3) -> None:
        """What the window owns, into its place."""
        assert self._ring is not None
        values, start = torch.from_numpy(self._ring.values), self._place(position).start
        for rows, voxels in self._owned_voxels(position):
            part = tuple(slice(v.start - first, v.stop - first) for v, first in zip(voxels, start, strict=True))
            values[:, rows, voxels[1], voxels[2]] = patch[(slice(None), *part)].to(values.dtype)
        self._ring.let_go()

    def _blend(self, patch: torch.Tensor, position: Int3) -> None:
        assert self._ring is not None
        weights, inside = self._weighing(position)
        for ring, channel in zip(self._ring.values, float_channels(patch), strict=True):
            add_window(ring, channel, weights, inside)
            self._ring.let_go()

    def _count(self, position: Int3) -> None:
        """Add the weights of a window to their sum, in slices that have not left yet: others' places in the ring are taken."""
        assert self._counts is not None
        if not self._crops:
            weights, (volume, patch) = self._weighing(position)
            late = max(self._final - volume[0].start, 0)
            volume = (slice(volume[0].start + late, volume[0].stop), *volume[1:])
            patch = (slice(patch[0].start + late, patch[0].stop), *patch[1:])
            add_window(self._counts.values[0], np.ones(self.tiling.size, np.float32), weights, Overlap(volume, patch))
            return
        for rows, (_, j, k) in self._owned_voxels(position, self._final):
            self._counts.values[0, rows, j, k] = 1

    def _owned_voxels(self, position: Int3, since: int = 0) -> Iterator[tuple[slice, tuple[slice, slice, slice]]]:
        """The box that a window owns, in one or two parts that stand together in the ring: where, and of which voxels of the volume."""
        assert self._ring is not None
        depth = self._ring.depth
        i, j, k = (slice(*owned[rank]) for owned, rank in zip(self._owned, position, strict=True))
        first = max(i.start, since)
        while first < i.stop:
            place = first % depth
            last = min(i.stop, first + depth - place)
            yield slice(place, place + last - first), (slice(first, last), j, k)
            first = last

    def _weighing(self, position: Int3) -> tuple[tuple[Any, Any, Any], Overlap]:
        """The weights of a window along each axis, and its part in the volume."""
        wi, wj, wk = (weights[rank] for weights, rank in zip(self._weights, position, strict=True))
        inside = self._place(position).overlap(self.tiling.shape)
        assert inside is not None  # every window of a tiling reaches the volume
        return (wi, wj, wk), inside

    def _place(self, position: Int3) -> PatchLocation:
        """Where a window lies in the output."""
        i, j, k = (starts[rank] for starts, rank in zip(self.tiling.starts, position, strict=True))
        return PatchLocation((i, j, k), self.tiling.size)

    def _advance(self) -> None:
        """Pass the windows that wait for no prediction any more: bands of one start along I and J, and rows of one start along I."""
        rows, bands, _ = self.tiling.counts
        while self._row < rows and not self._ledger.waiting[self._row, self._band].any():
            self._partial = self._partial or not self._ledger.added[self._row, self._band].all()
            self._band += 1
            if self._band == bands:
                self._row, self._band = self._row + 1, 0
            self._give_out()

    def _give_out(self) -> None:
        """Give out what no window to come reaches: slices before the row at hand, and for bricks, of its own slices what lies before J."""
        if self._ring is None or (self._on_slab is None and self._on_brick is None):
            return
        self._count_if_needed()
        _, j, _ = self.tiling.shape
        edge = self._edge(0, self._row)
        if edge > self._final:
            self._leave(self._final, edge, self._done, j)
            self._final, self._done = edge, 0
        if self._on_brick is not None and self._band:
            done = self._edge(1, self._band)
            self._leave(self._final, self._edge(0, self._row + 1), self._done, done)
            self._done = done

    def _edge(self, axis: int, rank: int) -> int:
        """The first voxel that a window of this rank along an axis reaches; the end of the volume after the last."""
        return self.tiling.shape[axis] if rank >= self.tiling.counts[axis] else max(self.tiling.starts[axis][rank], 0)

    def _leave(self, first: int, stop: int, low: int, high: int) -> None:
        """Hand over slices `first` to `stop`, of each what lies from `low` to `high` along J, and clear their places."""
        assert self._ring is not None
        for place, piece in self._ring.pieces(first, stop, low, high):
            covered = self._normalise(piece, place, low)
            values = torch.from_numpy(piece)
            values = values.to(torch.float32) if values.dtype == torch.float64 else values
            if self._on_brick is not None:
                self._on_brick(Brick(first, stop, place, low, values, covered))
            elif self._on_slab is not None:
                self._on_slab(place, values, covered)
            self._ring.let_go()
        if stop == self.tiling.shape[0]:
            return  # nothing comes to take their places
        for ring in (self._ring, self._counts):
            if ring is not None:
                ring.clear(first, stop, low, high)

    def _count_if_needed(self) -> None:
        """Where windows were left out, weights do not sum to one: from here on they are summed, those already added included."""
        if self._counts is not None or self._ring is None or not self._partial:
            return
        self._counts = Ring(1, self._ring.depth, self.tiling.shape, np.uint8 if self._crops else self._ring.values.dtype)
        for a, b, c in np.argwhere(self._ledger.added).tolist():
            if self._place((a, b, c)).stop[0] > self._final:
                self._count((a, b, c))
        if self._done:
            self._counts.clear(self._final, self._edge(0, self._row + 1), 0, self._done)

    def _normalise(self, piece: Array, first: int, low: int = 0) -> torch.Tensor | None:
        """Divide voxels by the sum of weights, where windows were left out; gives which are covered, None for all."""
        if self._counts is None:
            return None
        place = first % self._counts.depth
        sums = self._counts.values[0, place : place + piece.shape[1], low : low + piece.shape[2]]
        covered = sums > 0
        if not self._crops:
            np.divide(piece, sums, out=piece, where=covered)
        return None if covered.all() else torch.from_numpy(covered)
