"""The check of one subject: each of its images is read once, looked at, and let go before the next."""

from dataclasses import dataclass, field, replace

import numpy as np

from patchflow.errors import PatchflowError
from patchflow.geometry.affine import spacing
from patchflow.images.image import Image
from patchflow.kernels.fingerprint import Fingerprint
from patchflow.kernels.pointwise import apply_map
from patchflow.quality.facts import ImageFacts, SubjectFacts
from patchflow.quality.findings import Finding
from patchflow.quality.grids import form_findings, grid_findings, orientation
from patchflow.quality.intensity import intensities, intensity_findings
from patchflow.quality.labels import LabelSummary, Regions, label_findings
from patchflow.quality.picture import Cut, Cutter, Plane, cut, draw, planes_of
from patchflow.quality.reading import Stored, read
from patchflow.quality.settings import Settings
from patchflow.quality.spread import Gathering, gathering
from patchflow.subjects.subject import Subject
from patchflow.types import Array, Int3


@dataclass
class _Drawing:
    """What the picture is made of, as images go by: label maps come first, so that the planes may lie where the labels are."""

    planes: list[Plane] = field(default_factory=list)
    grid: tuple[tuple[int, ...], str] | None = None
    labels: Cut | None = None
    image: Cut | None = None
    names: tuple[str, ...] = ()
    window: tuple[float, float] = (0.0, 1.0)

    def add_labels(self, name: str, stored: Stored, regions: Regions) -> None:
        """Take the first label map, which has been read."""
        if self.labels is None and not regions.torn:
            self._place(stored, regions.middle())
            values = regions.planes((plane.axis, plane.place) for plane in self.planes)
            self.labels = cut(self.planes, values, _space(stored), spacing(stored.affine))
            self.names += (f"outline {name}",)

    def cutter(self, stored: Stored) -> Cutter | None:
        """What takes planes of the first scalar image, which is about to be read."""
        if self.image is not None:
            return None
        if self.grid != (_space(stored), orientation(stored.affine)):
            self._place(stored, None)
            self.labels, self.names = None, ()
        return Cutter(self.planes, _space(stored), stored.affine, stored.dtype)

    def add_image(self, name: str, stored: Stored, taken: Cut, facts: ImageFacts) -> None:
        """Take the planes of the first scalar image."""
        if facts.intensities is not None:
            self.image = taken._replace(values=[apply_map(plane[None, None], stored.map)[0, 0] for plane in taken.values])
            body = facts.intensities.body
            self.window = (min(facts.intensities.percentiles[0], body[0]), body[3])
            self.names = (name, *self.names)

    def _place(self, stored: Stored, middle: Int3 | None) -> None:
        self.planes = planes_of(_space(stored), stored.affine, middle)
        self.grid = _space(stored), orientation(stored.affine)

    def finish(self) -> tuple[bytes, str]:
        """The picture and its caption."""
        picture = draw(self.image, self.window, self.labels)
        return picture, f"{', '.join(self.names)}; {', '.join(plane.name for plane in self.planes)}" if picture else ""


def _space(stored: Stored) -> Int3:
    return stored.shape[1], stored.shape[2], stored.shape[3]


def check_subject(subject: Subject, settings: Settings) -> SubjectFacts:
    """Read and check all images of a subject, one after another. Whatever is wrong with a file becomes a finding, and nothing is raised."""
    images: dict[str, ImageFacts] = {}
    findings: list[Finding] = []
    drawing = _Drawing() if settings.pictures else None
    label_maps_first = sorted(subject.images, key=lambda name: subject[name].kind != "label")
    for name in label_maps_first:
        try:
            images[name] = _check_image(subject.name, name, subject[name], settings, findings, drawing)
        except Exception as error:  # one bad file never stops a check of thousands
            findings.append(_unusable(subject.name, name, error))
    ordered = {name: images[name] for name in subject.images if name in images}
    if ordered:
        findings.extend(grid_findings(subject.name, ordered))
    kept = [finding for finding in findings if finding.check not in settings.skip]
    facts = SubjectFacts(subject.name, ordered, tuple(name for name in subject.images if name not in images), kept)
    picture, caption = (b"", "") if drawing is None else drawing.finish()
    return replace(facts, picture=picture, caption=caption)


def _unusable(subject: str, image: str, error: Exception) -> Finding:
    if isinstance(error, PatchflowError):
        mend = "until then the subject cannot be used: leave it out"
        return Finding("error", "readable", subject, image, str(error), mend)
    kind = type(error).__name__
    mend = "leave the subject out, and report the error with its file"
    return Finding("error", "failed", subject, image, f"the check broke off: {kind}: {error}", mend)


class _Looker:
    """Takes what a check needs of every voxel."""

    def __init__(self, drawing: _Drawing | None) -> None:
        self.fingerprint = Fingerprint()
        self.gathering: Gathering | None = None
        self.regions: Regions | None = None
        self.cutter: Cutter | None = None
        self._drawing = drawing

    def begin(self, stored: Stored) -> None:
        """As `Looker` says."""
        if stored.kind == "scalar":
            self.gathering = gathering(stored.dtype, stored.map)
            self.cutter = None if self._drawing is None else self._drawing.cutter(stored)
        else:
            self.regions = Regions(stored.shape)

    def add(self, channel: int, first: int, slices: Array) -> None:
        """As `Looker` says."""
        self.fingerprint.add(slices if self.regions is None else self.regions.add(slices))
        if self.gathering is not None:
            self.gathering.add(channel, slices.reshape(-1))
        if self.cutter is not None and channel == 0:
            self.cutter.add(first, slices)


def _check_image(
    subject: str, name: str, image: Image, settings: Settings, findings: list[Finding], drawing: _Drawing | None
) -> ImageFacts:
    looker = _Looker(drawing)
    stored = read(image, looker)
    facts = _facts(image, stored, looker.fingerprint.number())
    if image.path is not None:
        findings.extend(form_findings(subject, name, image.path, _space(stored)))
    if looker.regions is not None:
        found = looker.regions.summary(float(abs(np.linalg.det(stored.affine[:3, :3]))) / 1000, settings.island_voxels)
        facts = replace(facts, classes=found.classes, constant=not found.torn and _one_label(found, stored))
        findings.extend(label_findings(subject, name, found, facts.shape, settings))
        if drawing is not None:
            drawing.add_labels(name, stored, looker.regions)
    elif looker.gathering is not None:
        values = looker.gathering.finish()
        facts = replace(facts, intensities=intensities(values), constant=len(values.flat) == stored.shape[0])
        findings.extend(intensity_findings(subject, name, stored, values))
        if drawing is not None and looker.cutter is not None:
            drawing.add_image(name, stored, looker.cutter.cut(), facts)
    return facts


def _one_label(found: LabelSummary, stored: Stored) -> bool:
    return not found.classes or (len(found.classes) == 1 and found.classes[0].voxels == stored.voxels)


def _facts(image: Image, stored: Stored, fingerprint: int) -> ImageFacts:
    c, i, j, k = stored.shape
    step = spacing(stored.affine)
    return ImageFacts(
        kind=stored.kind,
        source=image.describe(),
        shape=(c, i, j, k),
        dtype=str(stored.dtype),
        spacing=(float(step[0]), float(step[1]), float(step[2])),
        affine=tuple(tuple(float(number) for number in row) for row in stored.affine),
        orientation=orientation(stored.affine),
        nbytes=stored.voxels * stored.dtype.itemsize,
        fingerprint=f"{stored.dtype} {(c, i, j, k)} {fingerprint:016x}",
    )
