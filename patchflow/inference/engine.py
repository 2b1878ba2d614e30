"""Windows of many subjects through a model: read ahead by one thread, stitched by another, while the model runs."""

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from patchflow.geometry.location import PatchLocation
from patchflow.inference.checks import describe, rows_of
from patchflow.inference.flight import Flight
from patchflow.inference.grid import GridSampler
from patchflow.inference.memory import AHEAD
from patchflow.inference.modes import evaluating
from patchflow.inference.sources import find_image
from patchflow.inference.stitching import Results, Stitching
from patchflow.inference.views import Views
from patchflow.types import Array

Item = TypeVar("Item")
Finished = list[tuple[Stitching, Results]]
IsEmpty = Callable[[torch.Tensor], bool]
"""Called with a window (C, i, j, k): whether it holds nothing worth predicting."""


@dataclass
class WindowBatch:
    """Windows for one call of the model, of one subject or of several.

    Attributes:
        room: float32 (B, C, i, j, k).
        seen: the same windows as other views show them.
        windows: of each row the subject and the place.
        skipped: windows found empty on the way.
    """

    room: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    seen: list[torch.Tensor] = field(default_factory=list)
    windows: list[tuple[Stitching, PatchLocation]] = field(default_factory=list)
    skipped: list[tuple[Stitching, PatchLocation]] = field(default_factory=list)


class Engine:
    """Predicts subject after subject; batches reach from one into the next, so that all but the last are full.

    Args:
        views: the model, and how it looks at windows.
        batch_size: windows per call of the model.
        device: where windows are sent.
        skip_empty: windows for which it is true are not predicted, but for the first of a subject, which tells what the model returns.
        progress: whether to show a bar with windows per second and the time left.
    """

    def __init__(
        self, views: Views, batch_size: int, device: torch.device, skip_empty: IsEmpty | None = None, progress: bool = True
    ) -> None:
        self._views, self._batch_size, self._device, self._skip_empty = views, batch_size, device, skip_empty
        self._progress = progress

    def run(self, subjects: Iterable[Stitching], total: int | None = None) -> Iterator[tuple[Stitching, Results]]:
        """Predict subjects; each comes out with its results when its last window is stitched.

        The subjects are asked for by the reading thread, as it comes to them. After an error, or when the iteration is left, those that
        are not finished are aborted.

        Args:
            subjects: what to predict.
            total: windows of all of them, for the bar.
        """
        begun: list[Stitching] = []
        flight: Flight[Finished] = Flight()
        bar = tqdm(total=total, unit="window", disable=not self._progress)
        try:
            with evaluating(self._views.models):
                for batch in ahead(self._batches(subjects, begun), AHEAD):
                    subject = (batch.windows or batch.skipped)[-1][0]
                    bar.set_description(subject.grid.name, refresh=False)
                    outputs = self._predicted(batch) if batch.windows else {}
                    batch.room, batch.seen = torch.empty(0), []  # not held while the predictions are stitched
                    landed = flight.add(partial(_stitch, batch), outputs, subject.budget)
                    count = len(batch.windows) + len(batch.skipped)
                    del outputs, batch
                    yield from _finished(landed, begun)
                    bar.update(count)
                yield from _finished(flight.land(), begun)
        except BaseException:
            flight.stop()  # waits for the batch in work, which writes to what is aborted
            for subject in begun:
                subject.abort()
            raise
        finally:
            bar.close()
            flight.stop()

    def _predicted(self, batch: WindowBatch) -> dict[str, Any]:
        pinned = self._device.type == "cuda"  # elsewhere the copy must have ended before its memory is used again
        values, *seen = (part.to(self._device, non_blocking=pinned) for part in (batch.room, *batch.seen))
        return self._views(values, seen, [(subject.grid.source, place) for subject, place in batch.windows])

    def _batches(self, subjects: Iterable[Stitching], begun: list[Stitching]) -> Iterator[WindowBatch]:
        rooms, batch = _Rooms(self._device.type == "cuda"), WindowBatch()
        for subject in subjects:
            begun.append(subject)
            shape = (self._batch_size, channels_of(subject.grid), *subject.grid.patch_size)
            if batch.windows and batch.room.shape != shape:
                yield self._complete(batch)
                batch = WindowBatch()
            for index in range(len(subject.grid)):
                if not batch.windows:
                    batch.room = rooms.take(shape)
                place, row = subject.grid.location(index), batch.room[len(batch.windows)]
                read_window(subject.grid, place, row)
                if index and self._is_empty(row, subject, place):
                    batch.skipped.append((subject, place))
                    continue
                batch.windows.append((subject, place))
                if len(batch.windows) == self._batch_size:
                    yield self._complete(batch)
                    batch = WindowBatch()
        if batch.windows or batch.skipped:
            yield self._complete(batch)

    def _is_empty(self, window: torch.Tensor, subject: Stitching, place: PatchLocation) -> bool:
        if self._skip_empty is None:
            return False
        try:
            return bool(self._skip_empty(window))
        except Exception as error:
            error.add_note(f"in skip_empty, for {describe(subject.grid.name, place)}")
            raise

    def _complete(self, batch: WindowBatch) -> WindowBatch:
        batch.room = batch.room[: len(batch.windows)]
        if batch.windows:
            batch.seen = self._views.see([(subject.grid.source, place) for subject, place in batch.windows])
        return batch


