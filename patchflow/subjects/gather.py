"""What all ways of finding subjects share: which images are label maps, which are optional, and which are missing."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from patchflow.errors import ArgumentError, SubjectError
from patchflow.images.image import Image, LabelMap, ScalarImage
from patchflow.subjects.subject import Subject

_LABEL_WORDS = {"label", "labels", "mask", "masks", "seg", "segmentation"}
_MOST_LISTED = 20


def image_kinds(names: Collection[str], label_maps: str | Iterable[str] | None, example: str) -> dict[str, type[Image]]:
    """The class of each image.

    Args:
        names: of the images, in order.
        label_maps: names of those that are label maps. Unless given, those with "label", "labels", "mask", "masks", "seg" or
            "segmentation" among the words of their name; all others are scalar images.
        example: how an image is asked for, for the error.

    Raises:
        ArgumentError: for no image, or a name in `label_maps` that is none of `names`.
    """
    if not names:
        raise ArgumentError(f"no image is asked for: give each a name, for example {example}")
    if label_maps is None:
        label_maps = [name for name in names if _LABEL_WORDS & set(re.split(r"[^a-z]+", name.lower()))]
    labels = _known(label_maps, names, "label_maps")
    return {name: LabelMap if name in labels else ScalarImage for name in names}


def optional_names(optional: str | Iterable[str], names: Collection[str]) -> frozenset[str]:
    """The images that a subject may lack.

    Raises:
        ArgumentError: for one that is none of `names`.
    """
    return _known(optional, names, "optional")


def refuse_missing(missing: Iterable[tuple[str, str, str]], subjects: int, mend: str = "add or move the files") -> None:
    """Raise `SubjectError` if an image is missing.

    Args:
        missing: for each, the subject, the image, and where it was looked for or what else there is.
        subjects: how many there are in all.
        mend: what to do about it.
    """
    missing = list(missing)
    if missing:
        images = sorted({key for _, key, _ in missing})
        raise SubjectError(
            f"of {subjects} subjects, {len(missing)} images are missing: "
            f"{listed(f'{name!r} lacks {key!r} ({place})' for name, key, place in missing)}: "
            f"{mend}, or give optional={images!r} to take subjects without them"
        )


def listed(sentences: Iterable[str]) -> str:
    """What is wrong here and there, as one sentence of at most twenty parts."""
    parts = list(sentences)
    more = f"; and {len(parts) - _MOST_LISTED} more" if len(parts) > _MOST_LISTED else ""
    return "; ".join(parts[:_MOST_LISTED]) + more


def subject_of(name: str, images: Mapping[str, Image], metadata: Mapping[str, Any], source: str) -> Subject:
    """The subject; raises `SubjectError` for metadata called as an image is, naming `source`, where it comes from."""
    clash = sorted(set(images) & set(metadata))
    if clash:
        raise SubjectError(f"{source}: {clash[0]!r} names an image and a piece of metadata of subject {name!r}: rename one of them")
    subject = Subject(name, **images)
    subject.metadata.update(metadata)  # a table may well have columns of paths that nobody asks for
    return subject


def _known(given: str | Iterable[str], names: Collection[str], what: str) -> frozenset[str]:
    chosen = frozenset([given] if isinstance(given, str) else given)
    if unknown := chosen - set(names):
        raise ArgumentError(f"{what} names {sorted(unknown)}, and no such image is asked for: there are {list(names)}")
    return chosen
