"""What carries out a build: this process, a pool of processes, or an executor of the user's own."""

import os
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

from patchflow.errors import ArgumentError
from patchflow.preprocess.pipeline import Pipeline


class _Here(Executor):
    """Runs each task when it is submitted, in this process."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def workers_for(num_workers: int, executor: Executor | None, pipeline: Pipeline, tasks: int) -> Iterator[Executor]:
    """What carries out a build: the executor given, `num_workers` processes for as long as the block lasts, or this process."""
    if executor is not None:
        yield executor
    elif num_workers == 0:
        yield _Here()
    else:
        try:
            pickle.dumps(pipeline)
        except Exception as error:
            raise ArgumentError(
                f"the preprocessing cannot be sent to worker processes ({error}): define its functions at the top of a module, "
                "or build with num_workers=0"
            ) from error
        with ProcessPoolExecutor(min(num_workers, tasks), mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
            yield pool


def _end_with_parent() -> None:
    """Have this worker end when the process that builds does: one that is killed cannot tell its workers, which would wait for ever."""
    parent = parent_process()
    assert parent is not None  # this is a child

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
