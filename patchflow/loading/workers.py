"""Carry out requests in the consumer's thread or in other threads. `processes.py` does the same in processes."""

import threading
from collections import deque
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

import torch

from patchflow.augment.deferred import Deferred
from patchflow.errors import WorkerError
from patchflow.geometry.location import PatchLocation
from patchflow.loading.batch import Slots
from patchflow.loading.maker import PatchMaker
from patchflow.loading.plan import Request


@dataclass(frozen=True)
class Task:
    """Make the patch of `request` and write it as number `row` of the batch in `slot`."""

    request: Request
    slot: int
    row: int


@dataclass(frozen=True)
class Done:
    """A task that is finished, and what is to be told about its patch."""

    task: Task
    location: PatchLocation
    nanoseconds: dict[str, int]
    parameters: dict[str, Any] | None = None
    deferred: Deferred | None = None


class Workers(Protocol):
    """What a queue needs of its workers."""

    def submit(self, task: Task) -> None:
        """Put a task in line; returns at once."""

    def collect(self, block: bool) -> list[Done]:
        """Tasks finished since the last call; with `block` at least one. Raises `WorkerError` as soon as a worker fails."""

    def close(self) -> None:
        """End all workers and return when they are gone. Unfinished tasks are given up."""


@torch.no_grad()  # patches are data, whichever thread makes them
def carry_out(maker: PatchMaker, slots: Slots, task: Task) -> Done:
    """Make the patch of `task` straight into its place in its slot, or read what a device will make it of."""
    if maker.defers:
        made = maker.defer(task.request)
    else:
        views = slots.layout.views(slots.storages[task.slot], slots.layout.batch_size)
        made = maker.make(task.request, {name: view[task.row] for name, view in views.items()})
    return Done(task, made.location, made.nanoseconds, made.parameters if maker.history else None, made.deferred)


def failure(maker: PatchMaker, request: Request, error: BaseException | str) -> WorkerError:
    """The error that ends a run, naming the patch and its subject."""
    what = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else error
    where = f"queue.replay({request.epoch}, {request.index}) makes it again here"
    return WorkerError(f"making {maker.describe(request)} failed: {what} ({where})")


class InlineWorkers:
    """No workers: the consumer's thread makes each patch when it asks for it."""

    def __init__(self, maker: PatchMaker, slots: Slots) -> None:
        self._maker, self._slots = maker, slots
        self._tasks: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def collect(self, block: bool) -> list[Done]:
        if not block:
            return []
        task = self._tasks.popleft()
        try:
            return [carry_out(self._maker, self._slots, task)]
        except Exception as error:
            raise failure(self._maker, task.request, error) from error

    def close(self) -> None:
        self._tasks.clear()


class ThreadWorkers:
    """Threads of this process. The kernels release the interpreter lock, and nothing is copied between processes."""

    def __init__(self, maker: PatchMaker, slots: Slots, count: int) -> None:
        self._maker = maker
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._results: SimpleQueue[Done | tuple[Task, BaseException]] = SimpleQueue()
        self._ending = threading.Event()
        arguments = maker, slots, self._tasks, self._results, self._ending
        # Daemons, so that an interpreter that exits in the middle of an epoch does not wait for them.
        self._threads = [
            threading.Thread(target=_work, args=arguments, name=f"patchflow-worker-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Task) -> None:
        self._tasks.put(task)

    def collect(self, block: bool) -> list[Done]:
        finished: list[Done] = []
        while (block and not finished) or not self._results.empty():
            result = self._results.get()
            if isinstance(result, Done):
                finished.append(result)
            else:
                raise failure(self._maker, result[0].request, result[1]) from result[1]
        return finished

    def close(self) -> None:
        self._ending.set()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():  # the garbage collector may close a dropped iteration in a worker of its own
                thread.join()


def _work(
    maker: PatchMaker,
    slots: Slots,
    tasks: "SimpleQueue[Task | None]",
    results: "SimpleQueue[Done | tuple[Task, BaseException]]",
    ending: threading.Event,
) -> None:
    while (task := tasks.get()) is not None and not ending.is_set():
        try:
            results.put(carry_out(maker, slots, task))
        except BaseException as error:
            results.put((task, error))
