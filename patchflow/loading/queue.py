"""The queue: batches of patches of an epoch, made by workers, exactly reproducible."""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn

import torch

from patchflow.augment.recipe import Recipe
from patchflow.cache.read import Cache
from patchflow.errors import ArgumentError
from patchflow.loading.arguments import Transform, as_recipe, checked_keys, checked_pinning, checked_place, checked_start_method
from patchflow.loading.batch import SPARE, BatchLayout, Slots, batch_layout
from patchflow.loading.dataset import PatchDataset
from patchflow.loading.maker import PatchMaker
from patchflow.loading.memory import parse_size, prefetch_within
from patchflow.loading.plan import Plan, Steps
from patchflow.loading.processes import ProcessWorkers
from patchflow.loading.source import as_cache
from patchflow.loading.state import Position, checked_state, digest_of, state_of
from patchflow.loading.stats import QueueStats
from patchflow.loading.stream import Batch, Stream
from patchflow.loading.workers import InlineWorkers, ThreadWorkers, Workers
from patchflow.notices import say, size
from patchflow.preprocess.pipeline import Pipeline
from patchflow.sampling.base import Sampler
from patchflow.subjects import Subject
from patchflow.types import count


class Queue:
    """An iterable of batches; each iteration is the next epoch.

    Iterating yields dicts: each image (B, C, i, j, k), float32 or the label map's integers; "location" int64 (B, 6), start then stop;
    "index" int64 (B,), the patch's number in the epoch; "subject", B names. The patch at (seed, epoch, index) depends on nothing else:
    not on the number or kind of workers, the batch size, or what ran before. Each `iter` is the next epoch: 0, 1, 2, ..., unless
    `set_epoch` or `load_state_dict` said which. The workers of an iteration end with it, also when it is left early.

    Args:
        source: a cache, the folder of one that is built, or a list of subjects, for which a cache is built, or used again, in
            `cache_folder` (or the user's cache folder).
        sampler: says where patches lie.
        samples_per_volume: patches per subject and epoch, on average where there are `subject_weights`.
        batch_size: patches per batch (on each rank).
        transform: a `Recipe`, a list of transforms, or a function of a sample dict.
        num_workers: 0 makes patches in the consumer's thread.
        worker_kind: "thread", or "process" for Python code that holds the interpreter lock.
        start_method: of worker processes: "fork", "spawn" or "forkserver"; None for Python's default.
        seed: of everything random.
        shuffle: whether subjects come in a new random order each epoch, or one after the other.
        subject_weights: one weight for each subject; see `patchflow.loading.plan.Plan`.
        drop_last: leave out a last batch that is not full.
        keys: the images that batches hold; all by default.
        history: batches hold the parameters that were drawn for each patch too, as "history": a list of B dicts, for `Recipe.apply`;
            plain JSON values, or it is an error.
        augment_on: "device" leaves transforms to the consumer's device: batches hold "deferred" in place of images, a `DeferredBatch` of
            the voxels that the drawn maps need, and `batch["deferred"].to(device).make()` gives the images. Not with worker processes.
        fill: the value of voxels outside the volume, for all images or by name; with a `Recipe`, give it to that instead.
        prefetch: batches made ahead of the consumer; by default enough to occupy all workers.
        pin_memory: hand over batches in page-locked memory; None does so where there is a CUDA device.
        memory_budget: bytes, or text such as "2GiB", that the batches in flight must fit into; lowers `prefetch` where needed.
        rank, world_size: this process's share of each step; by default those of torch.distributed, or 0 of 1.
        persistent_workers: keep the workers between epochs, until `close`.
        repeat_epoch: every iteration gives the same epoch, for validation.
        preprocess, cache_folder: for a source of subjects.

    Raises:
        ArgumentError, UnknownNameError, SubjectError, SamplerError, MemoryBudgetError: when made.
        WorkerError: while iterating, when a worker raises or dies; names the subject and the patch.
    """

    def __init__(
        self,
        source: Cache | Sequence[Subject] | str | Path,
        sampler: Sampler,
        *,
        samples_per_volume: int = 8,
        batch_size: int = 2,
        transform: Transform = None,
        num_workers: int = 0,
        worker_kind: Literal["thread", "process"] = "thread",
        start_method: str | None = None,
        seed: int = 0,
        shuffle: bool = True,
        subject_weights: Sequence[float] | None = None,
        drop_last: bool = False,
        keys: Sequence[str] | None = None,
        history: bool = False,
        augment_on: Literal["worker", "device"] = "worker",
        fill: float | Mapping[str, float] | None = None,
        prefetch: int | None = None,
        pin_memory: bool | None = None,
        memory_budget: int | str | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        persistent_workers: bool = False,
        repeat_epoch: bool = False,
        preprocess: Pipeline | None = None,
        cache_folder: str | Path | None = None,
    ) -> None:
        self.batch_size = count(batch_size, "batch_size", 1)
        self.num_workers = count(num_workers, "num_workers", 0)
        if worker_kind not in ("thread", "process"):
            raise ArgumentError(f'worker_kind must be "thread" or "process", not {worker_kind!r}')
        if (rank is None) != (world_size is None):
            raise ArgumentError("give rank and world_size together, or neither")
        self.worker_kind, self.start_method, self.drop_last = worker_kind, checked_start_method(start_method), drop_last
        self.persistent_workers, self.repeat_epoch = persistent_workers, repeat_epoch
        self._rank = None if rank is None or world_size is None else (count(rank, "rank", 0), count(world_size, "world_size", 1))
        if not isinstance(sampler, Sampler):
            raise ArgumentError(f"the sampler must be a Sampler, such as pf.UniformSampler(96), not {sampler!r}")
        recipe = as_recipe(transform, fill)
        defers = checked_place(augment_on, self.worker_kind if self.num_workers else "thread", recipe, memory_budget) == "device"
        if worker_kind == "thread" and self.num_workers and recipe.uses_global_random:
            raise ArgumentError(
                "a function of the sample alone draws from global random state, which thread workers would share with your training loop: "
                'let it take (sample, rng), or use worker_kind="process" or num_workers=0'
            )
        self.cache = as_cache(source, preprocess, cache_folder, self.num_workers)
        self.plan = Plan(len(self.cache), samples_per_volume, seed, shuffle, subject_weights)
        self.sampler = sampler
        keys = checked_keys(keys)
        self._layout = batch_layout(self.cache, sampler.patch_size, self.batch_size, keys)
        for entry in self.cache:
            sampler.check(entry)
            recipe.check(entry.images)
        self.pin_memory = checked_pinning(pin_memory)
        self._maker = PatchMaker(self.cache, sampler, recipe, self.plan.seed, keys, bool(history), defers, self.pin_memory)
        if defers:
            self._layout = BatchLayout((), self.batch_size, 0)  # voxels come in boxes of any size, in memory of their own
        self.prefetch = self._choose_prefetch(prefetch, memory_budget)
        self.dataset = PatchDataset(self._maker, self.plan)
        self._steps()  # refuses an epoch without a step now, not after the first was asked for
        self._position = Position(repeat_epoch)
        self._digest = digest_of(self.cache, self.plan, sampler, recipe)
        self._kept: tuple[Slots, Workers] | None = None
        self._end_kept: weakref.finalize[Any, Any] | None = None
        self._stats = QueueStats(self.num_workers)

    def _choose_prefetch(self, prefetch: int | None, memory_budget: int | str | None) -> int:
        """As many batches as asked for, or as keep every worker busy with one patch while another waits; within the budget."""
        enough = max(2, -(-2 * self.num_workers // self.batch_size)) if self.num_workers else 1
        wanted = enough if prefetch is None else count(prefetch, "prefetch", 1)
        if memory_budget is None:
            return wanted
        budget = parse_size(memory_budget)
        chosen = prefetch_within(budget, self._layout.nbytes, wanted)
        in_flight = (chosen + SPARE) * self._layout.nbytes
        say(f"{chosen + SPARE} batches of {size(self._layout.nbytes)} in flight take {size(in_flight)} of the budget of {size(budget)}")
        return chosen

    @property
    def bytes_in_flight(self) -> int:
        """Bytes of all batches in flight: those made ahead and those with the consumer."""
        return (self.prefetch + SPARE) * self._layout.nbytes

    @property
    def recipe(self) -> Recipe:
        """The transforms."""
        return self._maker.recipe

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        return len(self._steps())

    def __getitem__(self, index: object) -> NoReturn:
        """Raises: a queue is no list. `torch.utils.data.DataLoader` asks for items of what it is given, and is told what to take."""
        raise ArgumentError(
            "a Queue is iterated over and has no items: write `for batch in queue`, which gives whole batches made by workers, or for a "
            "DataLoader of your own DataLoader(queue.dataset, batch_size=...) without shuffle, whose items are patches"
        )

    def _steps(self, begin: int = 0) -> Steps:
        rank, world_size = self._rank or _distributed_rank()
        return Steps(len(self.plan), self.batch_size, self.drop_last, rank, world_size, begin)

    def __iter__(self) -> Iterator[Batch]:
        # Nothing happens before the first batch is asked for: frameworks make iterators that they never use.
        epoch, begin = self._position.begin()
        steps = self._steps(begin)
        slots, workers = self._take_kept() or self._start()
        complete = False
        try:
            for step, batch in Stream(self._maker, self.plan, epoch, steps, slots, workers, self.prefetch, self._stats):
                self._position.took(epoch, steps.taken(step))
                yield batch
                del batch  # or its slot would stay in use
            complete = True
        finally:
            if complete and self.persistent_workers and self._kept is None:
                self._keep(slots, workers)
            else:
                workers.close()

    def _start(self) -> tuple[Slots, Workers]:
        processes = self.worker_kind == "process" and self.num_workers > 0
        slots = Slots(self._layout, self.prefetch + SPARE, shared=processes, pinned=self.pin_memory)
        if not self.num_workers:
            return slots, InlineWorkers(self._maker, slots)
        if processes:
            return slots, ProcessWorkers(self._maker, slots, self.num_workers, self.start_method)
        return slots, ThreadWorkers(self._maker, slots, self.num_workers)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration gives, from its beginning."""
        epoch = count(epoch, "epoch", 0)
        self._position.move(epoch)
        self.dataset.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands, as a small dict for JSON: after the batches handed over so far, whatever was made ahead."""
        epoch, taken = self._position.where(lambda taken: not len(self._steps(taken)))
        return state_of(epoch, taken, self.plan, self._digest)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken: the next iteration gives the very next batch. The number and kind of workers may differ.

        Raises:
            ArgumentError: when the state is of a run with another seed, sampler, set of subjects or order, which could not go on here.
        """
        epoch, taken = checked_state(state, self.state_dict())
        self._position.move(epoch, taken)
        self.dataset.set_epoch(epoch)

    def replay(self, epoch: int, index: int) -> dict[str, Any]:
        """Make one patch again: a dict as from `queue.dataset`, and "parameters", those drawn for its transforms."""
        index = count(index, "index", 0)
        made = self._maker.make(self.plan.request(count(epoch, "epoch", 0), index))
        location = torch.from_numpy(made.location.as_array())
        return {**made.images, "location": location, "index": index, "subject": made.subject, "parameters": made.parameters}

    def stats(self) -> QueueStats:
        """Where the time went so far; print it."""
        return self._stats

    def _keep(self, slots: Slots, workers: Workers) -> None:
        self._kept = slots, workers
        self._end_kept = weakref.finalize(self, workers.close)  # a queue that is dropped without `close` leaves no worker behind

    def _take_kept(self) -> tuple[Slots, Workers] | None:
        kept, self._kept = self._kept, None
        if self._end_kept is not None:
            self._end_kept.detach()
            self._end_kept = None
        return kept

    def close(self) -> None:
        """End the workers that `persistent_workers` kept."""
        if kept := self._take_kept():
            kept[1].close()

    def __enter__(self) -> "Queue":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        workers = f"{self.num_workers} {self.worker_kind} workers" if self.num_workers else "no workers"
        return (
            f"Queue({len(self.cache)} subjects, {len(self.plan)} patches per epoch, {len(self)} batches of {self.batch_size}, {workers}, "
            f"{size(self.bytes_in_flight)} in flight)"
        )


def _distributed_rank() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
