"""The HTML page of a report: findings first, then the cohort, then each subject. One file, which asks for no other."""

import base64
from collections import Counter
from collections.abc import Sequence
from html import escape

from patchflow.quality.charts import number, sparkline
from patchflow.quality.cohort_page import cohort_section
from patchflow.quality.facts import ImageFacts, LabelClass, SubjectFacts
from patchflow.quality.findings import CHECKS, LEVELS, Finding
from patchflow.quality.picture import COLOURS
from patchflow.quality.style import CSS, SCRIPT, policy

_CLASSES = 12
"""Classes that a subject's row lists."""


def page(findings: Sequence[Finding], subjects: Sequence[SubjectFacts], summary: str, title: str) -> str:
    """The page as text.

    Args:
        findings: the worst first.
        subjects: in the order given.
        summary: a line.
        title: of the page.
    """
    counts = Counter(finding.level for finding in findings)
    tiles = [("subjects", len(subjects), ""), *((f"{level}s", counts[level], level) for level in LEVELS)]
    tiled = "".join(f'<div class="tile"><b class="{kind}">{value}</b>{escape(name)}</div>' for name, value, kind in tiles)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy()}">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{CSS}</style></head><body>\n'
        f'<header><h1>{escape(title)}</h1><p class="faint">{escape(summary)}</p><div class="tiles">{tiled}</div>'
        '<nav><a href="#findings">Findings</a><a href="#cohort">Cohort</a><a href="#subjects">Subjects</a></nav></header>\n'
        f"{_findings(findings, subjects)}\n{cohort_section(subjects)}\n{_subjects(findings, subjects)}\n"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _bar(table: str, selects: dict[str, Sequence[str]]) -> str:
    chosen = "".join(
        f'<select name="{name}" aria-label="{name}"><option value="">every {name}</option>'
        + "".join(f"<option>{escape(value)}</option>" for value in values)
        + "</select>"
        for name, values in selects.items()
    )
    search = f'<input type="search" placeholder="words to look for" aria-label="words to look for in {table}">'
    return f'<div class="bar" data-for="{table}" hidden>{search}{chosen}<span class="told faint"></span></div>'


def _head(columns: Sequence[str]) -> str:
    cells = "".join(
        f'<th data-sort scope="col"><button type="button">{name}</button></th>' if name else '<th scope="col"></th>' for name in columns
    )
    return f"<thead><tr>{cells}</tr></thead>"


def _findings(findings: Sequence[Finding], subjects: Sequence[SubjectFacts]) -> str:
    if not findings:
        return '<section id="findings"><h2>Findings</h2><p class="none">None: every check passed.</p></section>'
    places = {subject.name: place for place, subject in enumerate(subjects)}
    rows = []
    for finding in findings:
        subject = "all" if finding.subject is None else f'<a href="#s{places[finding.subject]}">{escape(finding.subject)}</a>'
        rows.append(
            f'<tr data-level="{finding.level}" data-check="{escape(finding.check)}">'
            f'<td class="level {finding.level}" data-key="{LEVELS.index(finding.level)}">{finding.level}</td>'
            f'<td class="name">{subject}</td><td>{escape(finding.image or "")}</td><td>{escape(finding.sentence)}</td>'
            f'<td>{escape(finding.mend)}</td><td class="check" title="{escape(CHECKS[finding.check])}">{escape(finding.check)}</td></tr>'
        )
    kinds = Counter((finding.level, finding.check) for finding in findings)
    chips = "".join(
        _chip(level, check, count) for (level, check), count in sorted(kinds.items(), key=lambda kind: LEVELS.index(kind[0][0]))
    )
    found = {check for _, check in kinds}
    bar = _bar("finding-table", {"level": LEVELS, "check": [check for check in CHECKS if check in found]})
    head = _head(["Level", "Subject", "Image", "Finding", "What to do", "Check"])
    table = f'<div class="box"><table class="data" id="finding-table">{head}<tbody>{"".join(rows)}</tbody></table></div>'
    return f'<section id="findings"><h2>Findings</h2><div class="chips" hidden>{chips}</div>{bar}{table}</section>'


def _chip(level: str, check: str, count: int) -> str:
    """A button that leaves the findings of one level and check."""
    of = f'data-for="finding-table" data-level="{level}" data-check="{escape(check)}" title="{escape(CHECKS[check])}"'
    return f'<button type="button" class="chip" aria-pressed="false" {of}><b class="{level}">{count}</b> {escape(check)}</button>'


