"""Lightning: a data module that builds caches, trains from a queue, validates, predicts whole volumes, and resumes in mid-epoch."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

from patchflow.augment.recipe import Recipe
from patchflow.cache.build import build_cache
from patchflow.cache.read import Cache, open_cache
from patchflow.callbacks import PredictionWriter, writers_of, written_before
from patchflow.errors import ArgumentError
from patchflow.geometry.location import Outside
from patchflow.inference.batches import GridBatches, SubjectBatches, intensity_images, windows_record
from patchflow.inference.plan import Plan
from patchflow.inference.settings import values_of
from patchflow.loading.arguments import Transform
from patchflow.loading.endless import EndlessQueue
from patchflow.loading.queue import Queue
from patchflow.loading.source import default_folder
from patchflow.loading.stream import Batch
from patchflow.notices import say
from patchflow.preprocess.pipeline import Pipeline
from patchflow.sampling.base import Sampler
from patchflow.subjects import Subject
from patchflow.types import SizeLike

Source = Cache | Sequence[Subject] | str | Path
"""Subjects to build a cache of, a cache, or the folder of one that is built."""


class QueueBatches:
    """A queue as Lightning should see it: `Queue.sampler` and `Queue.dataset` mean other things than those of a `DataLoader`."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def __len__(self) -> int:
        return len(self.queue)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.queue)


