"""Predictions as a YAML file says; configs/predict.yaml explains what it may hold."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from patchflow.augment.config import recipe_from
from patchflow.cache.read import open_cache
from patchflow.errors import ArgumentError
from patchflow.inference.checkpoints import load_model
from patchflow.inference.folder import digest_of
from patchflow.inference.stitching import Results
from patchflow.inference.subjects import predict_subjects
from patchflow.preprocess.config import step_from
from patchflow.preprocess.pipeline import Pipeline
from patchflow.subjects import find_subjects

_KEYS = ("model", "checkpoints", "cache", "data", "subjects", "folder", "suffix", "prediction")
_NEEDED = ("model", "folder", "prediction")


def predict_as_configured(path: str | Path, progress: bool = True) -> dict[str, Results]:
    """Predict the subjects that a YAML file names, with the model and the settings that it names; see `predict_subjects`.

    Raises:
        ArgumentError: for a file that is no YAML, or says something that cannot be used.
    """
    try:
        config = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read ({error.strerror}): give the path of a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path} is no YAML: {error}") from error
    try:
        return _predict(_mapping(config, "the file", _KEYS, _NEEDED), progress)
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from error


def _predict(config: Mapping[str, Any], progress: bool) -> dict[str, Results]:
    model = _mapping(config["model"], "model", ("class_path", "init_args"), ("class_path",))
    checkpoints = config.get("checkpoints") or []
    if not isinstance(checkpoints, list) or not checkpoints:
        raise ArgumentError(f"checkpoints must be a list of files, one for each model of the ensemble, not {checkpoints!r}")
    sources, preprocess = _sources(config)
    options = dict(_mapping(config["prediction"], "prediction", None, ("patch_size",)))
    options["views"] = [recipe_from(view) for view in options.get("views", [])]
    models = [load_model(model["class_path"], model.get("init_args"), checkpoint) for checkpoint in checkpoints]
    made_with = {"model": model["class_path"], "checkpoints": [digest_of(checkpoint) for checkpoint in checkpoints]}
    device = options.get("device")
    if device is not None:
        models = [each.to(device) for each in models]
    where = {"folder": config["folder"], "suffix": config.get("suffix", ".nii.gz")}
    try:
        return predict_subjects(models, sources, preprocess=preprocess, made_with=made_with, progress=progress, **where, **options)
    except TypeError as error:
        raise ArgumentError(f"prediction takes the arguments of patchflow.predict: {error}") from error


def _sources(config: Mapping[str, Any]) -> tuple[Sequence[Any], Pipeline | None]:
    """The subjects to predict: entries of a cache, or what is found in a folder and how it is preprocessed."""
    if ("cache" in config) == ("data" in config):
        raise ArgumentError("give one of cache, the folder of a cache, and data, where images are found")
    sources: Sequence[Any]
    pipeline = None
    if "cache" in config:
        sources = list(open_cache(config["cache"]))
    else:
        data = _mapping(config["data"], "data", ("folder", "images", "preprocess"), ("folder", "images"))
        pipeline = Pipeline([step_from(step) for step in data.get("preprocess", [])])
        sources = find_subjects(data["folder"], **_mapping(data["images"], "data.images", None, ()))
    names = config.get("subjects")
    if names is None:
        return sources, pipeline
    unknown = sorted(set(names) - {source.name for source in sources})
    if unknown:
        raise ArgumentError(f"subjects names {', '.join(unknown)}, which {'is' if len(unknown) == 1 else 'are'} not there")
    return [source for source in sources if source.name in names], pipeline


def _mapping(value: Any, what: str, known: Sequence[str] | None, needed: Sequence[str]) -> Mapping[str, Any]:
    """A mapping that has all of the keys it needs and none that is not known (None: any)."""
    if not isinstance(value, Mapping):
        raise ArgumentError(f"{what} must be a mapping, not {value!r:.80}")
    strange = [str(key) for key in value if known is not None and key not in known]
    missing = [key for key in needed if key not in value]
    if strange or missing:
        told = [f"has no {', '.join(missing)}"] * bool(missing) + [f"knows no {', '.join(strange)}"] * bool(strange)
        raise ArgumentError(f"{what} {' and '.join(told)}: it takes {', '.join(known or needed)}")
    return value
