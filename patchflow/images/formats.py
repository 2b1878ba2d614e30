"""Which reader takes which file: by the end of its name, or that it is a folder."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from patchflow.errors import ArgumentError, ImageFileError
from patchflow.images import attached, dicom, hdf5, mgh, nifti, npy
from patchflow.images.content import Content, Header, Source
from patchflow.images.metaimage import parse_metaimage
from patchflow.images.nrrd import parse_nrrd
from patchflow.images.stream import file_digest


class Format(NamedTuple):
    """How a kind of source is read: its header alone, all of it, and the digest that all of it has. Each raises `ImageFileError`.

    `places` says whether such files say where their voxels lie: always, never, or (None) some of them.
    """

    read_header: Callable[[Source], Header]
    read: Callable[[Source], Content]
    digest: Callable[[Source], str]
    places: bool | None


def _digest(source: Source) -> str:
    return file_digest(source.path)


def _text_format(parse: attached.Parse, places: bool | None) -> Format:
    return Format(
        lambda source: attached.read_attached_header(source.path, parse),
        lambda source: attached.read_attached(source.path, parse),
        lambda source: attached.attached_digest(source.path, parse),
        places,
    )


_NIFTI = Format(lambda source: nifti.read_header(source.path), lambda source: nifti.read(source.path), _digest, True)
_MGH = Format(lambda source: mgh.read_header(source.path), lambda source: mgh.read(source.path), _digest, True)
_NPY = Format(lambda source: npy.read_header(source.path), lambda source: npy.read(source.path), _digest, False)
_HDF5 = Format(hdf5.read_header, hdf5.read, _digest, None)
_DICOM = Format(dicom.read_header, dicom.read, dicom.digest, True)
_NRRD, _META = _text_format(parse_nrrd, None), _text_format(parse_metaimage, True)

FORMATS: dict[str, Format] = {
    ".nii": _NIFTI,
    ".nii.gz": _NIFTI,
    ".mgh": _MGH,
    ".mgz": _MGH,
    ".nrrd": _NRRD,
    ".nhdr": _NRRD,
    ".mha": _META,
    ".mhd": _META,
    ".npy": _NPY,
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".dcm": _DICOM,
    ".ima": _DICOM,
}
"""Ends of names, in lower case, to how such files are read. Folders are DICOM series."""

_INNER = re.compile(r"(.+\.(?:h5|hdf5)):(.+)", re.IGNORECASE | re.DOTALL)


def source_of(text: str, series: str | None) -> Source:
    """What a path given by a user names.

    Args:
        text: the path of a file or folder; of an HDF5 file also "file.h5:/path/of/dataset".
        series: a SeriesInstanceUID or the end of one, for a folder.

    Raises:
        ArgumentError: for an empty path, a series of a file, or one that is no text.
    """
    if not text.strip():
        raise ArgumentError("the path of an image is empty: give that of a file, or of a folder of DICOM files")
    inner = _INNER.fullmatch(text)
    source = Source(Path(inner[1]), inner[2]) if inner else Source(Path(text))
    if series is None:
        return source
    if not isinstance(series, str) or not series:
        raise ArgumentError(f"{source.path}: series must be a SeriesInstanceUID or the end of one, not {series!r}")
    if not source.path.is_dir():
        raise ArgumentError(f"{source.path} is no folder that is there: give series= with the folder of DICOM series only")
    return source._replace(series=series)


def ending_of(name: str) -> str | None:
    """The end of a file's name that says how it is read, as in `FORMATS`; None for a file of no format that is known."""
    lower = name.lower()
    return next((ending for ending in FORMATS if lower.endswith(ending)), None)


def names_an_image(text: str) -> bool:
    """Whether a text ends as the path of an image file does, or names a dataset in one."""
    inner = _INNER.fullmatch(text)
    return ending_of(inner[1] if inner else text) is not None


def format_of(source: Source) -> Format:
    """How a source is read; raises `ImageFileError` for one of no format that is known."""
    if ending := ending_of(source.path.name):
        return FORMATS[ending]
    if source.path.is_dir():
        return _DICOM
    raise ImageFileError(
        f"{source.path} is of no format that can be read ({', '.join(FORMATS)}, or a folder of DICOM files): convert it to .nii.gz, "
        "or check the path"
    )
