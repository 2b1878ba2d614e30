"""Carry out requests in processes, which write finished patches into batches in shared memory.

Each worker has a pipe of its own, on which only tasks and small answers travel. A worker that dies is noticed by its sentinel, and the
first task that it left unanswered is the one that it died over. No lock is shared, so no dead worker can leave one held.
"""

import gc
import multiprocessing
import os
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Sequence
from multiprocessing import connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from patchflow.errors import ArgumentError, WorkerError
from patchflow.loading.batch import Slots
from patchflow.loading.maker import PatchMaker
from patchflow.loading.workers import Done, Task, carry_out, failure

_LINE = 64
"""Tasks that wait in a worker's pipe at the most: far fewer bytes than a pipe holds, so that sending never blocks."""


class _Worker:
    """One process, its pipe, and the tasks that it has not answered yet, oldest first."""

    def __init__(self, context: BaseContext, number: int, maker: PatchMaker, slots: Slots) -> None:
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(  # type: ignore[attr-defined]
            target=_work, args=(theirs, self.pipe, maker, slots), name=f"patchflow-worker-{number}", daemon=True
        )
        self.process.start()
        theirs.close()
        self.tasks: deque[Task] = deque()


class ProcessWorkers:
    """Worker processes.

    Args:
        maker: pickled to the workers under "spawn" and "forkserver".
        slots: in shared memory.
        count: number of processes.
        start_method: "fork", "spawn" or "forkserver"; None for Python's default on this platform.
    """

    def __init__(self, maker: PatchMaker, slots: Slots, count: int, start_method: str | None) -> None:
        self._maker = maker
        self._backlog: deque[Task] = deque()
        self._workers: list[_Worker] = []
        self._owner = os.getpid()
        context = multiprocessing.get_context(start_method)
        if context.get_start_method() == "fork":
            maker.preload()
        try:
            for number in range(count):
                self._workers.append(_Worker(context, number, maker, slots))
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            self.close()
            raise ArgumentError(
                f"the sampler, the recipe or a transform cannot be sent to a worker process: {error}; define functions at the top of a "
                'module instead of in place, or use worker_kind="thread"'
            ) from error
        except BaseException:
            self.close()
            raise

    def submit(self, task: Task) -> None:
        self._backlog.append(task)
        self._send()

    def _send(self) -> None:
        """Hand tasks to the workers that have the fewest."""
        while self._backlog:
            worker = min(self._workers, key=lambda worker: len(worker.tasks))
            if len(worker.tasks) >= _LINE:
                return
            task = self._backlog.popleft()
            worker.tasks.append(task)
            try:
                worker.pipe.send(task)
            except OSError:
                raise self._death(worker) from None

    def collect(self, block: bool) -> list[Done]:
        finished: list[Done] = []
        while True:
            busy: dict[Any, _Worker] = {worker.pipe: worker for worker in self._workers}
            ends: dict[Any, _Worker] = {worker.process.sentinel: worker for worker in self._workers}
            ready = connection.wait([*busy, *ends], timeout=None if block and not finished else 0)
            answers = [self._receive(busy[pipe]) for pipe in ready if pipe in busy]
            if not answers:
                if ready:
                    raise self._death(ends[ready[0]])
                self._send()
                return finished
            finished += answers

    def _receive(self, worker: _Worker) -> Done:
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            raise self._death(worker) from None
        if isinstance(answer, Done):
            worker.tasks.popleft()
            return answer
        error, text = answer
        raise failure(self._maker, worker.tasks[0].request, error) from RuntimeError(f"in worker process {worker.process.pid}:\n{text}")

    def _death(self, worker: _Worker) -> WorkerError:
        worker.process.join(timeout=10)
        code = worker.process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        hint = "; out of memory is the usual reason: lower num_workers, batch_size or prefetch" if code == -signal.SIGKILL else ""
        if not worker.tasks:
            return WorkerError(f"worker process {worker.process.pid} {how} before it was given a patch{hint}")
        return failure(self._maker, worker.tasks[0].request, f"worker process {worker.process.pid} {how} over it{hint}")

    def close(self) -> None:
        if os.getpid() != self._owner:
            return  # a forked copy of the consumer, in which garbage is collected too: the workers are not its own
        _end([worker.process for worker in self._workers])
        for worker in self._workers:
            worker.pipe.close()
            worker.process.close()
        self._workers = []


def _end(processes: Sequence[BaseProcess]) -> None:
    """Stop the processes. They hold nothing that needs an orderly end: slots are memory, and entries are only read."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def _work(pipe: Any, parents_end: Any, maker: PatchMaker, slots: Slots) -> None:
    gc.freeze()  # the collector would write into all that a forked worker shares with its parent, and so make copies of it
    # A forked worker holds a copy of the parent's end, which would hide the parent's death from it.
    parents_end.close()
    # Ctrl-C reaches the whole process group: the consumer decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)  # the workers share the cores among themselves
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer: Any = carry_out(maker, slots, task)
        except Exception as error:
            answer = f"{type(error).__name__}: {error}", traceback.format_exc()
        try:
            pipe.send(answer)
        except OSError:
            return
