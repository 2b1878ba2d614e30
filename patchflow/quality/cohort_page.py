"""The page's section on the cohort: for each image a table of what the subjects have, and histograms."""

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from patchflow.quality.charts import bars, histogram, number
from patchflow.quality.cohort import Member, by_image
from patchflow.quality.facts import Intensities, SubjectFacts
from patchflow.quality.spread import Numbers

_LISTED = 5
_CLASSES = 24
_BINS = 48


def cohort_section(subjects: Sequence[SubjectFacts]) -> str:
    """All images."""
    images = by_image(subjects)
    scalar = any(members[0][1].kind == "scalar" for members in images.values())
    parts = [_image(name, members, len(subjects), members[0][1].kind == "scalar" or not scalar) for name, members in images.items()]
    inside = "".join(parts) or '<p class="none">No image could be read.</p>'
    return f'<section id="cohort"><h2>Cohort</h2>{inside}</section>'


def _image(name: str, members: list[Member], total: int, with_grids: bool) -> str:
    """One image; how its voxels lie is drawn `with_grids`: label maps lie as the images do, and a finding says where not."""
    facts = [facts for _, facts in members]
    rows = (
        ("Subjects", f"{len(members)} of {total}"),
        ("Voxels (I, J, K)", _counted(" × ".join(map(str, one.shape[1:])) for one in facts)),
        ("Channels", _counted(one.shape[0] for one in facts)),
        ("Spacing, mm", _counted(" × ".join(number(part) for part in one.spacing) for one in facts)),
        ("Orientation", _counted(one.orientation for one in facts)),
        ("Stored as", _counted(one.dtype for one in facts)),
    )
    table = "".join(f'<tr><th scope="row">{escape(what)}</th><td>{escape(told)}</td></tr>' for what, told in rows)
    charts = []
    if with_grids:
        charts += [histogram([one.shape[n + 1] for one in facts], f"Voxels along {axis}", "") for n, axis in enumerate("IJK")]
        charts += [histogram([one.spacing[n] for one in facts], f"Spacing along {axis}, mm", "mm") for n, axis in enumerate("IJK")]
    values = [one.intensities for one in facts if one.intensities is not None]
    if values:
        charts += _intensity(values)
    classes = _classes(members) if facts[0].kind == "label" else ""
    return (
        f'<h3>{escape(name)} <span class="faint">({"label map" if facts[0].kind == "label" else "scalar image"})</span></h3>'
        f'<table class="plain"><tbody>{table}</tbody></table><div class="charts">{"".join(charts)}</div>{classes}'
    )


def _intensity(values: list[Intensities]) -> list[str]:
    low, high = (float(np.median([one.edges[end] for one in values])) for end in (0, 1))
    charts = []
    if high > low:
        total = np.mean([_shares(one, np.linspace(low, high, _BINS + 1)) for one in values], axis=0)
        charts.append(bars((100 * total).tolist(), (low, high), "Intensities without background, root scale", "", "% of voxels"))
    charts.append(histogram([one.body[1] for one in values], "Median intensity", ""))
    charts.append(histogram([one.body[3] for one in values], "99.5th percentile of intensity", ""))
    charts.append(histogram([100 * one.background for one in values], "Background, % of voxels", "%"))
    return charts


def _shares(one: Intensities, edges: Numbers) -> Numbers:
    """Share of voxels between each two edges, from the image's own bins."""
    ends = np.linspace(*one.edges, len(one.counts) + 1)
    below = np.append(0, np.cumsum(one.counts)) / max(sum(one.counts), 1)
    return np.diff(np.interp(edges, ends, below))


def _classes(members: list[Member]) -> str:
    volumes: dict[int, list[float]] = {}
    for _, facts in members:
        for part in facts.classes:
            volumes.setdefault(part.value, []).append(part.millilitres)
    if not volumes:
        return '<p class="none">No subject has a label.</p>'
    rows, charts = [], []
    for value in sorted(volumes)[:_CLASSES]:
        own = volumes[value]
        numbers = (np.median(own), min(own), max(own))
        rows.append(
            f"<tr><td>{value}</td><td>{len(own)} of {len(members)}</td>{''.join(f'<td>{number(float(n))}</td>' for n in numbers)}</tr>"
        )
        charts.append(histogram(own, f"Label {value}, ml", "ml"))
    more = f'<p class="faint">{len(volumes) - _CLASSES} more labels are in the JSON report.</p>' if len(volumes) > _CLASSES else ""
    head = "<tr><th>Label</th><th>Subjects</th><th>Median, ml</th><th>Least</th><th>Greatest</th></tr>"
    table = f'<table class="plain"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    return f'{table}{more}<div class="charts">{"".join(charts)}</div>'


def _counted(values: Iterable[object]) -> str:
    """The most frequent values, and how often they occur."""
    found = Counter(map(str, values))
    if len(found) == 1:
        return next(iter(found))
    listed = ", ".join(f"{value} ({times})" for value, times in found.most_common(_LISTED))
    return listed + (f" and {len(found) - _LISTED} more" if len(found) > _LISTED else "")
