"""Predictions between the model that makes them and the thread that stitches them: few enough that memory stays."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import torch

from patchflow.inference.memory import Budget

Result = TypeVar("Result")


class Flight(Generic[Result]):
    """Stitches in a thread of its own, while the next predictions are made and no more than those.

    The first predictions are waited for, so that what is wrong with them is known before there are more. So are all where two batches of
    them exceed half the budget, and those of a model that writes where it wrote before: it is found by the second batch, until which the
    first is held.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="patchflow-stitch")
        self._waiting: deque[Future[Result]] = deque()
        self._held: Any = None
        self._first, self._waits = True, False

    def add(self, stitch: Callable[[Any], Result], outputs: Any, budget: Budget) -> list[Result]:
        """Stitch some predictions; gives the results of those whose turn to be waited for it is.

        Args:
            stitch: called with `outputs`, in the thread.
            outputs: a tensor, or a dict or row of them. The caller lets go of them afterwards.
            budget: what may be held in memory.

        Raises:
            whatever `stitch` raised, for these predictions or those before.
        """
        tensors = tensors_of(outputs)
        nbytes, places = sum(tensor.nbytes for tensor in tensors), _places(tensors)
        self._waits = self._waits or bool(_places(tensors_of(self._held)) & places)
        self._held = outputs if self._first else None
        self._waiting.append(self._thread.submit(stitch, outputs))
        del outputs, tensors  # so that they are gone when they are stitched
        at_most = 0 if self._first or self._waits or budget.one_at_a_time(nbytes) else 1
        self._first = False
        return self._landed(at_most)

    def land(self) -> list[Result]:
        """Wait for all that is left, and give its results."""
        return self._landed(0)

    def stop(self) -> None:
        """Drop what has not begun, and wait for what has."""
        self._thread.shutdown(cancel_futures=True)
        self._waiting.clear()

    def _landed(self, at_most: int) -> list[Result]:
        return [self._waiting.popleft().result() for _ in range(len(self._waiting) - at_most)]


def tensors_of(outputs: Any) -> list[torch.Tensor]:
    """The tensors of what a model returned."""
    values = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, (tuple, list)) else [outputs]
    return [value for value in values if isinstance(value, torch.Tensor)]


def _places(tensors: list[torch.Tensor]) -> set[int]:
    """Where the values of tensors lie in memory."""
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}
