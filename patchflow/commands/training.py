"""`patchflow fit` and `patchflow validate`: from a configuration to a trained network, with Lightning's Trainer."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from patchflow.commands.checkpoints import INTERRUPTED, last_checkpoint
from patchflow.commands.data import build, split
from patchflow.commands.recipes import recipe_of
from patchflow.commands.settings import Settings
from patchflow.datamodule import PatchDataModule
from patchflow.errors import ArgumentError
from patchflow.sampling.config import sampler_from

_OURS = ("callbacks", "logger", "enable_progress_bar", "enable_model_summary")
"""Arguments of the Trainer that are set here where they are None."""

_TAKEN = ("batch_size", "samples_per_volume", "augment_on", "num_workers", "worker_kind", "seed", "keys")
"""Arguments of `PatchDataModule` that the section `patches` has under the same names."""


class _LeaveCheckpoint(Callback):
    """Writes a checkpoint where training is interrupted or fails. (Lightning's own would also go on with it unasked.)"""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{INTERRUPTED}.ckpt"
        self._first: int | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Remember where this run began: what stands in the folder is kept until there is more."""
        self._first = trainer.global_step

    def on_exception(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException) -> None:
        """Save what there is, if this run learnt anything."""
        if self._first is not None and trainer.global_step > self._first:
            trainer.save_checkpoint(self._path)


def fit(options: Namespace, settings: Settings) -> int:
    """Train; returns 0, or 130 where the user interrupted it, and a checkpoint was left."""
    model, data = _model(settings), datamodule(settings)
    trainer = trainer_of(settings, training=True)
    try:
        trainer.fit(model, data, ckpt_path=_checkpoint(options.ckpt_path, trainer), weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        if not trainer.interrupted:
            raise
        path = last_checkpoint(Path(trainer.default_root_dir))
        print(f"patchflow: interrupted{'' if path is None else f'; --ckpt_path {path} goes on'}", file=sys.stderr)
        return 130
    if trainer.is_global_zero and (path := last_checkpoint(Path(trainer.default_root_dir))) is not None:
        print(f"{path}: weights after {trainer.global_step} steps")
    return 0


def validate(options: Namespace, settings: Settings) -> int:
    """Validate the weights of a checkpoint, and print what the network and the callbacks log."""
    model, data = _model(settings), datamodule(settings)
    if data.sources["val"] is None:
        raise ArgumentError("nobody validates: say who does in the section split, such as split.held_out")
    trainer = trainer_of(settings, training=False)
    path = _checkpoint(options.ckpt_path or "last", trainer)
    (logged,) = trainer.validate(model, data, ckpt_path=path, verbose=False, weights_only=True)
    if trainer.is_global_zero:
        print("\n".join(f"{name}: {value:.4g}" for name, value in logged.items()))
    return 0


def datamodule(settings: Settings) -> PatchDataModule:
    """The cache, built where it is not there yet, split, and made into batches."""
    cache, patches = build(settings, progress=sys.stderr.isatty()), settings.patches
    train, val = split(cache, settings.split).of(cache)
    arguments: dict[str, Any] = {
        "sampler": sampler_from(patches.sampler, patches.size),
        "transform": recipe_of(patches),
        "patch_overlap": patches.overlap,
        **{name: getattr(patches, name) for name in _TAKEN},
    }
    if twice := arguments.keys() & patches.more.keys():
        raise ArgumentError(f"patches.more has {', '.join(sorted(twice))}, which the section patches says already: leave it out")
    try:
        return PatchDataModule(train, val if len(val) else None, **arguments, **patches.more)
    except TypeError as error:
        raise ArgumentError(f"patches.more takes the arguments of patchflow.PatchDataModule: {error}") from error


def trainer_of(settings: Settings, training: bool) -> lightning.Trainer:
    """The Trainer that the section `trainer` describes, its progress bar shown on terminals alone.

    Where it names no logger, values go to a CSV file; training keeps the last checkpoint, and one where it is interrupted.
    """
    given = {name: value for name, value in vars(settings.trainer).items() if value is not None or name not in _OURS}
    root = Path(given.get("default_root_dir") or ".")
    callbacks = list(given.pop("callbacks", None) or [])
    given.setdefault("enable_model_summary", sys.stderr.isatty())
    if training and given.get("enable_checkpointing") is not False:
        if not any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
            callbacks.append(ModelCheckpoint(save_last=True))
        callbacks.append(_LeaveCheckpoint(root))
    given.setdefault("enable_progress_bar", sys.stderr.isatty())
    given.setdefault("logger", CSVLogger(root) if training else False)
    try:
        return lightning.Trainer(callbacks=callbacks, **given)
    except (MisconfigurationException, ValueError) as error:
        raise ArgumentError(f"trainer: {error}") from error


def _checkpoint(asked: str | None, trainer: lightning.Trainer) -> str | None:
    """The path of a checkpoint; "last" for the newest in the Trainer's folder."""
    if asked != "last":
        if asked is not None and not Path(asked).is_file():
            raise ArgumentError(f"{asked} is no checkpoint that is there: give the path of one, or last for the newest")
        return asked
    found = last_checkpoint(Path(trainer.default_root_dir))
    if found is None:
        raise ArgumentError(f"there is no checkpoint below {trainer.default_root_dir}: train first, or name one by --ckpt_path")
    return str(found)


def _model(settings: Settings) -> Any:
    if not isinstance(settings.model, lightning.LightningModule):
        raise ArgumentError("model is not said, or is no LightningModule, which training needs: give its class_path and init_args")
    return settings.model
