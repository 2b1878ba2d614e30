"""Lightning: callbacks that write whole-volume predictions, and that score them while a network is trained."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torchmetrics import MeanMetric

from patchflow.cache.read import Cache
from patchflow.errors import ArgumentError, InferenceError
from patchflow.geometry.windows import OverlapMode
from patchflow.images.slabs import check_slab_path
from patchflow.inference.batches import SubjectBatches, subjects_of_rank
from patchflow.inference.dice import ScoredSubject
from patchflow.inference.folder import PredictionFolder
from patchflow.inference.memory import Budget, Work, describe_needs
from patchflow.inference.modes import evaluating
from patchflow.inference.outputs import Activation, Average, Output
from patchflow.inference.plan import Plan
from patchflow.inference.settings import Settings
from patchflow.inference.sources import PatchSource
from patchflow.inference.targets import Grids, Targets
from patchflow.inference.writing import SubjectWriter
from patchflow.notices import say
from patchflow.types import ScaleLike, SizeLike, count


class PredictionWriter(Callback):
    """Writes what `trainer.predict` predicts: a file for each subject, as soon as its last window has come.

        data = pf.PatchDataModule(predict=subjects, patch_size=96, predict_batch_size=4)
        writer = pf.PredictionWriter("predictions", label_names={1: "liver"})
        Trainer(callbacks=[writer]).predict(model, data, return_predictions=False)

    The model's `predict_step` gets batches as dicts and returns what `forward` does, (B, C, i, j, k), or several such tensors in a dict, or
    in a tuple or list: `return self(batch["image"])`. They are stitched by a thread of its own, slab by slab as `patchflow.predict` does,
    and give the same files. At most one batch waits to be stitched, so that memory stays; Lightning, which would keep every prediction, is
    told not to (`return_predictions=False`).

    Beside NAME.nii.gz (or NAME_OUTPUT.nii.gz for each output of a model of several) NAME.json says what it was made with. A file appears
    when it is whole, and a subject that has its NAME.json is not predicted again: after an interruption the same call goes on. Under DDP
    each rank predicts whole subjects of its own.

    Args:
        folder: where files go; made if it is not there.
        suffix: ".nii.gz", ".nii" or ".h5".
        overlap_mode, output, activation, scale, average: see `patchflow.predict`.
        label_names: label value to its name, kept in NAME.json.
        grids: the voxel grid of each subject's results: "native" for the grid that it had before preprocessing, or a dict or a function of
            the subject's name; see `patchflow.predict`. Subjects without one keep the grid on which they are predicted.
        memory_budget: bytes, or text such as "2GiB", for slices in work; see `patchflow.predict`.
        scratch_dir: where a file holds them if they exceed it.

    Raises:
        ArgumentError: for arguments that cannot be used; when prediction starts, for batches of something else than `PatchDataModule`.
        InferenceError: from `trainer.predict`, at the batch after the one in question or at the end: for predictions that cannot be
            stitched (no tensor, another size than the window's, NaN), naming the subject and the window; or if the folder holds predictions
            of other weights or settings. Subjects finished before stay.
        ImageFileError: likewise, if a file cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        suffix: str = ".nii.gz",
        *,
        overlap_mode: OverlapMode = "gaussian",
        output: Output | Mapping[str, Output] = "labels",
        activation: Activation | Mapping[str, Activation] = "auto",
        scale: ScaleLike | Mapping[str, ScaleLike] = 1,
        average: Average = "logits",
        label_names: Mapping[int, str] | None = None,
        grids: Grids | None = None,
        memory_budget: int | str | None = None,
        scratch_dir: str | Path | None = None,
    ) -> None:
        self.folder, self.suffix = Path(folder), suffix
        self.settings = Settings(overlap_mode, output, activation, scale, average, label_names or {})
        check_slab_path(f"name{suffix}")
        self._targets = Targets(grids)
        self._budget = Budget.of(memory_budget, scratch_dir)
        self._kept: PredictionFolder | None = None
        self._writer: SubjectWriter | None = None

    def finished(self, subjects: Iterable[PatchSource], model: LightningModule, record: Mapping[str, Any]) -> list[str]:
        """Which subjects are predicted already; asked by the data module, once the model has its weights.

        Args:
            subjects: entries of a cache.
            model: what is to predict.
            record: what tells the windows from others, as plain JSON values.

        Raises:
            InferenceError: if the folder holds predictions made with something else.
            ArgumentError: if it cannot be made.
        """
        more = {"suffix": self.suffix, "weights": weights_digest(model)}
        self._kept = PredictionFolder(self.folder, self.suffix, self.settings.record() | dict(record) | more, self.settings.label_names)
        return [source.name for source in subjects if self._kept.is_done(source.name, self._targets.record(source))]

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin; Lightning is told not to keep predictions."""
        batches = trainer.predict_dataloaders
        if not isinstance(batches, SubjectBatches):
            raise ArgumentError(
                "PredictionWriter writes the windows of PatchDataModule(predict=...): give that to trainer.predict, and no other batches"
            )
        if self._kept is None:  # the data module has not asked
            self.finished([], pl_module, batches.record)
        assert self._kept is not None
        done = [name for name, grid in batches.grids.items() if self._kept.is_done(name, self._targets.record(grid.source))]
        self._writer = SubjectWriter(batches.grids, self.settings, self._kept, self._targets, self._budget, done)
        kept = trainer.predict_loop.return_predictions
        trainer.predict_loop.return_predictions = False
        if trainer.is_global_zero:
            if kept:
                say(f"predictions are written to {self.folder} and not kept in memory too: trainer.predict returns None")
            grid = next(iter(batches.grids.values()))
            say(describe_needs(grid, self.settings, Work(batches.batch_size), self._budget, self._targets.of(grid.source)))

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Hand a batch over to be stitched."""
        if not isinstance(batch, Mapping) or "subject" not in batch or "location" not in batch:
            raise InferenceError('batches must keep their "subject" and "location", which say where predictions belong')
        if self._writer is not None:
            self._writer.add(outputs, batch["subject"], batch["location"])

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for what is being stitched."""
        if self._writer is None:
            return
        unfinished = self._writer.close()
        if unfinished:
            say(f"not all windows of {', '.join(unfinished)} were predicted (limit_predict_batches?): no file of theirs is written")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no file of subjects that are not finished."""
        if self._writer is not None and not is_overridden("predict_step", pl_module):
            exception.add_note('batches are dicts: give the module `def predict_step(self, batch): return self(batch["image"])`')
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the thread."""
        self._stop()

    def _stop(self) -> None:
        if self._writer is not None:
            self._writer.abort()
        self._writer, self._kept = None, None


def writers_of(trainer: Trainer) -> list[PredictionWriter]:
    """A Trainer's writers of predictions."""
    return [callback for callback in trainer.callbacks if isinstance(callback, PredictionWriter)]  # type: ignore[attr-defined]


