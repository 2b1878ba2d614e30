"""Batches in flight: hand requests to workers, a bounded number ahead, and yield finished batches in order."""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from patchflow.augment.deferred import DeferredBatch
from patchflow.loading.batch import Slots
from patchflow.loading.maker import PatchMaker
from patchflow.loading.plan import Plan, Request, Steps
from patchflow.loading.stats import QueueStats
from patchflow.loading.workers import Done, Task, Workers

Batch = dict[str, Any]
"""A plain dict: each image (B, C, i, j, k), "location" int64 (B, 6), "index" int64 (B,), "subject" a list of B names;
"history" and "deferred" where they were asked for."""


class _Pending:
    """A batch that is being made."""

    def __init__(self, slot: int, requests: list[Request]) -> None:
        self.slot = slot
        self.requests = requests
        self.done: list[Done | None] = [None] * len(requests)
        self.left = len(requests)


class Stream:
    """One pass through the steps of an epoch.

    Args:
        maker, plan, epoch, steps: which patches, and how they are made.
        slots, workers: where and by whom.
        prefetch: batches that are made ahead; needs as many slots, and `SPARE` more for those with the consumer.
        stats: counted into.
    """

    def __init__(
        self,
        maker: PatchMaker,
        plan: Plan,
        epoch: int,
        steps: Steps,
        slots: Slots,
        workers: Workers,
        prefetch: int,
        stats: QueueStats,
    ) -> None:
        self._maker, self._plan, self._epoch, self._steps = maker, plan, epoch, steps
        self._slots, self._workers, self._prefetch, self._stats = slots, workers, prefetch, stats
        self._pending: deque[_Pending] = deque()
        self._in_slot: dict[int, _Pending] = {}
        self._submitted = 0

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        """Yield (step, batch), in order."""
        stats, clock = self._stats, time.perf_counter
        for step in range(len(self._steps)):
            asked = clock()
            self._submit()
            self._account(self._workers.collect(block=False))
            head = self._pending[0]
            stats.ready += sum(len(pending.requests) - pending.left for pending in self._pending)
            while head.left:
                self._account(self._workers.collect(block=True))
            made = clock()
            self._pending.popleft()
            del self._in_slot[head.slot]
            batch = self._assemble(head)
            self._submit()  # so that the workers go on while the consumer works
            stats.starved += made - asked
            stats.batches += 1
            stats.patches += len(head.requests)
            given = clock()
            stats.collate += given - made
            yield step, batch
            del batch  # or the slot would stay in use while the next batch is fetched
            stats.consumer += clock() - given

    def _submit(self) -> None:
        while self._submitted < len(self._steps) and len(self._pending) < self._prefetch:
            requests = [self._plan.request(self._epoch, index) for index in self._steps.indices(self._submitted)]
            pending = _Pending(self._slots.take(), requests)
            self._pending.append(pending)
            self._in_slot[pending.slot] = pending
            for row, request in enumerate(requests):
                self._workers.submit(Task(request, pending.slot, row))
            self._submitted += 1

    def _account(self, finished: list[Done]) -> None:
        for done in finished:
            pending = self._in_slot[done.task.slot]
            pending.done[done.task.row] = done
            pending.left -= 1
            self._stats.add_patch(done.nanoseconds, done.location.target)

    def _assemble(self, pending: _Pending) -> Batch:
        rows = len(pending.requests)
        batch: Batch = dict(self._slots.hand_over(pending.slot, rows, needed=self._prefetch - len(self._pending)))
        done = [done for done in pending.done if done is not None]
        batch["location"] = torch.from_numpy(np.stack([patch.location.as_array() for patch in done]))
        batch["index"] = torch.tensor([request.index for request in pending.requests], dtype=torch.int64)
        batch["subject"] = [self._maker.cache.names[request.entry] for request in pending.requests]
        if self._maker.history:
            batch["history"] = [patch.parameters for patch in done]
        if self._maker.defers:
            batch["deferred"] = DeferredBatch([patch.deferred for patch in done if patch.deferred is not None], self._maker.dtypes)
        return batch