class _Rooms:
    """Memory for batches, used again once nobody holds a tensor of it: fresh memory costs a page fault for every 4 KiB."""

    def __init__(self, pinned: bool) -> None:
        self._pinned = pinned
        self._rooms: list[tuple[Array, weakref.ref[Array]]] = []

    def take(self, shape: tuple[int, ...]) -> torch.Tensor:
        if self._pinned:
            return torch.empty(shape, pin_memory=True)  # PyTorch's own allocator uses page-locked memory again
        rooms = [(array, user) for array, user in self._rooms if array.shape == shape]
        array = next((array for array, user in rooms if user() is None), None)
        if array is None:
            array = np.empty(shape, np.float32)
        root = array[:]  # every tensor made from it keeps it alive through their common storage, so its end is the end of their use
        self._rooms = [*((other, user) for other, user in rooms if other is not array), (array, weakref.ref(root))]
        return torch.from_numpy(root)


def channels_of(grid: GridSampler) -> int:
    """Channels of all images of a grid."""
    return sum(find_image(grid.source, name).shape[0] for name in grid.keys)


def read_window(grid: GridSampler, place: PatchLocation, row: torch.Tensor) -> None:
    """Read a window into `row`, float32 (C, i, j, k): the grid's images along the channels, each straight into its place."""
    array, first = row.numpy(), 0
    for name in grid.keys:
        info = find_image(grid.source, name)
        part = array[first : first + info.shape[0]]
        if info.kind == "scalar":
            grid.read(name, place, out=part)
        else:
            part[...] = grid.read(name, place)
        first += info.shape[0]


def ahead(items: Iterator[Item], number: int) -> Iterator[Item]:
    """The items of an iterator that runs in a thread of its own, up to `number` of them ahead of the consumer."""
    end: Any = object()
    with ThreadPoolExecutor(1, thread_name_prefix="patchflow-read") as pool:
        coming = deque(pool.submit(next, items, end) for _ in range(number))
        try:
            while (item := coming.popleft().result()) is not end:
                coming.append(pool.submit(next, items, end))
                yield item
                del item
        finally:
            pool.shutdown(cancel_futures=True)


def _finished(landed: Iterable[Finished], begun: list[Stitching]) -> Finished:
    """Subjects that are whole; they are begun no more, so that their volumes can go."""
    finished = [done for each in landed for done in each]
    for subject, _ in finished:
        begun.remove(subject)
    return finished


def _stitch(batch: WindowBatch, outputs: Mapping[str, Any]) -> Finished:
    """Add a batch to its subjects; gives those that are whole now, with their results."""
    for subject, place in batch.skipped:
        subject.skip(place)
    row = 0
    for subject, members in groupby(batch.windows, key=lambda window: window[0]):
        places = [place for _, place in members]
        subject.add({name: rows_of(value, row, row + len(places), len(batch.windows)) for name, value in outputs.items()}, places)
        row += len(places)
    of_batch = dict.fromkeys(subject for subject, _ in [*batch.windows, *batch.skipped])
    return [(subject, subject.finish()) for subject in of_batch if subject.complete]