def written_before(trainer: Any, writers: Sequence[PredictionWriter], cache: Cache, record: Mapping[str, Any]) -> list[str]:
    """The subjects that all of some writers have written, in whatever rank's folder; the same on all ranks. See `finished`."""
    written = [set(writer.finished(cache, trainer.lightning_module, record)) for writer in writers]
    here = [all(name in names for names in written) for name in cache.names]
    ranks = trainer.strategy.reduce(torch.tensor(here, dtype=torch.int64, device=trainer.strategy.root_device), reduce_op="sum")
    done = [name for name, number in zip(cache.names, ranks.tolist(), strict=True) if number]
    if done and trainer.is_global_zero:
        say(f"{len(done)} of {len(cache)} subjects were predicted before and are kept as they are")
    return done


class WholeVolumeDice(Callback):
    """Scores the network on whole volumes while it is trained: Dice of each validation subject, predicted as `patchflow.predict` does.

        dice = pf.WholeVolumeDice(num_classes=3)
        best = ModelCheckpoint(monitor="val_dice", mode="max")
        Trainer(callbacks=[dice, best]).fit(model, pf.PatchDataModule(train, val, sampler=sampler))

    After the batches of a validation every subject of the data module's `val` is predicted with `model(image)`, in evaluation mode, without
    gradients and in the Trainer's precision; slabs are counted as they come, and nothing else of the volume is kept. Under DDP each rank
    predicts whole subjects of its own. Lightning validates only modules that have a `validation_step` (an empty one will do). The sanity
    check before training is left out. Scores are of the voxels of the cache, as preprocessed, where the truth is: a resampled truth brought
    back to the original's voxels would not be the original's.

    Logged, as of the end of the validation epoch (so that `ModelCheckpoint` and `EarlyStopping` can watch it), the same on all ranks:

    - `val_dice_1`, `val_dice_2`, ... (or by `class_names`): for each class but 0, the mean of its Dice over subjects. Dice is counted over
      the whole subject; a subject that has no voxel of the class, neither predicted nor true, does not count. NaN if no subject counts.
    - `val_dice`: the mean of these, without those that are NaN.

    Args:
        num_classes: labels, 0 (the background) included: the channels of the model's output, or 2 if it has one channel, in which what
            exceeds a probability of 0.5 is 1. With activation="sigmoid": regions, which may overlap, one for each channel of the output;
            they are numbered from 0, all count, and the truth has a channel for each.
        label: the image that holds the truth.
        images: the images that the model is given, concatenated along the channels in this order.
        class_names: class to the name that it is logged by.
        patch_size: voxels of a window; None for the data module's.
        patch_overlap: voxels that windows share at least; None for half the patch.
        overlap_mode, activation: see `patchflow.predict`.
        output: which output of a model of several is scored: its name, or "0", "1", ... of a tuple or list.
        batch_size: windows per call of the model; None for the data module's in validation.
        every_n_epochs: scores validations in the epochs n, 2 n, ... of training, counted from 1 as `ModelCheckpoint(every_n_epochs=)`
            does: give the same number to those that watch it. `trainer.validate` always scores.
        prefix: how the names that are logged begin.
        memory_budget, scratch_dir: for slices in work; see `patchflow.predict`.

    Raises:
        ArgumentError: for arguments that cannot be used; when the Trainer starts, without a `PatchDataModule` with `val`, or for a module
            without `validation_step`; when it validates, for a model of another number of classes or several outputs.
        ImageError: for a truth with labels outside 0 to num_classes - 1.
        InferenceError: for predictions that cannot be stitched; names the subject and the window.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        label: str = "label",
        images: Sequence[str] = ("image",),
        class_names: Mapping[int, str] | None = None,
        patch_size: SizeLike | None = None,
        patch_overlap: SizeLike | None = None,
        overlap_mode: OverlapMode = "gaussian",
        activation: Activation = "auto",
        output: str | None = None,
        batch_size: int | None = None,
        every_n_epochs: int = 1,
        prefix: str = "val",
        memory_budget: int | str | None = None,
        scratch_dir: str | Path | None = None,
    ) -> None:
        regions = activation == "sigmoid"
        self.num_classes = count(num_classes, "num_classes", 1 if regions else 2)
        self.every_n_epochs = count(every_n_epochs, "every_n_epochs", 1)
        self.label, self.output, self.prefix, self.class_names = label, output, prefix, dict(class_names or {})
        wrong = [key for key in self.class_names if type(key) is not int or not 0 <= key < num_classes]
        if wrong:
            raise ArgumentError(f"class_names names {wrong[0]!r}, which is no class of 0 to {num_classes - 1}")
        self.classes = list(range(0 if regions else 1, num_classes))
        given = {"patch_size": patch_size, "batch_size": batch_size}
        self._options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self._options |= {"patch_overlap": patch_overlap, "overlap_mode": overlap_mode, "activation": activation, "progress": False}
        self._options |= {"images": images, "memory_budget": memory_budget, "scratch_dir": scratch_dir}
        Plan(**{"patch_size": 1, **self._options})  # says now what it would refuse later

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: Literal["fit", "validate", "test", "predict"] | str) -> None:
        """Check that there is something to score."""
        if stage not in ("fit", "validate"):
            return
        data: Any = getattr(trainer, "datamodule", None)
        if getattr(data, "val_cache", None) is None or not hasattr(data, "plan"):
            raise ArgumentError("WholeVolumeDice predicts the validation subjects of a PatchDataModule(val=...): give the Trainer one")
        if not is_overridden("validation_step", pl_module):
            raise ArgumentError(
                f"Lightning leaves validation out, and WholeVolumeDice with it, as {type(pl_module).__name__} has no validation_step: give "
                "it one, which may return None"
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predict, score and log, if it is time."""
        if trainer.sanity_checking or (trainer.state.fn == "fit" and (trainer.current_epoch + 1) % self.every_n_epochs):
            return
        with evaluating([pl_module]):
            found = [scores.tolist() for scores in self._scores(trainer, pl_module)]
        means = []
        for number, name in enumerate(self.classes):
            counting = [scores[number] for scores in found if not math.isnan(scores[number])]
            mean = MeanMetric().to(pl_module.device)
            mean.update(torch.tensor([0.0, *counting]), torch.tensor([0.0] + [1.0] * len(counting)))  # 0 without weight: none may count
            means.append(mean.compute())  # over all ranks
            pl_module.log(f"{self.prefix}_dice_{self.class_names.get(name, name)}", means[-1], batch_size=1, sync_dist=True)
        pl_module.log(f"{self.prefix}_dice", torch.stack(means).nanmean(), prog_bar=True, batch_size=1, sync_dist=True)

    def _scores(self, trainer: Trainer, pl_module: LightningModule) -> Iterator[Any]:
        """Dice of each class, for each subject of this rank."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        entries, precision = list(data.val_cache), trainer.precision_plugin
        plan: Plan = data.plan(**self._options | {"device": pl_module.device})

        def model(image: torch.Tensor) -> Any:
            with precision.forward_context():
                return pl_module(precision.convert_input(image))

        mine = subjects_of_rank([plan.window_count(entry.shape) for entry in entries], trainer.global_rank, trainer.world_size)
        subjects = (
            ScoredSubject(plan.grid(entries[number]), plan.settings, plan.budget, self.label, self.num_classes, self.output)
            for number in mine
        )
        return (scores for _, scores in plan.engine(model).run(subjects))


def weights_digest(model: LightningModule) -> str:
    """sha256 of the names, types, shapes and values of a module's weights and buffers, hexadecimal."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
