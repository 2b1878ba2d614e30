"""What a check found: how bad it is, about what, in a sentence, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]

LEVELS: tuple[Level, ...] = ("error", "warning", "note")
"""The worst first: an error stops training or makes it wrong, a warning likely does, a note is worth a look."""

CHECKS = {
    "readable": "the file is there, whole to its end, and can be used",
    "failed": "the check itself could not be carried out",
    "forms": "sform and qform of a NIfTI header agree, and one is set",
    "shape": "images of a subject have the same voxels",
    "orientation": "images of a subject run the same way, and subjects run as most do",
    "spacing": "images of a subject have the same spacing",
    "place": "images of a subject lie at the same place",
    "finite": "no NaN, no infinity",
    "constant": "an image has more than one value",
    "clipped": "no peak at an end of the range of values",
    "range": "values keep clear of the ends of a 16-bit dtype",
    "labels": "labels are those declared, and not intensities",
    "empty": "a label map has some label",
    "islands": "no part of a label of a few voxels, alone in the background",
    "duplicate": "no image has the voxels of another",
    "images": "subjects have the same images, with the same channels",
    "dtype": "images of a name are stored alike",
    "outlier": "spacing, size and intensities are like those of the others",
}
"""Name of each check, and what it makes sure of."""


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        level: "error", "warning" or "note".
        check: a name of `CHECKS`.
        subject: its name; None for what is said of the whole cohort.
        image: its name; None for what is said of the whole subject.
        sentence: what is wrong, with its numbers.
        mend: what to do about it.
    """

    level: Level
    check: str
    subject: str | None
    image: str | None
    sentence: str
    mend: str

    @property
    def where(self) -> str:
        """Subject and image as one text."""
        return " ".join(part for part in (self.subject, self.image) if part is not None) or "all subjects"

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.sentence}; {self.mend} [{self.check}]"


def worst_first(findings: list[Finding]) -> list[Finding]:
    """Sorted by level; within a level the order stays."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
