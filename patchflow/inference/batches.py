"""Batches of the windows of the entries of a cache: what a loop of validation or prediction iterates over."""

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Any

import torch

from patchflow.cache.read import Cache
from patchflow.errors import ArgumentError
from patchflow.inference.grid import GridSampler
from patchflow.inference.plan import Plan
from patchflow.inference.settings import plain
from patchflow.loading.batch import BatchLayout, batch_layout
from patchflow.types import SizeLike, count, int3


class WindowBatches:
    """Windows of several grids as batches, in order.

    Batches are dicts as those of a queue: each image (B, C, i, j, k), float32 or the label map's integers; "location" int64 (B, 6), start
    then stop; "index" int64 (B,), the window's number in its subject's grid; "subject", B names. A batch may hold windows of two subjects.

    Args:
        grids: the windows of each subject.
        shares: the windows of each batch, numbered through all grids.
        layout: of the batches.
        num_workers: threads that read ahead; 0 reads in the consumer's thread.
        pin_memory: put batches in page-locked memory.
    """

    def __init__(
        self, grids: Sequence[GridSampler], shares: Sequence[range], layout: BatchLayout, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        self._grids, self._shares, self._layout = grids, shares, layout
        self._ends = list(accumulate(len(grid) for grid in grids))
        self._num_workers, self._pin_memory = num_workers, pin_memory

    def __len__(self) -> int:
        """Batches on this rank."""
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


class GridBatches(WindowBatches):
    """Every window of every entry, once, in order, as batches; what they hold is told at `WindowBatches`.

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
        grids = [GridSampler(entry, patch_size, patch_overlap, keys=keys, fill=fill) for entry in cache]
        shares = _shares(sum(map(len, grids)), batch_size, rank, world_size)
        most = max(len(share) for share in shares)
        layout = batch_layout(cache, int3(patch_size, "patch_size"), most, None if keys is None else tuple(keys))
        super().__init__(grids, shares, layout, num_workers, pin_memory)


class SubjectBatches(WindowBatches):
    """Every window of whole subjects, which ranks share among them: batches to be predicted and stitched.

    The windows of a subject all come on one rank, in the grid's order, I slowest; a batch may reach from one subject into the next. A rank
    without a subject has no batch. What batches hold is told at `WindowBatches`.

    Args:
        cache: whose entries.
        plan: patch size, overlap, images, fill, outside and batch size.
        mask: the name of an image: only windows that touch it come; see `GridSampler`.
        done: names of subjects to leave out.
        num_workers, pin_memory: see `WindowBatches`.
        rank, world_size: this process's share.

    Attributes:
        batch_size: windows per batch.
        grids: the windows of each subject of this rank, by name.
        record: what tells these windows from others, as plain JSON values.

    Raises:
        ArgumentError: for sizes that cannot be used, or a mask that no window touches.
        UnknownNameError, SubjectError: if the entries do not have the same images.
    """

    def __init__(
        self,
        cache: Cache,
        plan: Plan,
        mask: str | None = None,
        *,
        done: Collection[str] = (),
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        entries = [entry for entry in cache if entry.name not in done]
        mine = subjects_of_rank([plan.window_count(entry.shape) for entry in entries], rank, world_size)
        grids = [plan.grid(entries[number], mask) for number in mine]
        windows, size = sum(map(len, grids)), plan.batch_size
        shares = [range(start, min(start + size, windows)) for start in range(0, windows, size)]
        layout = batch_layout(cache, int3(plan.patch_size, "patch_size"), size, tuple(plan.images))
        super().__init__(grids, shares, layout, num_workers, pin_memory)
        self.batch_size, self.grids = size, {grid.name: grid for grid in grids}
        self.record = windows_record(cache, plan, mask)


def windows_record(cache: Cache, plan: Plan, mask: str | None = None) -> dict[str, Any]:
    """What tells the windows of `SubjectBatches` from others, as plain JSON values; the batch size does not."""
    size, overlap = (list(int3(value, "size", 0)) for value in (plan.patch_size, plan.overlap))
    fixed = {"patch_size": size, "patch_overlap": overlap, "mask": mask, "preprocess": cache.fingerprint}
    return fixed | {name: plain(getattr(plan, name)) for name in ("images", "fill", "outside")}


def intensity_images(cache: Cache, keys: Sequence[str] | None = None) -> list[str]:
    """The names of the intensity images of a cache's entries, of those that `keys` name, if given.

    Raises:
        ArgumentError: if there is none.
    """
    first = cache[0]
    names = [name for name, image in first.images.items() if image.kind == "scalar" and (keys is None or name in keys)]
    if not names:
        raise ArgumentError(f'subject "{first.name}" has no intensity image to predict from: name images by predict_keys=')
    return names


def subjects_of_rank(windows: Sequence[int], rank: int, world_size: int) -> list[int]:
    """The numbers of the subjects that a rank takes, in order, given how many windows each has.

    The subject with the most windows goes first, each to the rank with the fewest so far: no rank gets more than 4/3 of what the best
    sharing gives it (Graham, SIAM Journal on Applied Mathematics 17, 1969).
    """
    loads, mine = [0] * world_size, []
    for number in sorted(range(len(windows)), key=lambda number: (-windows[number], number)):
        least = loads.index(min(loads))
        loads[least] += windows[number]
        if least == rank:
            mine.append(number)
    return sorted(mine)


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
