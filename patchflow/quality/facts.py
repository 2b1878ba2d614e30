"""What a check knows of an image and a subject when their voxels are gone: small, plain, and sendable between processes."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from patchflow.quality.findings import Finding


@dataclass(frozen=True)
class Intensities:
    """Of the values of a scalar image as read, all channels together, those that are not finite left out.

    Attributes:
        low: the least.
        high: the greatest.
        mean: of all.
        std: divided by the count.
        percentiles: the 0.5th, 50th and 99.5th. Those of 8- and 16-bit integers are exact to a level, others to 0.8 % of their size.
        body: the 25th, 50th, 75th and 99.5th of the values that are not background. That is the least value, where it is more frequent
            than any other and a tenth of all.
        edges: the first and last edge of `counts`.
        counts: voxels outside the background in 64 bins of one width.
        background: share of the voxels that are background, 0 to 1.
    """

    low: float
    high: float
    mean: float
    std: float
    percentiles: tuple[float, float, float]
    body: tuple[float, float, float, float]
    edges: tuple[float, float]
    counts: tuple[int, ...]
    background: float


@dataclass(frozen=True)
class LabelClass:
    """A label of a label map.

    Attributes:
        value: the label.
        voxels: how many hold it.
        millilitres: their volume.
        parts: connected parts (26 neighbours); None where they were not counted.
    """

    value: int
    voxels: int
    millilitres: float
    parts: int | None = None


@dataclass(frozen=True)
class ImageFacts:
    """What is known of one image.

    Attributes:
        kind: "scalar" or "label".
        source: its path, or that it is an array.
        shape: (C, I, J, K).
        dtype: of the stored voxels.
        spacing: millimetres along I, J, K.
        affine: 4x4, voxel index to RAS+ millimetres.
        orientation: where I, J and K run in the patient, such as "RAS".
        nbytes: of the stored voxels.
        fingerprint: equal for images of equal dtype, shape and voxels.
        constant: whether all voxels hold one value.
        intensities: of a scalar image with any finite value.
        classes: of a label map, without 0, ascending.
    """

    kind: Literal["scalar", "label"]
    source: str
    shape: tuple[int, int, int, int]
    dtype: str
    spacing: tuple[float, float, float]
    affine: tuple[tuple[float, ...], ...]
    orientation: str
    nbytes: int
    fingerprint: str
    constant: bool = False
    intensities: Intensities | None = None
    classes: tuple[LabelClass, ...] = ()


@dataclass(frozen=True)
class SubjectFacts:
    """What is known of one subject.

    Attributes:
        name: of the subject.
        images: names to facts, of those that could be read.
        missing: names of those that could not.
        findings: about the subject and its images alone.
        picture: a PNG of its mid-planes; empty where none was asked for or could be drawn.
        caption: of the picture.
    """

    name: str
    images: dict[str, ImageFacts] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    findings: list[Finding] = field(default_factory=list)
    picture: bytes = b""
    caption: str = ""


def plain(value: Any) -> Any:
    """Facts and findings as JSON's own kinds of values; pictures are left out, and numbers that are not finite become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            part.name: plain(getattr(value, part.name)) for part in dataclasses.fields(value) if part.name not in ("picture", "caption")
        }
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
