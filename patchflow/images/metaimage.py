"""MetaImage files (.mha, and .mhd beside a file of voxels), as ITK writes them.

Format: https://itk.org/Wiki/ITK/MetaIO/Documentation. The text is parsed here, and checked against the size of the file, before memory is
taken for voxels; no decoder is needed but zlib's.
"""

import re
from pathlib import Path

import numpy as np

from patchflow.errors import ImageFileError
from patchflow.images.attached import Described, counts, lines_of, neighbour, numbers, placed
from patchflow.images.content import Header, ras_from_lps
from patchflow.images.stream import Packing
from patchflow.types import Affine, Array

_DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # of four bytes in MetaIO on every system
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_SAME = ({"TransformMatrix", "Orientation", "Rotation"}, {"Offset", "Position", "Origin"})
_LAST = re.compile(rb"^[ \t]*ElementDataFile[ \t]*[=:][ \t]*([^\r\n]*)(\r?\n)?", re.MULTILINE)


def parse_metaimage(text: bytes, path: Path) -> Described:
    """What the text of a MetaImage file says.

    The rows of its matrix are the directions of the axes, in LPS+, as ITK reads it; without one, axes are those of LPS+. A fourth axis, or
    the channels of an element, become channels.

    Raises:
        ImageFileError: for a header that cannot be used.
    """
    last = _LAST.search(text)
    if last is None:
        raise ImageFileError(f"{path} is not a MetaImage file, or is truncated: its header has no ElementDataFile")
    fields = _fields(text[: last.start()], path)
    header = _header(fields, path)
    packed, start = _flag(fields, "CompressedData", path), fields.get("HeaderSize", "0")
    if not re.fullmatch(r"-1|\d{1,15}", start):
        raise ImageFileError(f"{path}: HeaderSize must be -1 or a number of bytes, not {start[:80]!r}")
    name = last[1].decode("latin-1").strip()
    data = None if name.upper() == "LOCAL" else neighbour(name, path)
    if data is None and start != "0":
        raise ImageFileError(f"{path}: HeaderSize {start} makes no sense where voxels follow the header: set it to 0")
    packing: Packing = "zlib" if packed else ""
    if packed and data is None and text[last.end() : last.end() + 2] == b"\x1f\x8b":
        packing = "gzip"
    return Described(header, packing, last.end(), data, int(start))


def _fields(text: bytes, path: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines_of(text, path):
        key, sign, value = line.partition("=")
        if not sign:
            key, sign, value = line.partition(":")
        key = key.strip()
        if not sign and not key:
            continue
        if not sign or key in fields:
            raise ImageFileError(f"{path}: the line {line[:80]!r} of the header is no field, or comes twice: fetch or write it again")
        fields[key] = value.strip()
    for names in _SAME:
        if len(names & set(fields)) > 1:
            raise ImageFileError(f"{path}: the header has more than one of {', '.join(sorted(names))}: keep one")
    return fields


def _header(fields: dict[str, str], path: Path) -> Header:
    if fields.get("ObjectType", "Image") != "Image":
        raise ImageFileError(f"{path}: a MetaImage file of type {fields['ObjectType'][:80]!r} is no image")
    for key in ("NDims", "DimSize", "ElementType"):
        if key not in fields:
            raise ImageFileError(f"{path}: the header has no {key}: fetch or write it again")
    if not _flag(fields, "BinaryData", path, True):
        raise ImageFileError(f"{path}: voxels written as text cannot be used: write them as binary data")
    if fields["ElementType"] not in _DTYPES:
        raise ImageFileError(f"{path}: voxels of type {fields['ElementType'][:80]!r} cannot be used: convert to integers or floats")
    for key, value in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if numbers(fields.get(key, str(value)), 1, key, path)[0] != value:
            raise ImageFileError(f"{path}: {key} is {fields[key]}, which readers of MetaImage disagree about: write the scaled values")
    most = _flag(fields, "BinaryDataByteOrderMSB", path) or _flag(fields, "ElementByteOrderMSB", path)
    dtype = np.dtype((">" if most else "<") + _DTYPES[fields["ElementType"]])
    shape = counts(fields["DimSize"], "DimSize", path)
    dims = counts(fields["NDims"], "NDims", path)
    if dims != [len(shape)] or len(shape) not in (2, 3, 4):
        raise ImageFileError(f"{path}: images of 2, 3 or 4 axes can be used, not NDims {fields['NDims'][:80]} with DimSize {shape}")
    channels = counts(fields.get("ElementNumberOfChannels", "1"), "ElementNumberOfChannels", path)
    i, j, k, t = shape + [1] * (4 - len(shape))
    if len(channels) != 1 or (channels[0] > 1 and t > 1):
        raise ImageFileError(f"{path}: there is more than one axis beyond the three of space: split the file along one")
    if channels[0] > 1:
        return Header((channels[0], i, j, k), dtype, _affine(fields, len(shape), path), order="interleaved")
    return Header((t, i, j, k), dtype, _affine(fields, len(shape), path), order="planes")


def _affine(fields: dict[str, str], dims: int, path: Path) -> Affine:
    def field(names: tuple[str, ...], default: Array) -> list[float]:
        for name in names:
            if name in fields:
                return numbers(fields[name], np.size(default), name, path)
        return [float(number) for number in np.ravel(default)]

    spacing = field(("ElementSpacing", "ElementSize"), np.ones(dims))
    directions = np.reshape(field(("TransformMatrix", "Orientation", "Rotation"), np.eye(dims)), (dims, dims))
    origin = field(("Offset", "Position", "Origin"), np.zeros(dims))
    full = np.eye(max(dims, 4))
    full[:dims, :dims] = directions
    if dims == 4 and (full[3, :3].any() or full[:3, 3].any()):
        raise ImageFileError(f"{path}: the fourth axis is turned into space by TransformMatrix {directions.tolist()}: set it right")
    if min(spacing) <= 0:
        raise ImageFileError(f"{path}: the spacing must be above 0, not {spacing}: set it right in the header")
    affine = np.eye(4)
    affine[:3, :3] = full[:3, :3].T * [*spacing, 1.0][:3]
    affine[: min(dims, 3), 3] = origin[:3]
    return placed(ras_from_lps(affine), path)


def _flag(fields: dict[str, str], key: str, path: Path, default: bool = False) -> bool:
    value = fields.get(key, str(default)).lower()
    if value not in ("true", "false", "1", "0"):
        raise ImageFileError(f"{path}: {key} must be True or False, not {value[:80]!r}: set it right in the header")
    return value in ("true", "1")
