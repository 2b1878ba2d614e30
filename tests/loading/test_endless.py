from collections.abc import Iterator

import pytest

from patchflow.loading.endless import EndlessQueue


class CountingQueue:
    """Stands for a queue: batches are (epoch, first patch); position and epochs are kept as by `Queue`."""

    def __init__(self, length=10, batch_size=3, drop_last=False, world_size=1):
        self.plan, self.batch_size, self.drop_last = range(length), batch_size, drop_last
        self._step = batch_size * world_size
        self._epoch, self._taken, self._begun = 0, 0, False
        self.fail_at = None
        self.running = 0

    def _steps(self, begin=0):
        left = len(self.plan) - begin
        return left // self._step if self.drop_last else -(-left // self._step)

    def __len__(self):
        return self._steps()

    def __iter__(self) -> Iterator:
        if self._begun:
            self._epoch, self._taken = self._epoch + 1, 0
        self._begun = True
        epoch, begin = self._epoch, self._taken
        self.running += 1
        try:
            for step in range(self._steps(begin)):
                first = begin + step * self._step
                if (epoch, first) == self.fail_at:
                    self.fail_at = None
                    raise RuntimeError("a worker died")
                self._taken = min(first + self._step, len(self.plan))
                yield epoch, first
        finally:
            self.running -= 1

    def state_dict(self):
        return {"epoch": self._epoch, "taken": self._taken, "seed": 0}

    def load_state_dict(self, state):
        self._epoch, self._taken, self._begun = state["epoch"], state["taken"], False

    def close(self):
        pass


def stream(count, **settings):
    """The first batches, as they should be."""
    queue = CountingQueue(**settings)
    batches, epoch = [], 0
    while len(batches) < count:
        batches += [(epoch, step * queue._step) for step in range(len(queue))]
        epoch += 1
    return batches[:count]


@pytest.mark.parametrize("settings", [{}, {"drop_last": True}, {"length": 12}, {"world_size": 2}, {"batch_size": 20}])
def test_each_iteration_is_an_epoch(settings):
    endless = EndlessQueue(CountingQueue(**settings), settings.get("world_size", 1))
    assert [batch for _ in range(3) for batch in endless] == stream(3 * len(endless), **settings)


def test_an_iteration_that_was_left_early_is_carried_on():
    endless = EndlessQueue(CountingQueue())
    taken = []
    for _ in range(5):
        for number, batch in enumerate(endless, 1):
            taken.append(batch)
            if number == 3:
                break
    assert taken == stream(15)


def test_iterators_that_are_made_and_never_used_change_nothing():
    endless = EndlessQueue(CountingQueue())
    iter(endless), iter(endless)
    first = iter(endless)
    assert [next(first), next(first)] == stream(2)
    iter(endless)
    assert next(iter(endless)) == stream(3)[2]


@pytest.mark.parametrize("settings", [{}, {"drop_last": True}, {"length": 12}, {"world_size": 2}])
@pytest.mark.parametrize("stop", range(12))
def test_a_state_taken_after_any_batch_goes_on_with_the_very_next(stop, settings):
    world_size = settings.get("world_size", 1)
    expected = stream(stop + 8, **settings)
    endless = EndlessQueue(CountingQueue(**settings), world_size)
    taken = []
    while len(taken) < stop:
        for batch in endless:
            taken.append(batch)
            if len(taken) == stop:
                break
    state = endless.state_dict()
    assert set(state) == {"epoch", "taken", "seed"}
    resumed = EndlessQueue(CountingQueue(**settings), world_size)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    while len(taken) < stop + 8:
        taken += list(resumed)
    assert taken[: stop + 8] == expected


def test_a_batch_counts_when_it_was_trained_on_not_when_it_was_handed_over():
    trained = [100]  # of an earlier run: the count need not begin at 0
    endless = EndlessQueue(CountingQueue(), trained=lambda: trained[0])
    assert endless.state_dict()["taken"] == 0
    batches = iter(endless)
    next(batches)
    assert endless.state_dict()["taken"] == 0
    trained[0] += 1
    assert endless.state_dict()["taken"] == 3
    next(batches), next(batches), next(batches)
    assert endless.state_dict() == {"epoch": 0, "taken": 3, "seed": 0}
    trained[0] += 3
    assert endless.state_dict() == {"epoch": 1, "taken": 0, "seed": 0}


def test_after_a_worker_failed_the_same_batch_is_the_next():
    queue = CountingQueue()
    queue.fail_at = (1, 6)
    endless, taken = EndlessQueue(queue), []
    taken += endless
    with pytest.raises(RuntimeError, match="a worker died"):
        taken += endless
    assert taken == stream(6)
    assert endless.state_dict() == {"epoch": 1, "taken": 6, "seed": 0}
    assert next(iter(endless)) == (1, 6)


def test_close_ends_the_iteration_and_keeps_the_place():
    queue = CountingQueue()
    endless = EndlessQueue(queue)
    batches = iter(endless)
    assert [next(batches), next(batches)] == stream(2)
    assert queue.running == 1
    endless.close()
    assert queue.running == 0
    assert next(iter(endless)) == stream(3)[2]
