"""Batches of the windows of all entries of a cache: what a validation loop iterates over."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Any

import torch

from patchflow.cache.read import Cache
from patchflow.errors import ArgumentError
from patchflow.inference.grid import GridSampler
from patchflow.loading.batch import batch_layout
from patchflow.types import SizeLike, count, int3


class GridBatches:
    """Every window of every entry, once, in order, as batches.

    Batches are dicts as those of a queue: each image (B, C, i, j, k), float32 or the label map's integers; "location" int64 (B, 6), start
    then stop; "index" int64 (B,), the window's number in its subject's grid; "subject", B names. A batch may hold windows of two subjects.

    With several ranks each has a contiguous share of all windows, and all ranks have the same number of batches, so that none waits for
    another: shares differ by one window at most, and where needed one batch is smaller, or (with `batch_size` 1) larger, by one window.
    No window is repeated and none left out.

    Args:
        cache: whose entries.
        patch_size, patch_overlap: of the grids, in voxels; see `GridSampler`.
        batch_size: windows per batch.
        keys: the images that batches hold; all by default.
        fill: the value of voxels outside the volume; see `GridSampler`.
        num_workers: threads that read ahead; 0 reads in the consumer's thread.
        rank, world_size: this process's share.
        pin_memory: put batches in page-locked memory.

    Raises:
        ArgumentError: for sizes that cannot be used, or fewer windows than ranks.
        UnknownNameError, SubjectError: if the entries do not have the same images.
    """

    def __init__(
        self,
        cache: Cache,
        patch_size: SizeLike,
        patch_overlap: SizeLike = 0,
        *,
        batch_size: int = 2,
        keys: Sequence[str] | None = None,
        fill: float | Mapping[str, float] = 0,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self._grids = [GridSampler(entry, patch_size, patch_overlap, keys=keys, fill=fill) for entry in cache]
        self._ends = list(accumulate(len(grid) for grid in self._grids))
        self._shares = _shares(self._ends[-1], batch_size, rank, world_size)
        most = max(len(share) for share in self._shares)
        self._layout = batch_layout(cache, int3(patch_size, "patch_size"), most, None if keys is None else tuple(keys))
        self._num_workers, self._pin_memory = num_workers, pin_memory

    def __len__(self) -> int:
        """Batches on this rank, which is the same number on every rank."""
        return len(self._shares)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self._num_workers:
            yield from map(self._batch, self._shares)
            return
        pool = ThreadPoolExecutor(self._num_workers, thread_name_prefix="patchflow-grid")
        ahead: deque[Future[dict[str, Any]]] = deque()
        try:
            for share in self._shares:
                ahead.append(pool.submit(self._batch, share))
                if len(ahead) > self._num_workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _batch(self, windows: range) -> dict[str, Any]:
        storage = torch.empty(max(self._layout.nbytes, 1), dtype=torch.uint8, pin_memory=self._pin_memory)
        batch: dict[str, Any] = self._layout.views(storage, len(windows))
        located = [self._locate(window) for window in windows]
        for row, (grid, index) in enumerate(located):
            location = grid.location(index)
            for field in self._layout.fields:
                grid.read(field.name, location, out=batch[field.name][row].numpy())
        batch["location"] = torch.stack([torch.from_numpy(grid.locations[index]) for grid, index in located])
        batch["index"] = torch.tensor([index for _, index in located], dtype=torch.int64)
        batch["subject"] = [grid.name for grid, _ in located]
        return batch

    def _locate(self, window: int) -> tuple[GridSampler, int]:
        """The grid that a window of all windows belongs to, and its number there."""
        number = bisect_right(self._ends, window)
        return self._grids[number], window - (self._ends[number - 1] if number else 0)


def _shares(windows: int, batch_size: int, rank: int, world_size: int) -> list[range]:
    """The windows of each batch of a rank."""
    batch_size = count(batch_size, "batch_size", 1)
    least, most = windows // world_size, -(-windows // world_size)
    if not least:
        raise ArgumentError(
            f"the subjects have {windows} windows for {world_size} ranks, and a rank without one would wait for ever: "
            "give more subjects, smaller patches, or fewer ranks"
        )
    batches = min(-(-most // batch_size), least)
    low, high = rank * windows // world_size, (rank + 1) * windows // world_size
    share, extra = divmod(high - low, batches)
    starts = [low + number * share + min(number, extra) for number in range(batches + 1)]
    return [range(start, stop) for start, stop in pairwise(starts)]
