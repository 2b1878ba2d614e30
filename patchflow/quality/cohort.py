"""Checks across subjects: copies, images that are not everywhere or not alike, and subjects far from the others."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from patchflow.quality.facts import ImageFacts, SubjectFacts
from patchflow.quality.findings import Finding
from patchflow.quality.grids import SPACING
from patchflow.quality.settings import Settings

LEAST = 6
"""Subjects that it takes to say that one is unlike the others."""

MOST = 0.8
"""Share of the subjects that are alike, for the rest to be named as different."""

NAMED = 8

Member = tuple[SubjectFacts, ImageFacts]


class Measure(NamedTuple):
    """A number of an image that is compared across subjects.

    Attributes:
        group: measures of one group that are far off make one finding.
        name: of the measure.
        unit: of the number, with the blank before it.
        of: the number; None where an image has none.
        scale: what a deviation is small against: the median absolute deviation counts as no less than `SLIGHT` of it.
    """

    group: str
    name: str
    unit: str
    of: Callable[[ImageFacts], float | None]
    scale: Callable[[ImageFacts], float]


SLIGHT = 0.02

MENDS = {
    "spacing": "check the header; resample to one spacing before training",
    "extent": "look whether it is cropped, padded or another part of the body",
    "intensity": "look at it: a scaling, unit or sequence may differ from the others",
}


def _spacing(axis: int) -> Callable[[ImageFacts], float]:
    return lambda facts: facts.spacing[axis]


def _extent(axis: int) -> Callable[[ImageFacts], float]:
    return lambda facts: facts.spacing[axis] * facts.shape[axis + 1]


def _body(number: int) -> Callable[[ImageFacts], float | None]:
    return lambda facts: None if facts.intensities is None else facts.intensities.body[number]


def _range(facts: ImageFacts) -> float:
    return 0.0 if facts.intensities is None else facts.intensities.body[3] - facts.intensities.percentiles[0]


MEASURES = (
    *(Measure("spacing", f"along {axis}", " mm", _spacing(number), _spacing(number)) for number, axis in enumerate("IJK")),
    *(Measure("extent", f"along {axis}", " mm", _extent(number), _extent(number)) for number, axis in enumerate("IJK")),
    Measure("intensity", "median", "", _body(1), _range),
    Measure("intensity", "99.5th percentile", "", _body(3), _range),
)
"""Intensities are those of voxels that are not background."""


def robust_z(values: Sequence[float], least: float = 0.0) -> list[float]:
    """Modified z-scores, 0.6745 (x - median) / MAD, MAD being the median absolute deviation from the median.

    Source: Iglewicz and Hoaglin, "How to detect and handle outliers", 1993, who take those beyond 3.5 for outliers.

    Args:
        values: finite, at least one.
        least: the MAD counts as no less, as more than half of the values may be equal.
    """
    numbers = np.asarray(values, np.float64)
    median = float(np.median(numbers))
    apart = np.abs(numbers - median)
    width = max(float(np.median(apart)), least, float(np.finfo(np.float64).tiny))
    return [float(score) for score in 0.6745 * (numbers - median) / width]


def cohort_findings(subjects: Sequence[SubjectFacts], settings: Settings) -> list[Finding]:
    """All findings that take more than one subject."""
    found = [*_copies(subjects), *_absent(subjects)]
    for name, members in by_image(subjects).items():
        found.extend(_unlike(name, members))
        found.extend(_outliers(name, members, settings.outlier))
        if members[0][1].kind == "label":
            found.extend(_classes(name, members, settings))
    return [finding for finding in found if finding.check not in settings.skip]


def by_image(subjects: Sequence[SubjectFacts]) -> dict[str, list[Member]]:
    """The subjects that have each image, with its facts."""
    members: dict[str, list[Member]] = defaultdict(list)
    for subject in subjects:
        for name, facts in subject.images.items():
            members[name].append((subject, facts))
    return dict(members)


def _copies(subjects: Sequence[SubjectFacts]) -> Iterator[Finding]:
    first: dict[str, tuple[str, str]] = {}
    for subject in subjects:
        for name, facts in subject.images.items():
            if facts.constant:
                continue  # empty label maps are alike, and constant images are findings of their own
            other = first.setdefault(facts.fingerprint, (subject.name, name))
            if other == (subject.name, name):
                continue
            across = other[0] != subject.name
            yield Finding(
                "error" if across and facts.kind == "scalar" else "warning",
                "duplicate",
                subject.name,
                name,
                f"has the very voxels of {other[1]!r} of " + (f"subject {other[0]!r}" if across else "the same subject"),
                "leave one out, or they may be trained on and validated with" if across else "give the right file",
            )


def _absent(subjects: Sequence[SubjectFacts]) -> Iterator[Finding]:
    names = Counter(name for subject in subjects for name in (*subject.images, *subject.missing))
    for name, number in names.items():
        if 2 * number < len(subjects):
            holders = [subject.name for subject in subjects if name in subject.images or name in subject.missing]
            listed = ", ".join(holders[:NAMED]) + (f" and {number - NAMED} more" if number > NAMED else "")
            sentence = f"only {number} of {len(subjects)} subjects have this image: {listed}"
            yield Finding("warning", "images", None, name, sentence, "add it to the others, or train without it")
            continue
        for subject in subjects:
            if name not in subject.images and name not in subject.missing:
                sentence = f"lacks the image that {number} of {len(subjects)} subjects have"
                yield Finding("warning", "images", subject.name, name, sentence, "add it, or leave the subject out")


def _unlike(name: str, members: list[Member]) -> Iterator[Finding]:
    """Channels must be alike; dtypes and orientations are told of where most are."""
    alike: tuple[tuple[str, str, str, Callable[[ImageFacts], Any], str], ...] = (
        ("images", "error", "channels", lambda facts: facts.shape[0], "batches cannot hold both: split, merge or leave out"),
        ("dtype", "note", "stored dtype", lambda facts: facts.dtype, "look whether it was exported in another way than the others"),
        ("orientation", "warning", "orientation", lambda facts: facts.orientation, "bring all to one orientation before training"),
    )
    for check, level, what, of, mend in alike:
        numbers = Counter(of(facts) for _, facts in members)
        usual, most = numbers.most_common(1)[0]
        if len(numbers) == 1:
            continue
        clear = most >= MOST * len(members) or check == "images"
        if clear and len(members) > 2:
            for subject, facts in members:
                if of(facts) != usual:
                    sentence = f"{what} {of(facts)}, where {most} of {len(members)} subjects have {usual}"
                    yield Finding(level, check, subject.name, name, sentence, mend)  # type: ignore[arg-type]
        else:
            listed = ", ".join(f"{value} ({number})" for value, number in numbers.most_common(NAMED))
            wide = "note" if check != "images" else level
            yield Finding(wide, check, None, name, f"{what} differs between subjects: {listed}", mend)  # type: ignore[arg-type]


def _outliers(name: str, members: list[Member], limit: float) -> Iterator[Finding]:
    far: dict[tuple[str, str], list[str]] = defaultdict(list)
    for measure in MEASURES:
        values = [(subject.name, value) for subject, facts in members if (value := measure.of(facts)) is not None]
        if len(values) < LEAST:
            continue
        numbers = [value for _, value in values]
        median = float(np.median(numbers))
        least = SLIGHT * float(np.median([measure.scale(facts) for _, facts in members]))
        told_of = {subject.name for subject, facts in members if measure.group == "intensity" or not _told_before(subject, facts)}
        for (subject, value), score in zip(values, robust_z(numbers, least), strict=True):
            if abs(score) > limit and subject in told_of:
                told = f"{measure.name} {value:.6g}{measure.unit} (usual: {median:.6g}{measure.unit}, robust z-score {score:.1f})"
                far[subject, measure.group].append(told)
    for (subject, group), all_told in far.items():
        sentence = f"{group} far from that of the other {len(members) - 1} subjects: {'; '.join(all_told)}"
        yield Finding("warning", "outlier", subject, name, sentence, MENDS[group])


def _told_before(subject: SubjectFacts, facts: ImageFacts) -> bool:
    """Whether an earlier image of the subject has the same grid, so that one finding is enough."""
    for earlier in subject.images.values():
        if earlier is facts:
            break
        if earlier.shape[1:] == facts.shape[1:] and np.allclose(earlier.spacing, facts.spacing, rtol=SPACING):
            return True
    return False


def _classes(name: str, members: list[Member], settings: Settings) -> Iterator[Finding]:
    """Declared classes that nobody has; and, where none are declared, labels that hardly anybody has."""
    holders = Counter(part.value for _, facts in members for part in facts.classes)
    declared = settings.classes_of(name)
    if declared is not None:
        for value, title in sorted(declared.items()):
            if value != 0 and value not in holders:
                sentence = f"class {value} ({title}) is declared, and no subject has a voxel of it"
                yield Finding("warning", "labels", None, name, sentence, "correct the classes, or find the subjects that lack it")
        return
    for subject, facts in members:
        for part in facts.classes:
            if holders[part.value] == 1 and len(members) >= LEAST and part.value >= 0:
                sentence = f"label {part.value} ({part.voxels} voxels) occurs in no other of {len(members)} subjects"
                yield Finding("note", "labels", subject.name, name, sentence, "declare the classes, so that strange labels become errors")
