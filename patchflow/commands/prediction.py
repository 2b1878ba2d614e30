"""`patchflow predict`: subjects or a cache through the networks of checkpoints, into a folder."""

import copy
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from patchflow.augment.config import recipe_from
from patchflow.commands.checkpoints import last_checkpoint
from patchflow.commands.data import classes, find, has_subjects, opened, pipeline, split
from patchflow.commands.settings import PredictionSettings, Settings
from patchflow.errors import ArgumentError
from patchflow.inference.checkpoints import load_weights
from patchflow.inference.folder import digest_of
from patchflow.inference.plan import Plan
from patchflow.inference.subjects import predict_subjects
from patchflow.preprocess.pipeline import Pipeline

_TAKEN = ("patch_overlap", "overlap_mode", "output", "mirror_axes", "batch_size", "device")
"""Arguments of `patchflow.predict` that the section `prediction` has under the same names."""


def predict(arguments: Namespace, settings: Settings) -> int:
    """Predict, and print the path of each file."""
    prediction = settings.prediction
    sources, preprocess = _sources(settings)
    models, paths = _models(settings)
    options = _options(settings)
    try:
        Plan(**options)
    except TypeError as error:
        raise ArgumentError(f"prediction.more takes the arguments of patchflow.predict: {error}") from error
    results = predict_subjects(
        models,
        sources,
        prediction.folder,
        suffix=prediction.suffix,
        grids="native" if prediction.grid == "native" else None,
        preprocess=preprocess,
        made_with={"model": _name(models[0]), "checkpoints": [digest_of(path) for path in paths]},
        **options,
    )
    for result in results.values():
        for path in result.values() if isinstance(result, dict) else [result]:
            print(path)
    return 0


def _options(settings: Settings) -> dict[str, Any]:
    """The arguments of `patchflow.predict`."""
    prediction = settings.prediction
    names = prediction.label_names or classes(settings.data) or {}
    more = dict(prediction.more)
    if "views" in more:
        more["views"] = [recipe_from(view) for view in more["views"]]
    size = settings.patches.size if prediction.patch_size is None else prediction.patch_size
    said = {name: getattr(prediction, name) for name in _TAKEN}
    return {"patch_size": size, "label_names": names, "progress": sys.stderr.isatty(), **said, **more}


def _sources(settings: Settings) -> tuple[Sequence[Any], Pipeline | None]:
    """The subjects to predict, and how they are preprocessed: entries of a cache are already. Those of `prediction.data` are in no part."""
    prediction = settings.prediction
    if prediction.data is not None and has_subjects(prediction.data):
        return find(prediction.data), pipeline(settings)
    sources: Any = find(settings.data) if has_subjects(settings.data) else opened(settings.cache)
    if prediction.part != "all":
        part = split(sources, settings.split).part(sources, prediction.part)
        if not len(part):
            raise ArgumentError(f"the split has nobody in its part {prediction.part}: say who is in it in the section split")
        sources = part
    return sources, pipeline(settings) if has_subjects(settings.data) else None


def _models(settings: Settings) -> tuple[list[nn.Module], list[str]]:
    """A network for each checkpoint, with its weights, and the checkpoints."""
    if not isinstance(settings.model, nn.Module):
        raise ArgumentError("model is not said: give its class_path and init_args, as in training")
    paths = settings.prediction.checkpoints or [str(_left_by_fit(settings))]
    models = []
    for path in paths:
        model = settings.model if len(paths) == 1 else copy.deepcopy(settings.model)
        load_weights(model, path)
        models.append(_placed(model.eval(), settings.prediction))
    return models, paths


def _placed(model: nn.Module, prediction: PredictionSettings) -> nn.Module:
    return model if prediction.device is None else model.to(prediction.device)


def _name(model: nn.Module) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _left_by_fit(settings: Settings) -> Path:
    root = Path(getattr(settings.trainer, "default_root_dir", None) or ".")
    found = last_checkpoint(root)
    if found is None:
        raise ArgumentError(f"there is no checkpoint below {root}: train first (patchflow fit), or name some in prediction.checkpoints")
    return found
