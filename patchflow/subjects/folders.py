"""Subjects in a folder, by patterns of paths."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from patchflow.errors import ArgumentError, SubjectError
from patchflow.subjects.gather import image_kinds, listed, optional_names, refuse_missing, subject_of
from patchflow.subjects.patterns import NAME, Found, PathPattern
from patchflow.subjects.subject import Subject

_EXAMPLE = 'a pattern as in image="*/image.nii.gz"'


def find_subjects(
    folder: str | Path,
    *,
    label_maps: str | Iterable[str] | None = None,
    optional: str | Iterable[str] = (),
    **patterns: str | Sequence[str],
) -> list[Subject]:
    """Find the subjects below a folder, by a pattern per image.

        find_subjects("data", image="*/image.nii.gz", label="*/label.nii.gz")
        find_subjects("Task04", t1="imagesTr/*_0000.nii.gz", t2="imagesTr/*_0001.nii.gz", label="labelsTr/*.nii.gz")
        find_subjects("data", image="{patient}/{visit}/t1.nii.gz", label=["{patient}/{visit}/seg.nii.gz", "{patient}/{visit}/seg.nii"])

    Args:
        folder: where the patterns start.
        label_maps: names of the images that are label maps. Unless given, those with "label", "labels", "mask", "masks", "seg" or
            "segmentation" among the words of their name, as in "label", "tumour_mask" and "seg_2"; all others are scalar images.
        optional: names of images that a subject may lack; every subject has all others.
        **patterns: image name to a path below `folder`, or to several, of which a subject has one. `*` stands for the subject's name and
            `{word}` for a text that becomes metadata of that name; without a `*`, a subject is called by its words, joined by "_". A place
            matches within one folder or file name, and no hidden files; one that stands twice must hold the same text. Every other
            character stands for itself, but the case of the file's ending does not count. Without an ending, folders fit too (a DICOM
            series).

    Returns:
        Subjects sorted by name. No file is opened. Names are in Unicode's composed form (NFC), whatever the file system has.

    Raises:
        ArgumentError: for a pattern without a place, no pattern, patterns some of which name subjects by `*` and some by words, or a name
            in `label_maps` or `optional` that has no pattern.
        SubjectError: when the folder is not there, nothing is found, a subject lacks an image or has two (all are listed), images of a
            subject stand in places of other words, a link leads nowhere, or a name cannot be a subject's.
    """
    root = Path(folder)
    kinds = image_kinds(patterns, label_maps, _EXAMPLE)
    may_lack = optional_names(optional, patterns)
    compiled = {key: _patterns(key, given) for key, given in patterns.items()}
    order = _name_places(compiled)
    if not root.is_dir():
        raise SubjectError(f"{root} is not a folder: there are no subjects to find")
    found = {key: _matches(root, key, choices, order) for key, choices in compiled.items()}
    names = sorted(set().union(*found.values()))
    if not names:
        asked = " or ".join(repr(choice.text) for choices in compiled.values() for choice in choices)
        raise SubjectError(f"no subject in {root.absolute()}: nothing matches {asked}")
    words = {name: _words(name, [matches[name] for matches in found.values() if name in matches]) for name in names}
    lacking = [(name, key) for name in names for key in patterns if name not in found[key] and key not in may_lack]
    refuse_missing(((name, key, _place(root, compiled[key], name, words[name])) for name, key in lacking), len(names))
    return [
        subject_of(
            name,
            {key: kinds[key](found[key][name].path) for key in patterns if name in found[key]},
            {word: text for word, text in words[name].items() if word != NAME},
            f"the patterns below {root}",
        )
        for name in names
    ]


def _patterns(key: str, given: object) -> list[PathPattern]:
    choices = list(given) if isinstance(given, (list, tuple)) else [given]
    if not choices:
        raise ArgumentError(f"the pattern of {key!r} is an empty list: give one at least")
    return [PathPattern(key, choice) for choice in choices]


def _name_places(compiled: dict[str, list[PathPattern]]) -> list[str]:
    """The places that make up a subject's name: that of the star, or the words in the order of the first pattern."""
    first, *others = (choice for choices in compiled.values() for choice in choices)
    starred = NAME in first.places
    for other in others:
        if (NAME in other.places) != starred or not (starred or set(other.places) == set(first.places)):
            raise ArgumentError(
                f"the patterns {first.text!r} and {other.text!r} name subjects in different ways: "
                "give a * to all of them, or the same {words}"
            )
    return [NAME] if starred else first.places


def _matches(root: Path, key: str, choices: list[PathPattern], order: list[str]) -> dict[str, Found]:
    """What fits an image's patterns, by subject name."""
    every: dict[str, dict[Path, Found]] = {}
    for choice in choices:
        for match in choice.search(root):
            every.setdefault("_".join(match.words[place] for place in order), {})[match.path] = match
    twice = {name: matches for name, matches in every.items() if len(matches) > 1}
    if twice:
        several = (f"{name!r} has {' and '.join(map(str, sorted(matches)))}" for name, matches in sorted(twice.items()))
        raise SubjectError(f"{len(twice)} subjects have more than one image {key!r}: {listed(several)}: remove or rename one, or narrow it")
    return {name: next(iter(matches.values())) for name, matches in every.items()}


def _words(name: str, matches: list[Found]) -> dict[str, str]:
    """The words of a subject, on which all of its files agree."""
    words: dict[str, tuple[str, Path]] = {}
    for match in matches:
        for word, text in match.words.items():
            before, path = words.setdefault(word, (text, match.path))
            if before != text:
                raise SubjectError(
                    f"subject {name!r}: {word} is {before!r} in {path} and {text!r} in {match.path}: are these of two subjects of one name?"
                )
    return {word: text for word, (text, _) in words.items()}


def _place(root: Path, choices: list[PathPattern], name: str, words: dict[str, str]) -> str:
    known = {NAME: name, **words}
    return " or ".join(str(root / choice.filled(known)) for choice in choices)
