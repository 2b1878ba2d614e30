"""A queue's epochs one after another, for frameworks that count epochs and steps themselves."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from patchflow.loading.queue import Queue
from patchflow.loading.stream import Batch


class EndlessQueue:
    """A queue as a stream that never skips and never repeats, whatever a framework calls an epoch.

    Each iteration gives the next `len` batches of the stream: epoch 0, 1, 2, ... of the queue. An iteration that is left early (a framework
    that limits the batches of its epochs, or was stopped) is carried on by the next one. Workers go on between iterations, until `close`.

    It has no attributes named as those of `torch.utils.data.DataLoader`, by which frameworks would take it for one and replace its parts.

    Args:
        queue: what to iterate over; it must not be iterated over by others meanwhile.
        world_size: processes that share each step of the queue.
        trained: says how many batches were trained on so far, so that a batch that was handed over but not trained on (the training step
            raised) comes again after `load_state_dict`; without it, a batch counts as soon as it is handed over.
    """

    def __init__(self, queue: Queue, world_size: int = 1, trained: Callable[[], int] | None = None) -> None:
        self.queue = queue
        self._per_step = queue.batch_size * world_size
        self._trained = trained
        self._batches: Iterator[Batch] | None = None
        self._begin_here()

    def _begin_here(self) -> None:
        self._begin = self.queue.state_dict()
        self._handed = 0
        self._trained_before = 0

    def __len__(self) -> int:
        """Batches of an epoch of the queue on this rank."""
        return len(self.queue)

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(len(self)):
            yield self._next()

    def _next(self) -> Batch:
        if not self._handed and self._trained is not None:
            self._trained_before = self._trained()
        try:
            batch = self._next_of_any_epoch()
        except BaseException:
            self.load_state_dict(self._state(self._handed))  # the queue's iteration is over: left as it is, the next would be another epoch
            raise
        self._handed += 1
        return batch

    def _next_of_any_epoch(self) -> Batch:
        while True:
            if self._batches is None:
                self._batches = iter(self.queue)
            try:
                return next(self._batches)
            except StopIteration:
                self._batches = None

    def state_dict(self) -> dict[str, Any]:
        """Where the training stands, after the batches trained on so far: a state of the queue, for JSON."""
        if self._trained is None or not self._handed:
            return self._state(self._handed)
        return self._state(min(self._trained() - self._trained_before, self._handed))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; raises what `Queue.load_state_dict` raises."""
        self._batches = None  # drops the queue's iteration, which ends its workers
        self.queue.load_state_dict(state)
        self._begin_here()

    def _state(self, batches: int) -> dict[str, Any]:
        """The queue's state after so many batches since `_begin`."""
        epoch, taken, length = self._begin["epoch"], self._begin["taken"], len(self.queue.plan)
        left = length - taken
        first = left // self._per_step if self.queue.drop_last else -(-left // self._per_step)
        if batches >= first:
            more, batches = divmod(batches - first, len(self))
            epoch, taken = epoch + 1 + more, 0
        return {**self._begin, "epoch": epoch, "taken": min(taken + batches * self._per_step, length)}

    def close(self) -> None:
        """End all workers; a later iteration starts them again and goes on with the very next batch."""
        self.load_state_dict(self.state_dict())
        self.queue.close()
