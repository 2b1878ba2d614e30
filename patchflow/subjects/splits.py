"""Which subjects train and which validate."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from patchflow.errors import ArgumentError, SubjectError, UnknownNameError
from patchflow.files import whole_file
from patchflow.notices import say
from patchflow.subjects.gather import listed


class Described(Protocol):
    """A subject, or an entry of a cache."""

    @property
    def name(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...


Key = str | Callable[[Any], Hashable]
"""A piece of metadata by its name, or a function of a subject or entry."""


@dataclass(frozen=True)
class Split:
    """The names of the subjects that train, of those that validate, and of those that are kept for the end.

    Raises:
        SubjectError: for a subject in two of them, or twice in one.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where: dict[str, list[str]] = {}
        for part in ("train", "val", "test"):
            names = getattr(self, part)
            if isinstance(names, str):
                raise ArgumentError(f"{part} must be a list of names, not the text {names!r}")
            object.__setattr__(self, part, tuple(names))
            for name in names:
                where.setdefault(name, []).append(part)
        twice = [f"{name!r} is in {' and '.join(parts)}" for name, parts in where.items() if len(parts) > 1]
        if twice:
            raise SubjectError(f"{len(twice)} subjects are in two parts of the split: {listed(twice)}: leave each in one")

    def of(self, subjects: Any) -> tuple[Any, Any]:
        """The subjects that train and those that validate.

        Args:
            subjects: subjects or entries, or a cache, of which `subset`s are made.

        Raises:
            UnknownNameError: for a name of the split that is not among them.
        """
        left = {subject.name for subject in subjects} - {*self.train, *self.val, *self.test}
        if left:
            say(f"{len(left)} subjects are in no part of the split and left out: {', '.join(sorted(left)[:5])}{', ...' * (len(left) > 5)}")
        return self.part(subjects, "train"), self.part(subjects, "val")

    def part(self, subjects: Any, part: str) -> Any:
        """The subjects of "train", "val" or "test"; see `of`."""
        if part not in ("train", "val", "test"):
            raise ArgumentError(f'a part is "train", "val" or "test", not {part!r}')
        names = getattr(self, part)
        known = {subject.name: subject for subject in subjects}
        if missing := [name for name in names if name not in known]:
            raise UnknownNameError(f"{len(missing)} subjects of the split are not there: {', '.join(map(repr, missing[:20]))}")
        return subjects.subset(names) if hasattr(subjects, "subset") else [known[name] for name in names]


def split_by_column(subjects: Iterable[Described], column: str, *, train: Any = "train", val: Any = "val", test: Any = "test") -> Split:
    """The split that a piece of metadata says, as a column of a table does.

    Args:
        subjects: subjects or entries.
        column: the name of the metadata.
        train: the value of those that train, or a list of values.
        val: likewise.
        test: likewise; no subject need have it.

    Raises:
        SubjectError: for a subject without the metadata or with another value, or two subjects of one name.
        ArgumentError: for a value given for two parts, or no subject to train on or to validate with.
    """
    parts = {"train": _list(train), "val": _list(val), "test": _list(test)}
    twice = [value for value, times in Counter(value for values in parts.values() for value in values).items() if times > 1]
    if twice:
        raise ArgumentError(f"the value {twice[0]!r} stands for two parts of the split: give it to one")
    names: dict[str, list[str]] = {part: [] for part in parts}
    for name, value in values_of(unique(subjects), column).items():
        part = next((part for part, values in parts.items() if value in values), None)
        if part is None:
            raise SubjectError(f"subject {name!r} has {column}={value!r}, which stands for no part: the values are {parts}")
        names[part].append(name)
    if not names["train"] or not names["val"]:
        raise ArgumentError(f"no subject is left for {'train' if not names['train'] else 'val'}: of {column}, the values are {parts}")
    return Split(**{part: tuple(chosen) for part, chosen in names.items()})


def folds_by_column(subjects: Iterable[Described], column: str) -> list[Split]:
    """A split for each value of a piece of metadata, in order: those with the value validate, and all others train.

    Raises:
        SubjectError: for a subject without the metadata, or two subjects of one name.
        ArgumentError: for one value in all.
    """
    values = values_of(unique(subjects), column)
    for name, value in values.items():
        if value is None:
            raise SubjectError(f"subject {name!r} has no {column!r}, which says in which fold it validates: fill it in")
    folds = sorted(set(values.values()), key=lambda value: (isinstance(value, str), value))
    if len(folds) < 2:
        raise ArgumentError(f"all subjects have {column}={folds!r}: folds need two values at least")
    return [fold_of(values, lambda value, fold=fold: value == fold) for fold in folds]  # type: ignore[misc]


def read_splits(path: str | Path) -> list[Split]:
    """The splits in a file as nnU-Net's splits_final.json: a list with an object for each fold, which lists the names of "train" and "val".

    Raises:
        SubjectError: for a file that cannot be read, is no such list, or has a subject in two parts; names the fold.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise SubjectError(f"{path} cannot be read ({error.strerror}): give the path of a splits_final.json") from error
    except ValueError as error:
        raise SubjectError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, list) or not content:
        raise SubjectError(f"{path} must hold a list of folds, not {content!r:.80}")
    splits = []
    for fold, parts in enumerate(content):
        lists = [parts.get("train"), parts.get("val"), parts.get("test", [])] if isinstance(parts, dict) else []
        if not lists or any(not isinstance(names, list) or not all(isinstance(name, str) for name in names) for names in lists):
            raise SubjectError(f'{path}: fold {fold} must have lists of names, "train" and "val", not {parts!r:.80}')
        try:
            splits.append(Split(*lists))
        except SubjectError as error:
            raise SubjectError(f"{path}, fold {fold}: {error}") from error
    return splits


def write_splits(path: str | Path, splits: Sequence[Split]) -> None:
    """Write splits as `read_splits` and nnU-Net read them, whole or not at all.

    Raises:
        SubjectError: if the file cannot be written.
    """
    content = [{"train": split.train, "val": split.val, **({"test": split.test} if split.test else {})} for split in splits]
    try:
        with whole_file(Path(path)) as beside:
            beside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise SubjectError(f"{path} cannot be written ({error.strerror or error}): check that its folder is there, and has room") from error


def unique(subjects: Iterable[Described]) -> dict[str, Described]:
    """Subjects by name."""
    found: dict[str, Described] = {}
    for subject in subjects:
        if found.setdefault(subject.name, subject) is not subject:
            raise SubjectError(f"two subjects are named {subject.name!r}, and could fall into two parts: rename one")
    if not found:
        raise ArgumentError("there are no subjects to split")
    return found


def values_of(subjects: Mapping[str, Described], key: Key) -> dict[str, Any]:
    """The metadata, or what the function says, of each subject."""
    values: dict[str, Any] = {}
    for name, subject in subjects.items():
        if not callable(key) and key not in subject.metadata:
            raise SubjectError(f"subject {name!r} has no metadata {key!r}: it has {', '.join(map(repr, subject.metadata)) or 'none'}")
        values[name] = key(subject) if callable(key) else subject.metadata[key]
        if not isinstance(values[name], Hashable):
            raise SubjectError(f"subject {name!r} has {key}={values[name]!r}, which does not tell subjects apart: use text or numbers")
    return values


def fold_of(values: Mapping[str, Any], validates: Callable[[Any], bool]) -> Split:
    return Split(
        tuple(name for name, value in values.items() if not validates(value)),
        tuple(name for name, value in values.items() if validates(value)),
    )


def _list(value: Any) -> Collection[Any]:
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
