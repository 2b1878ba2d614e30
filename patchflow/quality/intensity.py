"""Checks of one scalar image, from how its values are spread."""

from collections.abc import Iterator

import numpy as np

from patchflow.quality.facts import Intensities
from patchflow.quality.findings import Finding, Level
from patchflow.quality.reading import Stored
from patchflow.quality.spread import Spread

BINS = 64
FLOORS = (0.0, -1000.0, -1024.0, -2048.0, -3024.0)
"""Values that scanners and their software cut at below: nothing at all, and air in CT. A peak there is as it should be."""

PEAK, FEW = 1e-4, 20
"""Least share of voxels, and least number of them, that hold an end of the range for it to be a peak."""

NEAR, TIMES, STEPS = 0.02, 5.0, 20
"""And they are at least `TIMES` as many as one level holds on average within `NEAR` of the range from it, as an unclipped tail thins out
towards its end. Floats have no levels: there it is a `STEPS`-th of those voxels."""

FEW_LEVELS = 16
"""Images of fewer values than this (masks, maps of classes) have peaks everywhere."""


def intensities(spread: Spread) -> Intensities | None:
    """What is kept of the values; None where none is finite."""
    if not spread.voxels:
        return None
    body = spread.body()
    shown = [body.percentile(percent) for percent in (25, 50, 75, 99.5)]
    first, last = body.percentile(0.1), body.percentile(99.9)
    edges = np.linspace(first, last if last > first else first + 1, BINS + 1)
    return Intensities(
        spread.low,
        spread.high,
        spread.mean,
        spread.std,
        (spread.percentile(0.5), spread.percentile(50), spread.percentile(99.5)),
        (shown[0], shown[1], shown[2], shown[3]),
        (float(edges[0]), float(edges[-1])),
        tuple(int(number) for number in body.rebinned(edges)),
        spread.background / spread.voxels,
    )


def intensity_findings(subject: str, image: str, stored: Stored, spread: Spread) -> Iterator[Finding]:
    """NaN and infinity, constant channels, peaks at the ends of the range, and values at the ends of a 16-bit dtype."""

    def found(level: Level, check: str, sentence: str, mend: str) -> Finding:
        return Finding(level, check, subject, image, sentence, mend)

    voxels = stored.voxels
    if spread.nan or spread.infinite:
        kinds = [f"{number} {what}" for number, what in ((spread.nan, "NaN"), (spread.infinite, "infinite")) if number]
        wide = " (as float32, in which values are read)" if spread.infinite and stored.dtype != np.float32 else ""
        yield found(
            "error", "finite", f"{' and '.join(kinds)} of {voxels} voxels{wide}", "set them to a number in the source, or mask them"
        )
    if spread.flat:
        which = (
            "every voxel" if stored.shape[0] == 1 else f"channel {', '.join(map(str, spread.flat[:8]))}{', ...' * (len(spread.flat) > 8)}"
        )
        yield found("error", "constant", f"{which} holds one value{_first(spread)}", "export the image again, or leave the subject out")
        return
    if spread.voxels:
        yield from _peaks(subject, image, spread)
        yield from _ends_of_dtype(subject, image, stored, spread)


def _first(spread: Spread) -> str:
    return f", {spread.low:g}" if spread.low == spread.high else ""


def _peaks(subject: str, image: str, spread: Spread) -> Iterator[Finding]:
    if len(spread.counts) < FEW_LEVELS or not spread.high > spread.low:
        return
    if (spread.low, spread.high) == (0, 1):
        return  # probabilities, or scaled so on purpose
    width = NEAR * (spread.high - spread.low)
    steps = max(width / spread.step, 1.0) if spread.step else STEPS
    ends = (
        ("highest", spread.high, spread.at_high, spread.between(spread.high - width, spread.high)),
        ("lowest", spread.low, spread.at_low, spread.between(spread.low, spread.low + width)),
    )
    for which, value, at, near in ends:
        expected = which == "lowest" and (value in FLOORS or spread.background > 0)
        others = max(near - at, 0.0)
        if not expected and at >= max(PEAK * spread.voxels, FEW, TIMES * others / steps):
            yield Finding(
                "warning",
                "clipped",
                subject,
                image,
                f"{at} voxels ({at / spread.voxels:.2%}) hold the {which} value, {value:g}, far more than each value near it: "
                "the image was clipped there",
                "export it from the source with its whole range; if the clipping is meant, skip the check 'clipped'",
            )


def _ends_of_dtype(subject: str, image: str, stored: Stored, spread: Spread) -> Iterator[Finding]:
    """What a 16-bit dtype may have cut or wrapped round; a scaling in the header is mostly made so that values fill the dtype."""
    dtype = stored.dtype
    if dtype not in (np.dtype(np.int16), np.dtype(np.uint16)) or not stored.map.is_identity:
        return
    info = np.iinfo(dtype)
    held, low, high = spread.lower, round(spread.low), round(spread.high)
    reached = [end for end, limit in ((low, info.min), (high, info.max)) if end == limit and end != 0]
    wrapped = dtype == np.uint16 and high >= 0xF000 and not ((held >= 0x8000) & (held < 0xF000)).any() and low < 0x8000
    if wrapped:
        yield Finding(
            "warning",
            "range",
            subject,
            image,
            "stored as uint16, with values up to 32767 and from 61440 on, and none between: negative values have wrapped round",
            "read the voxels as int16, or export the image again",
        )
    elif reached:
        yield Finding(
            "warning",
            "range",
            subject,
            image,
            f"stored values reach {' and '.join(map(str, reached))}, where {dtype} ends: values beyond were cut or have wrapped round",
            "export the image again as float32, or as integers with a scaling",
        )
