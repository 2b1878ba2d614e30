"""Subjects, splits, preprocessing and caches as a configuration describes them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patchflow.cache.build import build_cache
from patchflow.cache.read import Cache, open_cache
from patchflow.commands.settings import CacheSettings, DataSettings, Settings, SplitSettings
from patchflow.errors import ArgumentError, UnknownNameError
from patchflow.preprocess.config import step_from
from patchflow.preprocess.pipeline import Pipeline
from patchflow.subjects import (
    Split,
    Subject,
    find_subjects,
    guess_subjects,
    k_fold,
    read_dataset_info,
    read_splits,
    split_by_column,
    subjects_from_bids,
    subjects_from_nnunet,
    subjects_from_table,
)

_SOURCES = ("folder", "table", "bids", "nnunet")
_SPLITS = ("held_out", "folds", "column", "file")


def has_subjects(data: DataSettings) -> bool:
    """Whether it is said where subjects are found."""
    return any(getattr(data, name) is not None for name in _SOURCES)


def find(data: DataSettings, *, guess: bool = False) -> list[Subject]:
    """The subjects that a section `data` describes.

    Args:
        data: the section.
        guess: whether a folder without patterns may be looked through for what it seems to hold.

    Raises:
        ArgumentError: unless it says in one way where they are.
        SubjectError: for subjects that are not as it says.
        UnknownNameError: for names in `subjects` that are not there.
    """
    source = _one_of(data, _SOURCES, "data")
    if source is None:
        raise ArgumentError(f"it is not said where subjects are: give one of {', '.join(f'data.{name}' for name in _SOURCES)}")
    place = getattr(data, source)
    if source in ("folder", "table", "bids") and not data.images and not (guess and source == "folder"):
        example = {"folder": "'*/t1.nii.gz'", "table": "t1_path", "bids": "T1w"}[source]
        raise ArgumentError(f"data.images is empty: name the images that subjects have, such as image={example}")
    match source:
        case "folder" if not data.images:
            found = guess_subjects(place)
        case "folder":
            found = find_subjects(place, label_maps=data.label_maps, **data.images)
        case "table":
            found = subjects_from_table(place, name=data.name, label_maps=data.label_maps, **data.images)
        case "bids":
            found = subjects_from_bids(place, label_maps=data.label_maps, **data.images)
        case _:
            found = subjects_from_nnunet(place, data.part)
    return found if data.subjects is None else chosen(found, data.subjects)


def chosen(subjects: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """The subjects (or entries) of these names, in that order; raises `UnknownNameError` for names that are not there."""
    known = {subject.name: subject for subject in subjects}
    if unknown := [name for name in names if name not in known]:
        raise UnknownNameError(f"no subject {', '.join(map(repr, unknown))}: there are {', '.join(list(known)[:10])}")
    return [known[name] for name in names]


def classes(data: DataSettings) -> Mapping[int, str] | None:
    """Label to name, of what is declared; None where nothing is."""
    if data.classes is None and data.nnunet is not None:
        info = read_dataset_info(data.nnunet)
        return {label: info.label_names.get(label, str(label)) for label in info.labels if label}
    if isinstance(data.classes, list):
        return {label: str(label) for label in data.classes}
    return data.classes


def pipeline(settings: Settings) -> Pipeline | None:
    """The preprocessing; None where there is none."""
    steps = [settings.preprocess] if isinstance(settings.preprocess, str) else settings.preprocess
    return Pipeline([step_from(step) for step in steps]) if steps else None


def build(settings: Settings, progress: bool) -> Cache:
    """The cache of the subjects described, built as far as it is not there yet; without subjects, the one in its folder.

    Raises:
        ArgumentError: where neither subjects nor a folder are named.
    """
    if not has_subjects(settings.data):
        return opened(settings.cache)
    if settings.cache.folder is None:
        raise ArgumentError("cache.folder is not said: name the folder in which the cache is kept")
    return build_cache(
        find(settings.data),
        settings.cache.folder,
        preprocess=pipeline(settings),
        layout=settings.cache.layout,
        num_workers=settings.cache.num_workers,
        progress=progress,
    )


def opened(cache: CacheSettings) -> Cache:
    """The cache in its folder."""
    if cache.folder is None:
        raise ArgumentError("it is not said which cache: give its folder (cache.folder)")
    return open_cache(cache.folder)


def split(subjects: Any, settings: SplitSettings) -> Split:
    """Who trains and who validates.

    Args:
        subjects: subjects, entries, or a cache.
        settings: the section `split`.
    """
    names = [subject.name for subject in subjects]
    how = _one_of(settings, _SPLITS, "split")
    match how:
        case None:
            return Split(tuple(names), ())
        case "held_out":
            held = tuple(settings.held_out or ())
            chosen(list(subjects), held)
            return Split(tuple(name for name in names if name not in held), held)
        case "column":
            return split_by_column(subjects, str(settings.column))
        case "folds":
            folds = k_fold(subjects, settings.folds or 0, seed=settings.seed, group=settings.group, stratify=settings.stratify)
        case _:
            folds = read_splits(Path(str(settings.file)))
    if not 0 <= settings.fold < len(folds):
        raise ArgumentError(f"split.fold is {settings.fold}, and there are folds 0 to {len(folds) - 1}")
    return folds[settings.fold]


def _one_of(section: Any, names: Sequence[str], title: str) -> str | None:
    """The one of these settings that is given."""
    given = [name for name in names if getattr(section, name) is not None]
    if len(given) > 1:
        raise ArgumentError(f"{title}.{given[0]} and {title}.{given[1]} are two ways to say one thing: give one of {', '.join(names)}")
    return given[0] if given else None
