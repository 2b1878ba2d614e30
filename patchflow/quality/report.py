"""What a check gives back: findings and facts, as text, JSON and a page."""

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchflow.errors import ArgumentError
from patchflow.files import whole_file
from patchflow.notices import size
from patchflow.quality.facts import SubjectFacts, plain
from patchflow.quality.findings import LEVELS, Finding, Level, worst_first
from patchflow.quality.page import page

VERSION = 1
_ALIKE = 10
"""Findings of one check and level that the text lists; the rest is counted."""


@dataclass(frozen=True, eq=False)
class Report:
    """Findings about subjects, and what was seen of them.

        report = pf.check_subjects(subjects)
        print(report)
        report.to_html("check.html")
        sys.exit(report.exit_code())

    Attributes:
        findings: the worst first.
        subjects: what is known of each subject, in the order given.
    """

    findings: tuple[Finding, ...]
    subjects: tuple[SubjectFacts, ...]

    @property
    def counts(self) -> dict[Level, int]:
        """How many findings there are of each level."""
        found = Counter(finding.level for finding in self.findings)
        return {level: found[level] for level in LEVELS}

    def of(self, *, level: str | None = None, check: str | None = None, subject: str | None = None) -> list[Finding]:
        """The findings of a level, a check or a subject."""
        wanted = {"level": level, "check": check, "subject": subject}
        return [
            finding
            for finding in self.findings
            if all(value is None or getattr(finding, attribute) == value for attribute, value in wanted.items())
        ]

    def exit_code(self, strict: bool = False) -> int:
        """1 if there are errors, or, where `strict`, warnings; else 0."""
        counts = self.counts
        return int(bool(counts["error"] or (strict and counts["warning"])))

    def summary(self) -> str:
        """One line: what was read, and how many findings there are."""
        images = [facts for subject in self.subjects for facts in subject.images.values()]
        counts = ", ".join(_number(self.counts[level], level) for level in LEVELS)
        voxels = size(sum(facts.nbytes for facts in images))
        return f"{_number(len(self.subjects), 'subject')}, {_number(len(images), 'image')}, {voxels} of voxels: {counts}"

    def __str__(self) -> str:
        lines, shown = [self.summary()], Counter[tuple[str, str]]()
        total = Counter((finding.level, finding.check) for finding in self.findings)
        for finding in self.findings:
            kind = finding.level, finding.check
            shown[kind] += 1
            if shown[kind] <= _ALIKE:
                lines.append(_one_line(str(finding)))
            elif shown[kind] == total[kind]:
                lines.append(f"{finding.level}: {total[kind] - _ALIKE} more of the check {finding.check!r}: see the JSON or HTML report")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """JSON's own kinds of values: findings, and facts of every image."""
        return {
            "format": "patchflow check",
            "version": VERSION,
            "summary": {"subjects": len(self.subjects), **self.counts},
            "findings": plain(self.findings),
            "subjects": [{"name": facts.name, "images": plain(facts.images), "unreadable": list(facts.missing)} for facts in self.subjects],
        }

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict()` as a JSON file, whole or not at all.

        Raises:
            ArgumentError: when the file cannot be written.
        """
        _write(path, json.dumps(self.to_dict(), indent=1, ensure_ascii=True, allow_nan=False) + "\n")

    def to_html(self, path: str | os.PathLike[str], title: str = "Data check") -> None:
        """Write one HTML file that needs no other and no network: findings, tables and histograms of the cohort, a picture of each subject.

        Tables sort and filter by a script of its own; without scripts everything is shown. What comes from files is escaped.

        Raises:
            ArgumentError: when the file cannot be written.
        """
        _write(path, page(self.findings, self.subjects, self.summary(), title))


def report_of(findings: Iterable[Finding], subjects: Iterable[SubjectFacts]) -> Report:
    """A report, its findings sorted."""
    return Report(tuple(worst_first(list(findings))), tuple(subjects))


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _one_line(text: str) -> str:
    """Text without characters that steer a terminal: names come from files."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _write(path: str | os.PathLike[str], text: str) -> None:
    target = Path(path)
    try:
        with whole_file(target) as beside:
            beside.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ArgumentError(f"{target} cannot be written ({error.strerror or error}): give a file in a folder that is there") from error
