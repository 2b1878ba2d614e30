"""Checks of where images lie: whether those of a subject are on one grid, and what NIfTI headers say twice."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from patchflow.geometry.affine import spacing
from patchflow.images.stream import open_stream
from patchflow.quality.facts import ImageFacts
from patchflow.quality.findings import Finding
from patchflow.quality.reading import NIFTI
from patchflow.subjects.subject import TOLERANCE
from patchflow.types import Affine

SPACING = 1e-3
"""Spacings differ if by more than this part of themselves; headers hold float32."""

_nibabel: Any = nib  # its functions have no types
_HEADERS = {348: _nibabel.Nifti1Header, 540: _nibabel.Nifti2Header}


def orientation(affine: Affine) -> str:
    """Where the voxel axes I, J and K run in the patient: a letter each, of L, R, A, P, S and I."""
    return _orientation(affine.tobytes())


@lru_cache(64)
def _orientation(affine: bytes) -> str:
    letters: tuple[str, ...] = _nibabel.aff2axcodes(np.frombuffer(affine, np.float64).reshape(4, 4))
    return "".join(letters)


def farthest_corner(shape: tuple[int, ...], one: Affine, two: Affine) -> float:
    """Millimetres between the two places of the corner voxel that two affines put furthest apart."""
    corners = np.array([(*corner, 1.0) for corner in product(*((0, n - 1) for n in shape))])
    return float(np.linalg.norm((corners @ (one - two).T)[:, :3], axis=1).max())


def grid_findings(subject: str, images: dict[str, ImageFacts]) -> Iterator[Finding]:
    """Each image against the subject's first: the first thing in which they differ of shape, orientation, spacing and place."""
    (first, reference), *others = images.items()
    for name, facts in others:
        mend = f"resample {name!r} to {first!r} or the other way round, or set the right affine"
        differing = _differing(reference, facts, first)
        if differing is not None:
            check, sentence = differing
            yield Finding("error", check, subject, name, sentence, mend)


def _differing(one: ImageFacts, two: ImageFacts, first: str) -> tuple[str, str] | None:
    if one.shape[1:] != two.shape[1:]:
        return "shape", f"has {_times(two.shape[1:])} voxels, and {first!r} has {_times(one.shape[1:])}"
    affines = np.array(one.affine), np.array(two.affine)
    apart = farthest_corner(one.shape[1:], *affines)
    allowed = TOLERANCE * min(*one.spacing, *two.spacing)
    if apart <= allowed:
        return None
    if one.orientation != two.orientation:
        return "orientation", f"runs {two.orientation}, and {first!r} runs {one.orientation}: corners lie up to {apart:.6g} mm apart"
    if not np.allclose(one.spacing, two.spacing, rtol=SPACING):
        return "spacing", f"has a spacing of {_times(two.spacing)} mm, and {first!r} has {_times(one.spacing)} mm"
    return "place", f"lies up to {apart:.6g} mm from where {first!r} has the same voxel, and {allowed:.6g} mm are allowed"


def _times(numbers: tuple[float, ...]) -> str:
    return " x ".join(f"{number:.6g}" for number in numbers)


def form_findings(subject: str, image: str, path: Path, shape: tuple[int, ...]) -> Iterator[Finding]:
    """sform and qform of a NIfTI file that has been read: whether they agree, and whether there is one.

    Args:
        path: of the file; of another format there is nothing to say.
        shape: (I, J, K).
    """
    if not path.name.lower().endswith(NIFTI):
        return
    header = _header(path)
    sform, qform = header.get_sform(coded=True)[0], _qform(header)
    if sform is None and int(header["qform_code"]) == 0:
        yield Finding(
            "note",
            "forms",
            subject,
            image,
            "its header sets neither sform nor qform: only the spacing is known, and directions are a guess",
            "convert it from its source again, or write the right affine with pf.ScalarImage and an export",
        )
    elif sform is not None and int(header["qform_code"]) > 0:
        if qform is None:
            yield Finding("warning", "forms", subject, image, "its qform cannot be used, and readers that prefer it will fail", _MEND)
            return
        apart = farthest_corner(shape, sform, qform)
        if apart > TOLERANCE * float(min(spacing(sform).min(), spacing(qform).min())):
            yield Finding(
                "warning",
                "forms",
                subject,
                image,
                f"its sform and qform put a corner voxel {apart:.6g} mm apart; the sform is used here, and other readers may use the qform",
                _MEND,
            )


_MEND = "write the file again with both set to the right affine"


def _header(path: Path) -> Any:
    """The header of a file that has been read."""
    with open_stream(path) as stream:
        block = bytearray(4)
        stream.into(memoryview(block))
        order = "<" if int.from_bytes(block, "little") in _HEADERS else ">"
        size = int.from_bytes(block, "little" if order == "<" else "big")
        block += bytes(size - 4)
        stream.into(memoryview(block)[4:])
    return _HEADERS[size](bytes(block), order, False)


def _qform(header: Any) -> Affine | None:
    """The qform; None where its quaternion is none."""
    try:
        qform: Affine = header.get_qform()
    except (ValueError, nib.spatialimages.HeaderDataError):
        return None
    return qform if np.isfinite(qform).all() else None
