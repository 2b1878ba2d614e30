"""DICOM files to series, and the frames of a series to a stack whose slices lie on one grid, or are refused by name.

What is wrong with a series is told by file: two slices at one place, a slice missing between others, slices of other sizes or directions.
Nothing is left out: every image of the chosen series becomes a slice.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from patchflow.errors import ImageError, ImageFileError
from patchflow.images.content import ras_from_lps
from patchflow.images.volume import checked_affine
from patchflow.types import Affine, Array

BIG_ENDIAN = "1.2.840.10008.1.2.2"
"""The transfer syntax Explicit VR Big Endian."""

_SAME_DIRECTION = 1e-3  # of direction cosines, which some scanners round to four digits
_SAME_PLACE = 1e-3  # of the distance between neighbours
_EVEN = 0.05  # of the distance between neighbours: how far a slice may lie from its place on an even grid
_ROUNDING = 0.01  # millimetres
_MOST_LISTED = 40
_ALIKE = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation", "Modality")
_TELLING = ("EchoTime", "TemporalPositionIdentifier", "AcquisitionNumber", "ImageType")
_NO_IMAGES = re.compile(  # PS3.4 B.5: reports, presentation states, plans, structures, registrations, waveforms, documents, raw data
    r"1\.2\.840\.10008\.(1\.3\.10|5\.1\.4\.1\.1\.(88\..+|11\..+|9\..+|104\..+|4\.2|66|66\.[1235]|481\.[3-9]))"
    r"|1\.3\.12\.2\.1107\..+|1\.3\.46\.670589\..+"  # and what Siemens and Philips put beside images
)
_DTYPES = {8: "1", 16: "2", 32: "4"}


class DicomFile(NamedTuple):
    """A file, and what `decoder.dicom_header` says of it."""

    path: Path
    says: dict[str, Any]


class Frame(NamedTuple):
    """A slice: its file, which frame of it, what is said of the frame, and where its first voxel lies (LPS+ millimetres)."""

    file: DicomFile
    number: int
    says: dict[str, Any]
    position: Array


@dataclass(frozen=True)
class Stack:
    """Slices in order along the normal of their planes.

    Attributes:
        frames: the slices.
        shape: (1, I, J, K): columns, rows, slices.
        dtype: of the stored voxels, in the machine's byte order.
        affine: 4x4 float64, voxel index to RAS+ millimetres; sheared where the gantry was tilted.
        scalings: slope and intercept of each slice.
    """

    frames: list[Frame]
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    affine: Affine
    scalings: list[tuple[float, float]]

    @property
    def is_uniform(self) -> bool:
        """Whether all slices are scaled alike."""
        return len(set(self.scalings)) == 1

    @property
    def files(self) -> list[DicomFile]:
        """Each file once, in the order of their first slices."""
        return list({frame.file.path: frame.file for frame in self.frames}.values())


def chosen(files: Iterable[DicomFile], series: str, folder: Path) -> list[DicomFile]:
    """The files of the series whose SeriesInstanceUID is or ends in `series`; for an empty one, of the only series of images.

    Raises:
        ImageFileError: listing all series, where none or several fit; for a file that holds no image though it should: one that is
            damaged may be of any series.
    """
    groups: dict[str, list[DicomFile]] = defaultdict(list)
    for file in files:
        if not file.says["frames"] and not _NO_IMAGES.fullmatch(file.says["SOPClassUID"]):
            raise _no_image(file)
        groups[file.says["SeriesInstanceUID"] or ""].append(file)
    images = {uid: group for uid, group in groups.items() if any(file.says["frames"] for file in group)}
    if not images:
        raise ImageFileError(f"{folder} holds no DICOM images: give the folder of a series")
    if "" in images:
        raise ImageFileError(f"{images[''][0].path} says of no series that it belongs to one (SeriesInstanceUID): set it in the file")
    exact = [series] if series in images else [uid for uid in images if uid.endswith(series)]
    if len(exact) != 1:
        problem = "holds" if not series else f"has {len(exact)} series that end in {series!r}, and holds"
        raise ImageFileError(
            f"{folder} {problem} {len(images)} series: choose one by series=, its SeriesInstanceUID or the end of it that is its own:\n"
            + "\n".join(_listed(images))
        )
    return images[exact[0]]


def _listed(images: dict[str, list[DicomFile]]) -> list[str]:
    lines = []
    for uid, group in sorted(images.items()):
        first = next(file.says for file in group if file.says["frames"])
        count = sum(len(file.says["frames"]) for file in group)
        scout = ", localizer" if "LOCALIZER" in (first["ImageType"] or "").upper() else ""
        lines.append(
            f"  {uid}  {first['SeriesDescription'] or 'no description'!r} ({first['Modality'] or 'no modality'}{scout}), "
            f"{count} slices of {first['Columns']}x{first['Rows']}"
        )
    rest = len(lines) - _MOST_LISTED
    return lines[:_MOST_LISTED] + ([f"  and {rest} more"] if rest > 0 else [])


def stacked(files: list[DicomFile], where: Path) -> Stack:
    """The slices of a series in order, if they lie on one grid.

    Args:
        files: all of one series.
        where: its folder or only file, for errors.

    Raises:
        ImageFileError: naming the file and what is wrong.
    """
    for file in files:
        _check_image(file)
    _check_distinct(files)
    _check_alike(files, where)
    frames = [_placed(file, index) for file in files for index in range(len(file.says["frames"]))]
    first = frames[0]
    _check_directions(frames, where)
    row, column = np.reshape(first.says["orientation"], (2, 3))
    normal = np.cross(row, column)
    frames.sort(key=lambda frame: float(frame.position @ normal))
    step = _step(frames, normal, where)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row * first.says["spacing"][1], column * first.says["spacing"][0], step], 1)
    affine[:3, 3] = frames[0].position
    says = first.file.says
    try:
        affine = checked_affine(ras_from_lps(affine), str(where))
    except ImageError as error:
        raise ImageFileError(f"{error}") from error
    dtype = np.dtype("ui"[says["PixelRepresentation"]] + _DTYPES[says["BitsAllocated"]])
    return Stack(frames, (1, says["Columns"], says["Rows"], len(frames)), dtype, affine, [_scaling(frame) for frame in frames])


def _check_image(file: DicomFile) -> None:
    path, says = file
    if not says["frames"]:
        raise _no_image(file)
    missing = [key for key in (*_ALIKE[:5], "SamplesPerPixel", "HighBit") if says[key] is None]
    if missing or (says["native"] and says["pixels"] is None):
        raise ImageFileError(f"{path} has no {', '.join(missing) or 'pixel data'}: it is truncated or no image; fetch it again")
    kind = says["PhotometricInterpretation"]
    if says["SamplesPerPixel"] != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageFileError(
            f"{path} is in colour ({kind}, {says['SamplesPerPixel']} samples per pixel), and intensities are needed: choose another "
            "series, or convert it to grey values"
        )
    if "MOSAIC" in (says["ImageType"] or "").upper().split("\\"):
        raise ImageFileError(
            f"{path} is a mosaic of Siemens, many slices side by side in one picture, and where each lies is not said in standard DICOM: "
            "convert it to NIfTI by a program that knows it"
        )
    allocated, stored = says["BitsAllocated"], says["BitsStored"]
    if (
        allocated not in _DTYPES
        or not 1 <= stored <= allocated
        or says["HighBit"] != stored - 1
        or says["PixelRepresentation"] not in (0, 1)
    ):
        raise ImageFileError(
            f"{path}: voxels of {stored} bits in {allocated} with high bit {says['HighBit']} and representation "
            f"{says['PixelRepresentation']} cannot be used: convert it to 8, 16 or 32 bits (a segmentation to NIfTI)"
        )
    if says["syntax"] == BIG_ENDIAN and allocated == 8:
        raise ImageFileError(f"{path} holds voxels of 8 bits in pairs of swapped bytes (big-endian): write it as little-endian")
    if says["pixels"] is not None and says["pixels"][0] != "PixelData":
        raise ImageFileError(f"{path} holds {says['pixels'][0]}, which cannot be used: convert it to NIfTI")
    if says["lut"]:
        raise ImageFileError(f"{path} scales its values by a table (ModalityLUTSequence), which cannot be used: convert it to NIfTI")
    if min(says["Rows"], says["Columns"]) < 1:
        raise ImageFileError(f"{path} has {says['Rows']} rows and {says['Columns']} columns: fetch it again")


def _no_image(file: DicomFile) -> ImageFileError:
    what = "no image (no Rows), and is not of a kind that has none" if not _NO_IMAGES.fullmatch(file.says["SOPClassUID"]) else "no image"
    return ImageFileError(f"{file.path} holds {what}: fetch it again, or take it out of the folder")


def _check_distinct(files: list[DicomFile]) -> None:
    seen: dict[str, Path] = {}
    for path, says in files:
        uid = says["SOPInstanceUID"]
        if uid and uid in seen:
            raise ImageFileError(f"{seen[uid]} and {path} are the same image (SOPInstanceUID {uid}): keep one of them in the folder")
        seen[uid] = path


def _check_alike(files: list[DicomFile], where: Path) -> None:
    scouts = ["LOCALIZER" in (file.says["ImageType"] or "").upper() for file in files]
    if any(scouts) and not all(scouts):
        raise ImageFileError(f"{where}: {files[scouts.index(True)].path} is a localizer among other slices: take it out of the folder")
    first = files[0]
    for key in _ALIKE:
        for file in files:
            if file.says[key] != first.says[key]:
                raise ImageFileError(
                    f"{where}: slices of one series differ: {key} is {first.says[key]} in {first.path} and {file.says[key]} in "
                    f"{file.path}; move those that do not belong together to folders of their own"
                )


def _placed(file: DicomFile, index: int) -> Frame:
    says, what = file.says["frames"][index], f"{file.path}, frame {index}" if len(file.says["frames"]) > 1 else f"{file.path}"
    for key, name in (("position", "ImagePositionPatient"), ("orientation", "ImageOrientationPatient"), ("spacing", "PixelSpacing")):
        if says[key] is None or not np.isfinite(says[key]).all():
            raise ImageFileError(f"{what} has no {name}, so that its voxels have no place: convert it to NIfTI and give it an affine")
    row, column = np.reshape(says["orientation"], (2, 3))
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 2 * _SAME_DIRECTION:
        raise ImageFileError(f"{what}: ImageOrientationPatient {says['orientation']} are no perpendicular unit vectors: set it right")
    if min(says["spacing"]) <= 0:
        raise ImageFileError(f"{what}: PixelSpacing must be above 0, not {says['spacing']}: set it right in the file")
    return Frame(file, index, says, np.array(says["position"], np.float64))


def _check_directions(frames: list[Frame], where: Path) -> None:
    first = frames[0]
    for frame in frames:
        for key, most in (("orientation", _SAME_DIRECTION), ("spacing", _SAME_DIRECTION * min(first.says["spacing"]))):
            if np.abs(np.subtract(frame.says[key], first.says[key])).max() > most:
                raise ImageFileError(
                    f"{where}: slices of one series differ in {key}: {first.says[key]} in {first.file.path} and {frame.says[key]} in "
                    f"{frame.file.path}; move those that do not belong together (localizers, other planes) to folders of their own"
                )


def _step(frames: list[Frame], normal: Array, where: Path) -> Array:
    """From a slice to the next, LPS+ millimetres."""
    if len(frames) == 1:
        says = frames[0].says
        thickness = says["between"] or says["thickness"]
        if thickness is None or not math.isfinite(thickness) or thickness == 0:
            raise ImageFileError(f"{frames[0].file.path} is one slice, and does not say how thick it is: set SliceThickness in the file")
        single: Array = normal * abs(thickness)
        return single
    positions = np.stack([frame.position for frame in frames])
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    for number in np.flatnonzero(gaps <= _SAME_PLACE * max(usual, _ROUNDING))[:1]:
        raise ImageFileError(_at_one_place(frames, int(number), where))
    step: Array = (positions[-1] - positions[0]) / (len(frames) - 1)
    off = np.linalg.norm(positions - positions[0] - np.arange(len(frames))[:, None] * step, axis=1)
    if off.max() <= max(_EVEN * usual, _ROUNDING):
        return step
    number = int(np.argmax(gaps))
    between = f"{frames[number].file.path} and {frames[number + 1].file.path}"
    ratios = gaps / usual
    lost = int(np.rint(ratios).sum()) - len(gaps)
    if lost > 0 and np.abs(ratios - np.rint(ratios)).max() < 2 * _EVEN:
        raise ImageFileError(
            f"{where}: {lost} slices are missing: {between} are {gaps[number]:.6g} mm apart, and others "
            f"{usual:.6g} mm; fetch the series again"
        )
    raise ImageFileError(
        f"{where}: the slices are not evenly spaced: {gaps.min():.6g} to {gaps[number]:.6g} mm apart (the most {between}), or shifted by "
        f"up to {off.max():.6g} mm; resample them to an even grid, and give that as NIfTI"
    )


def _at_one_place(frames: list[Frame], number: int, where: Path) -> str:
    one, two = frames[number : number + 2]
    differs = [f"{key} {one.file.says[key]} and {two.file.says[key]}" for key in _TELLING if one.file.says[key] != two.file.says[key]]
    return (
        f"{where}: two slices lie at one place, {one.file.path} (frame {one.number}) and {two.file.path} (frame {two.number}), "
        f"{'which differ in ' + ', '.join(differs) if differs else 'and nothing tells them apart'}: put one of each place into a folder of "
        "its own"
    )


def _scaling(frame: Frame) -> tuple[float, float]:
    slope, inter = (default if frame.says[key] is None else frame.says[key] for key, default in (("slope", 1.0), ("inter", 0.0)))
    if not math.isfinite(slope) or not math.isfinite(inter) or slope == 0:
        raise ImageFileError(
            f"{frame.file.path}: RescaleSlope {slope} and RescaleIntercept {inter} scale nothing: set them right in the file"
        )
    return slope, inter
