"""Many volumes through a model, into a folder."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation
from patchflow.images.image import Image
from patchflow.inference.folder import PredictionFolder
from patchflow.inference.masks import Mask
from patchflow.inference.memory import describe_needs
from patchflow.inference.plan import Plan
from patchflow.inference.sources import MemorySource, PatchSource, SourceLike, as_source
from patchflow.inference.stitching import Results, Stitching
from patchflow.inference.targets import Grids, Targets
from patchflow.inference.views import Model
from patchflow.notices import say
from patchflow.preprocess.base import SpatialStep
from patchflow.preprocess.pipeline import Pipeline
from patchflow.subjects import Subject


def predict_subjects(
    model: Model | Sequence[Model],
    sources: Iterable[SourceLike],
    folder: Any,
    *,
    suffix: str = ".nii.gz",
    grids: Grids | None = None,
    masks: Mapping[str, Mask] | str | None = None,
    preprocess: Pipeline | None = None,
    made_with: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Results]:
    """Predict subject after subject, each into a file of its own.

    Batches reach from one subject into the next, and a subject is read while the one before is predicted. A file appears when its subject
    is whole, with NAME.json beside it (label names, and what it was made with). Called again after an interruption, it goes on with the
    subjects that have no such file.

    Args:
        model: see `patchflow.predict`.
        sources: a cache, or subjects, entries and sources of your own; read one after the other, when their turn comes.
        folder: where NAME.nii.gz goes for each subject, or NAME_OUTPUT.nii.gz for each output of a model of several; made if needed.
        suffix: ".nii.gz", ".nii" or ".h5".
        grids: the voxel grid of each subject's results: "native" for the grid that it had before preprocessing, or a dict or a function of
            the subject's name; see `patchflow.predict`. Subjects without one keep the grid on which they are predicted.
        masks: where to predict: a dict by subject, or the name of an image that each has; see `patchflow.predict`.
        preprocess: done to `Subject`s before they are predicted, as it was to those that the model was trained on.
        made_with: more that tells these predictions from others, such as a checkpoint's digest: plain JSON values.
        options: any other argument of `patchflow.predict`: patch_size (which must be given), patch_overlap, output, batch_size, ...

    Returns:
        For each subject by name, those finished before included, its path, or paths by output name.

    Raises:
        InferenceError: as `patchflow.predict`, or if the folder holds predictions made with other settings. Subjects finished before stay.
        ArgumentError: for arguments that cannot be used, or two subjects of one name.
    """
    plan = Plan(**options)
    engine = plan.engine(model)
    made_with = plan.record() | {"preprocess": None if preprocess is None else preprocess.fingerprint()} | dict(made_with or {})
    kept = PredictionFolder(folder, suffix, made_with, plan.label_names)
    where = _Where(Targets(grids), masks)
    records: dict[str, dict[str, Any]] = {}
    todo, results = _todo(sources, kept, where, records)
    stitchings = _stitchings(todo, preprocess, plan, kept, where)
    unknown = masks is not None or (preprocess is not None and any(isinstance(step, SpatialStep) for step in preprocess.steps))
    total = None if unknown else sum(_windows(source, plan) for source in todo)
    for stitching, result in engine.run(stitchings, total):
        name = stitching.grid.name
        kept.done(name, result, records[name])
        results[name] = result
    return results


class _Where(NamedTuple):
    """Where each subject is predicted, and on which voxels."""

    targets: Targets
    masks: Mapping[str, Mask] | str | None

    def mask(self, name: str) -> Mask | None:
        return self.masks if self.masks is None or isinstance(self.masks, str) else self.masks.get(name)

    def record(self, source: Any) -> dict[str, Any]:
        """Both as plain JSON values."""
        mask = self.mask(source.name)
        if isinstance(mask, torch.Tensor):
            mask = mask.cpu().numpy()
        if isinstance(mask, np.ndarray):
            told: Any = hashlib.sha256(np.ascontiguousarray(mask != 0).tobytes()).hexdigest()
        else:
            told = mask.as_array().tolist() if isinstance(mask, PatchLocation) else mask
        return {"mask": told} | self.targets.record(source)


def _todo(
    sources: Iterable[SourceLike], kept: PredictionFolder, where: _Where, records: dict[str, dict[str, Any]]
) -> tuple[list[SourceLike], dict[str, Results]]:
    """The sources that are to be predicted, and the results of those that were before; `records` gets what tells each from others."""
    todo: list[SourceLike] = []
    results: dict[str, Results] = {}
    if isinstance(sources, (str, Path, Image, Subject, PatchSource, np.ndarray, torch.Tensor)):
        raise ArgumentError(
            "sources must be a cache (pf.open_cache of its folder) or a list of subjects or entries, [subject] for one, not "
            f"{type(sources).__name__} {sources!r:.80}"
        )
    for source in sources:
        if isinstance(source, (np.ndarray, torch.Tensor)):
            raise ArgumentError("an array has no name for its file: give pf.Subject(name, image=pf.ScalarImage(array, affine))")
        name = source.name if isinstance(source, (Subject, PatchSource)) else as_source(source).name  # which says what it should be
        if name in records:
            raise ArgumentError(f'two subjects are called "{name}": rename one, as their files would be the same')
        records[name] = where.record(source)
        if kept.is_done(name, records[name]):
            results[name] = kept.results(name)
        else:
            todo.append(source)
    if results:
        say(f"{len(results)} of {len(records)} subjects were predicted before and are kept as they are in {kept.folder}")
    return todo, results


def _stitchings(
    sources: Iterable[SourceLike], preprocess: Pipeline | None, plan: Plan, kept: PredictionFolder, where: _Where
) -> Iterator[Stitching]:
    told = not plan.progress
    for source in sources:
        name: str = source.name  # type: ignore[union-attr]  # arrays were refused
        target = where.targets.of(source)
        grid = plan.grid(_prepared(source, preprocess), where.mask(name))
        if not told:
            say(describe_needs(grid, plan.settings, plan.work, plan.budget, target))
            told = True
        yield Stitching(grid, plan.settings, target, partial(kept.path, name), None, plan.budget)


def _prepared(source: SourceLike, preprocess: Pipeline | None) -> SourceLike:
    """The source, preprocessed if it is a subject."""
    if preprocess is None or not isinstance(source, Subject):
        return source
    processed = preprocess.process(source)
    return MemorySource(source.name, processed.volumes, processed.native)


def _windows(source: Any, plan: Plan) -> int:
    """Windows of a source, from its header."""
    return plan.window_count(next(iter(source.images.values())).shape[1:] if isinstance(source, Subject) else source.shape)