def _subjects(findings: Sequence[Finding], subjects: Sequence[SubjectFacts]) -> str:
    own: dict[str | None, list[Finding]] = {}
    for finding in findings:
        own.setdefault(finding.subject, []).append(finding)
    rows = "\n".join(_subject(place, subject, own.get(subject.name, [])) for place, subject in enumerate(subjects))
    head = _head(["", "Subject", "Findings", "Voxels", "Spacing, mm", "Median", "Labels, ml", "Images"])
    note = (
        "Planes lie where most labels are, or in the middle. Axial and coronal: the patient's right is on the right; sagittal: the front. "
        "Median: of the first scalar image, without its background."
    )
    bar = _bar("subject-table", {"level": LEVELS})
    table = f'<table class="data rows" id="subject-table">{head}<tbody>{rows}</tbody></table>'
    return f'<section id="subjects"><h2>Subjects</h2><p class="faint">{escape(note)}</p>{bar}{table}</section>'


def _subject(place: int, subject: SubjectFacts, findings: list[Finding]) -> str:
    first = next(iter(subject.images.values()), None)
    scalar = next((facts for facts in subject.images.values() if facts.intensities is not None), None)
    labels = [part.millilitres for facts in subject.images.values() if facts.kind == "label" for part in facts.classes]
    has_labels = any(facts.kind == "label" for facts in subject.images.values())
    levels = " ".join(level for level in LEVELS if any(finding.level == level for finding in findings))
    worst = sum(10 ** (6 - 3 * LEVELS.index(finding.level)) for finding in findings)
    listed = "".join(f'<li><span class="{finding.level}">{finding.level}</span> {escape(finding.check)}</li>' for finding in findings[:8])
    more = f"<li>{len(findings) - 8} more</li>" if len(findings) > 8 else ""
    median = None if scalar is None or scalar.intensities is None else scalar.intensities.body[1]
    cells = [
        f'<td class="picture">{_picture(subject)}</td>',
        f'<td class="name"><b>{escape(subject.name)}</b></td>',
        f'<td data-key="{worst}"><ul class="found">{listed}{more}</ul></td>' if findings else '<td data-key="0" class="faint">none</td>',
        _cell(
            None if first is None else first.shape[1] * first.shape[2] * first.shape[3], "" if first is None else _times(first.shape[1:])
        ),
        _cell(None if first is None else max(first.spacing), "" if first is None else _times(first.spacing)),
        _cell(median, "" if median is None else number(median)),
        _cell(sum(labels) if has_labels else None, number(sum(labels)) if has_labels else ""),
        f"<td>{''.join(_image(name, facts) for name, facts in subject.images.items())}{_missing(subject)}</td>",
    ]
    return f'<tr id="s{place}" data-level="{levels}">{"".join(cells)}</tr>'


def _cell(key: float | None, text: str) -> str:
    return f'<td class="number" data-key="{"" if key is None else repr(float(key))}">{escape(text)}</td>'


def _picture(subject: SubjectFacts) -> str:
    if not subject.picture:
        return '<span class="faint">no picture</span>'
    width, height = (int.from_bytes(subject.picture[start : start + 4], "big") for start in (16, 20))  # of the PNG's header
    data = base64.b64encode(subject.picture).decode()
    return (
        f'<img loading="lazy" decoding="async" width="{width}" height="{height}" alt="{escape(subject.caption)}" '
        f'src="data:image/png;base64,{data}"><span class="caption faint">{escape(subject.caption)}</span>'
    )


def _image(name: str, facts: ImageFacts) -> str:
    channels = f"{facts.shape[0]} channels of " if facts.shape[0] > 1 else ""
    lines = [f"<b>{escape(name)}</b> {channels}{_times(facts.shape[1:])}, {escape(facts.dtype)}, {escape(facts.orientation)}"]
    if facts.intensities is not None:
        held = facts.intensities
        lines.append(
            f"{number(held.low)} to {number(held.high)}, mean {number(held.mean)}, std {number(held.std)} {sparkline(held.counts)}"
        )
    if facts.kind == "label":
        listed = [_class(part) for part in facts.classes[:_CLASSES]]
        more = [f"{len(facts.classes) - _CLASSES} more"] if len(facts.classes) > _CLASSES else []
        lines.append("; ".join(listed + more) or "no label")
    return f'<div class="image" title="{escape(facts.source)}">{"<br>".join(lines)}</div>'


def _class(part: LabelClass) -> str:
    parts = "" if part.parts == 1 else f" in {part.parts} parts"
    return f'<i class="swatch c{(part.value - 1) % len(COLOURS)}">&#9632;</i> {part.value}: {number(part.millilitres)} ml{parts}'


def _missing(subject: SubjectFacts) -> str:
    return "".join(f'<div class="image"><b>{escape(name)}</b> <span class="error">cannot be used</span></div>' for name in subject.missing)


def _times(numbers: Sequence[float]) -> str:
    return " × ".join(number(part) for part in numbers)