class PatchDataModule(LightningDataModule):
    """Trains from a `Queue`, validates on the grid of each subject, or from a queue that gives the same patches each time, and predicts.

    `prepare_data` builds the caches of subjects (Lightning calls it in one process per node; where nodes share a disk, set
    `prepare_data_per_node = False`), `setup` opens them. Works with the Trainer's defaults, also under DDP: each rank gets its share of
    every step. Batches are dicts as a queue's; they hold names ("subject"), so give `batch_size=` to `self.log`.

    Checkpoints hold the position in the stream of patches, whatever Lightning calls an epoch: after `trainer.fit(ckpt_path=...)` the next
    batch is the one after the last that was trained on, in mid-epoch too, with any number or kind of workers. With
    `limit_train_batches` an epoch goes on where the one before stopped. With `overfit_batches` each epoch has the same batches.

    For `trainer.predict` it gives every window of the subjects of `predict`, whole subjects to each rank, to be written by
    `PredictionWriter`, and leaves out those that this has written before. `WholeVolumeDice` predicts the subjects of `val` in training.

    Args:
        train: subjects (a cache of them is built), a `Cache`, or the folder of a cache; None where nothing is trained.
        val: the same, for validation; None for none.
        predict: the same, for prediction; None for none.
        sampler: where training patches lie; needed to train.
        transform: random transforms of training patches; see `Queue`.
        batch_size: patches per batch on each rank.
        samples_per_volume: training patches per subject and epoch.
        preprocess: applied to subjects before they are cached.
        cache_dir: caches are built in its folders "train", "val" and "predict"; None for the user's cache folder.
        layout: of the caches that are built; see `build_cache`.
        augment_on: "device" carries out the transforms on the Trainer's device, for a whole batch at a time, each patch with its own
            parameters: workers (threads) draw, and read the voxels that the drawn maps need; see `Queue`.
        num_workers, worker_kind: of the training queue, as of a validation queue; a validation grid is read by threads. The cache is
            built by `num_workers` too.
        seed: of everything random.
        val_mode: "grid" gives every window of every subject once; "queue" gives the same random patches in every epoch.
        val_batch_size: by default `batch_size`.
        patch_size: of the windows in validation and prediction; by default the sampler's.
        patch_overlap: of the validation grid.
        val_sampler, val_samples_per_volume: of the validation queue; by default those of training.
        predict_batch_size: by default that of validation.
        predict_overlap: voxels that windows share at least in prediction; None for half the patch.
        predict_keys: the images that batches of prediction hold; None for the intensity images (of `keys`, if given).
        predict_mask: the name of an image: only windows that touch it are predicted; see `GridSampler`.
        outside: what lies outside the volume in prediction: "constant" (the fill), "border" or "reflect"; see `GridSampler`.
        keys, fill: see `Queue`; for both training and validation. `fill` is that of the `Recipe`, if `transform` is one.
        queue_options: more arguments of the training queue by name: shuffle, subject_weights, drop_last, prefetch, memory_budget, ...

    Attributes:
        train_cache, val_cache, predict_cache: the caches, once `setup` was called for their stage.
        train_queue: the queue of the run, once Lightning asked for it: `train_queue.stats()`, `train_queue.replay(...)`.

    Raises:
        ArgumentError: for arguments that cannot be used.
    """

    def __init__(
        self,
        train: Source | None = None,
        val: Source | None = None,
        *,
        predict: Source | None = None,
        sampler: Sampler | None = None,
        transform: Transform = None,
        batch_size: int = 2,
        samples_per_volume: int = 8,
        preprocess: Pipeline | None = None,
        cache_dir: str | Path | None = None,
        layout: Literal["auto", "contiguous", "compressed"] = "auto",
        augment_on: Literal["worker", "device"] = "worker",
        num_workers: int = 0,
        worker_kind: Literal["thread", "process"] = "thread",
        seed: int = 0,
        val_mode: Literal["grid", "queue"] = "grid",
        val_batch_size: int | None = None,
        patch_size: SizeLike | None = None,
        patch_overlap: SizeLike = 0,
        val_sampler: Sampler | None = None,
        val_samples_per_volume: int | None = None,
        predict_batch_size: int | None = None,
        predict_overlap: SizeLike | None = None,
        predict_keys: Sequence[str] | None = None,
        predict_mask: str | None = None,
        outside: Outside = "constant",
        keys: Sequence[str] | None = None,
        fill: float | Mapping[str, float] | None = None,
        queue_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if val_mode not in ("grid", "queue"):
            raise ArgumentError(f'val_mode must be "grid" or "queue", not {val_mode!r}')
        given = {"train": train, "val": val, "predict": predict}
        self.sources = {role: None if source is None else _check_source(source, role) for role, source in given.items()}
        if all(source is None for source in given.values()):
            raise ArgumentError("there are no subjects: give train, val or predict")
        if preprocess is not None and not any(isinstance(source, list) for source in self.sources.values()):
            raise ArgumentError(
                "preprocess is for subjects, before they are cached, but all that is given are caches: give it to build_cache"
            )
        if train is not None and sampler is None:
            raise ArgumentError("training needs a sampler, which says where patches lie: give sampler=, such as pf.UniformSampler(96)")
        self.sampler, self.transform, self.batch_size, self.samples_per_volume = sampler, transform, batch_size, samples_per_volume
        self.preprocess, self.cache_dir, self.layout = preprocess, cache_dir, layout
        self.num_workers, self.worker_kind, self.seed, self.keys, self.fill = num_workers, worker_kind, seed, keys, fill
        self.augment_on: Literal["worker", "device"] = augment_on
        self.val_mode, self.val_batch_size = val_mode, val_batch_size
        self.patch_size, self.patch_overlap = patch_size, patch_overlap
        self.val_sampler, self.val_samples_per_volume = val_sampler, val_samples_per_volume
        self.predict_batch_size, self.predict_overlap, self.outside = predict_batch_size, predict_overlap, outside
        self.predict_keys, self.predict_mask = predict_keys, predict_mask
        self.queue_options = dict(queue_options or {})
        self.train_cache: Cache | None = None
        self.val_cache: Cache | None = None
        self.predict_cache: Cache | None = None
        if predict is not None:
            self.plan().grid(np.zeros((1, 1, 1, 1), np.float32))  # says now what it would refuse later
        self._stream: EndlessQueue | None = None
        self._stream_of: object = None
        self._val_queue: Queue | None = None
        self._state_to_load: Mapping[str, Any] | None = None
        if val is None:
            self.val_dataloader = super().val_dataloader  # type: ignore[method-assign]  # so Lightning sees that there is no validation

    @property
    def train_queue(self) -> Queue | None:
        """The queue of the run, once Lightning asked for it."""
        return None if self._stream is None else self._stream.queue

    def prepare_data(self) -> None:
        """Build the caches of subjects that the Trainer's stage needs; entries that are whole and up to date are used again."""
        stage = None if self.trainer is None else self.trainer.state.fn
        for role in _roles(stage):
            source = self.sources[role]
            if isinstance(source, list):
                folder = self._folder(role)
                say(f"{len(source)} subjects for {role} are cached in {folder} (entries that are whole and up to date are used again)")
                build_cache(source, folder, preprocess=self.preprocess, layout=self.layout, num_workers=self.num_workers)

    def setup(self, stage: str | None = None) -> None:
        """Open the caches that a stage needs: training and validation for "fit", one for "validate" or "predict", None for all.

        Raises:
            ArgumentError: if there is nothing to train on, or to predict.
        """
        for role, needed in (("train", "fit"), ("predict", "predict")):
            if stage == needed and self.sources[role] is None:
                raise ArgumentError(f"this PatchDataModule has no subjects to {role}: give {role}=")
        for role in _roles(stage):
            if getattr(self, f"{role}_cache") is None and self.sources[role] is not None:
                setattr(self, f"{role}_cache", self._open(role))

    def _open(self, role: str) -> Cache:
        source = self.sources[role]
        if isinstance(source, Cache):
            return source
        return open_cache(source if isinstance(source, (str, Path)) else self._folder(role))

    def _folder(self, role: str) -> Path:
        if self.cache_dir is not None:
            return Path(self.cache_dir) / role
        subjects: Any = self.sources[role]
        return default_folder(subjects, self.preprocess)

    def train_dataloader(self) -> EndlessQueue | QueueBatches:
        """The stream of training batches, where the run stands: at a checkpoint's position, or at the beginning."""
        if self.train_cache is None:
            self.setup("fit")
        if getattr(self.trainer, "overfit_batches", 0) > 0:
            return QueueBatches(self._make_queue(self.train_cache, repeat_epoch=True, augment_on=self.augment_on, **self.queue_options))
        queue = self._make_queue(self.train_cache, **{"persistent_workers": True, "augment_on": self.augment_on, **self.queue_options})
        stream = EndlessQueue(queue, self._rank()["world_size"], None if self.trainer is None else self._batches_trained)
        if self._state_to_load is not None:
            stream.load_state_dict(self._state_to_load)
            self._state_to_load = None
        elif self._stream is not None and self._stream_of is self.trainer and self.trainer is not None and self.trainer.global_step > 0:
            self._go_on(stream, self._stream)  # Lightning reloads its dataloaders, or fits once more
        elif self.trainer is not None:
            queue.set_epoch(self.trainer.current_epoch)
            stream.load_state_dict(queue.state_dict())
        if self._stream is not None:
            self._stream.close()
        self._stream, self._stream_of = stream, self.trainer
        return stream

    def _make_queue(self, cache: Cache | None, **options: Any) -> Queue:
        assert cache is not None  # `setup` opened it, or raised
        given: dict[str, Any] = {
            "samples_per_volume": self.samples_per_volume,
            "batch_size": self.batch_size,
            "transform": self.transform,
            "num_workers": self.num_workers,
            "worker_kind": self.worker_kind,
            "seed": self.seed,
            "keys": self.keys,
            "fill": self.fill,
            "pin_memory": self._pin_memory(),
            **self._rank(),
        }
        sampler = options.pop("sampler", self.sampler)
        return Queue(cache, sampler, **{**given, **options})

    def _go_on(self, stream: EndlessQueue, before: EndlessQueue) -> None:
        """Put a new stream where the one before it stands; sampler, batch size or transforms may have been changed meanwhile."""
        state, mine = before.state_dict(), stream.state_dict()
        if state["length"] == mine["length"]:
            stream.load_state_dict({**mine, "epoch": state["epoch"], "taken": state["taken"]})
        else:
            stream.load_state_dict({**mine, "epoch": state["epoch"] + (state["taken"] > 0), "taken": 0})

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Carry out the transforms of a batch whose voxels have just reached the device; other batches pass as they are."""
        if not isinstance(batch, dict) or "deferred" not in batch:
            return batch
        return {**batch.pop("deferred").make(), **batch}

    def val_dataloader(self) -> GridBatches | QueueBatches:
        """The validation batches."""
        if self.val_cache is None:
            self.setup("validate")
        batch_size = self.batch_size if self.val_batch_size is None else self.val_batch_size
        if self.val_mode == "queue":
            fill = self._fill() if isinstance(self.transform, Recipe) else self.fill
            number = self.samples_per_volume if self.val_samples_per_volume is None else self.val_samples_per_volume
            sampler = self.sampler if self.val_sampler is None else self.val_sampler
            self._close_val()
            self._val_queue = self._make_queue(
                self.val_cache,
                sampler=sampler,
                batch_size=batch_size,
                samples_per_volume=number,
                transform=None,
                fill=fill,
                repeat_epoch=True,
            )
            return QueueBatches(self._val_queue)
        assert self.val_cache is not None
        size = self.plan().patch_size
        options: dict[str, Any] = {"batch_size": batch_size, "keys": self.keys, "fill": self._fill(), "num_workers": self.num_workers}
        options |= {"pin_memory": self._pin_memory(), **self._rank()}
        return GridBatches(self.val_cache, size, self.patch_overlap, **options)

    def predict_dataloader(self) -> SubjectBatches:
        """All windows of this rank's subjects, but for those that the Trainer's `PredictionWriter` has written before.

        Raises:
            ArgumentError: without subjects to predict.
            InferenceError: if the writer's folder holds predictions made with something else.
        """
        if self.predict_cache is None:
            self.setup("predict")
        assert self.predict_cache is not None
        cache, batch_size = self.predict_cache, self.predict_batch_size or self.val_batch_size or self.batch_size
        writers: Sequence[PredictionWriter] = [] if self.trainer is None else writers_of(self.trainer)
        scales = dict(enumerate(scale for writer in writers for scale in values_of(writer.settings.scale)))
        keys = intensity_images(cache, self.keys) if self.predict_keys is None else self.predict_keys
        plan = self.plan(images=keys, batch_size=batch_size, scale=scales or 1)
        done = written_before(self.trainer, writers, cache, windows_record(cache, plan, self.predict_mask)) if writers else ()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # there may be fewer subjects than ranks
        workers = max(self.num_workers, 1)  # the device is not to wait for windows
        options: dict[str, Any] = {"num_workers": workers, "pin_memory": self._pin_memory(), **self._rank()}
        return SubjectBatches(cache, plan, self.predict_mask, done=done, **options)

    def plan(self, **options: Any) -> Plan:
        """How whole volumes are predicted: as this module says, and as `options`, which are those of `patchflow.predict`, say instead.

        Raises:
            ArgumentError: for options that cannot be used, or if no patch size is given.
        """
        if self.patch_size is None and self.sampler is None and "patch_size" not in options:
            raise ArgumentError("windows need a size: give patch_size=")
        size = self.sampler.patch_size if self.patch_size is None and self.sampler is not None else self.patch_size
        fill, images = self._fill(), options.get("images", ("image",))
        if isinstance(fill, Mapping):
            fill = {name: value for name, value in fill.items() if name in images}
        own = {"patch_size": size, "patch_overlap": self.predict_overlap, "fill": fill, "outside": self.outside}
        return Plan(**(own | options))

    def _fill(self) -> float | Mapping[str, float]:
        """The value of voxels outside the volume, as in training."""
        if isinstance(self.transform, Recipe):
            return self.transform.fill
        return 0 if self.fill is None else self.fill

    def _rank(self) -> dict[str, int]:
        if self.trainer is not None:
            return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        return {"rank": 0, "world_size": 1}

    def _pin_memory(self) -> bool:
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        return device.type == "cuda"

    def _batches_trained(self) -> int:
        """How many batches Lightning has trained on, in all epochs; one that was fetched but whose training step raised does not count."""
        if self.trainer is None:
            return 0
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.total.processed)  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream of training patches, for checkpoints."""
        return {} if self._stream is None else {"train": self._stream.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep a checkpoint's position until Lightning asks for the training batches; other stages than fitting have no use for it."""
        if self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING:
            self._state_to_load = state_dict.get("train")

    def teardown(self, stage: str | None = None) -> None:
        """End all workers."""
        if self._stream is not None and stage in ("fit", None):
            self._stream.close()
        self._close_val()

    def on_exception(self, exception: BaseException) -> None:
        """End all workers."""
        self.teardown()

    def _close_val(self) -> None:
        if self._val_queue is not None:
            self._val_queue.close()
            self._val_queue = None


def _roles(stage: str | None) -> tuple[str, ...]:
    """Whose caches a stage needs."""
    if stage == "fit":
        return "train", "val"
    if stage == "predict":
        return ("predict",)
    return ("train", "val", "predict") if stage is None else ("val",)


def _check_source(source: Any, what: str) -> Source:
    if isinstance(source, (Cache, str, Path)):
        return source
    if isinstance(source, Sequence) and source and all(isinstance(subject, Subject) for subject in source):
        return list(source)
    raise ArgumentError(f"{what} must be a list of subjects, a cache, or the folder of a cache, not {source!r}")
