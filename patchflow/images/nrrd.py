"""NRRD files (.nrrd, and .nhdr beside a file of voxels), raw or compressed by gzip.

Format: https://teem.sourceforge.net/nrrd/format.html. The text is parsed here, and checked against the size of the file, before memory is
taken for voxels; no decoder is needed but zlib's.
"""

import re
from pathlib import Path

import numpy as np

from patchflow.errors import ImageFileError
from patchflow.images.attached import Described, counts, lines_of, neighbour, numbers, placed
from patchflow.images.content import Header, Order
from patchflow.images.stream import Packing
from patchflow.types import Affine

_NAMES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_DTYPES = {name: dtype for dtype, names in _NAMES.items() for name in names.split(", ")}
_TO_RAS = {
    "right-anterior-superior": (1, 1),
    "ras": (1, 1),
    "left-anterior-superior": (-1, 1),
    "las": (-1, 1),
    "left-posterior-superior": (-1, -1),
    "lps": (-1, -1),
}
_PACKINGS: dict[str, Packing] = {"raw": "", "gz": "gzip", "gzip": "gzip"}
_SAME = {"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip"}
_VECTOR = re.compile(r"none|\(([^()]*)\)")
_END = re.compile(rb"\r?\n\r?\n")


def parse_nrrd(text: bytes, path: Path) -> Described:
    """What the text of an NRRD file says.

    The affine is None where `space` is none of RAS, LAS and LPS. An axis that lies in no space, the first or the last of four, becomes
    channels.

    Raises:
        ImageFileError: for a header that cannot be used.
    """
    if not re.match(rb"NRRD000[1-5]\r?\n", text):
        raise ImageFileError(f"{path} is not an NRRD file: it begins with {text[:8]!r}, not with NRRD0001 to NRRD0005")
    end = _END.search(text)
    fields = _fields(text[: end.start() if end else len(text)], path)
    data = neighbour(fields["data file"], path) if "data file" in fields else None
    if end is None and data is None:
        raise ImageFileError(f"{path} is truncated, or not an NRRD file: its header does not end; fetch or write it again")
    encoding, start = fields.get("encoding", "").lower(), fields.get("byte skip", "0")
    if encoding not in _PACKINGS:
        raise ImageFileError(f"{path}: the encoding {encoding[:80]!r} cannot be used: write it as raw or gzip")
    if not re.fullmatch(r"-1|\d{1,15}", start) or fields.get("line skip", "0") != "0":
        raise ImageFileError(f"{path}: byte skip must be -1 or a number of bytes, and line skip 0: set them right in the header")
    return Described(_header(fields, path), _PACKINGS[encoding], end.end() if end else len(text), data, int(start))


def _fields(text: bytes, path: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines_of(text, path)[1:]:
        if not line.strip() or line.startswith("#") or re.match(r"[^:]*:=", line):
            continue  # comments, and pairs that say nothing of the voxels
        key, sign, value = line.partition(":")
        key = _SAME.get(key.strip().lower(), key.strip().lower())
        if not sign or key in fields:
            raise ImageFileError(f"{path}: the line {line[:80]!r} of the header is no field, or comes twice: fetch or write it again")
        fields[key] = value.strip()
    return fields


def _header(fields: dict[str, str], path: Path) -> Header:
    for key in ("type", "dimension", "sizes"):
        if key not in fields:
            raise ImageFileError(f"{path}: the header has no field {key!r}: fetch or write it again")
    dtype = _dtype(fields, path)
    sizes = counts(fields["sizes"], "sizes", path)
    if counts(fields["dimension"], "dimension", path) != [len(sizes)] or len(sizes) not in (3, 4):
        raise ImageFileError(f"{path}: images of 3 or 4 axes can be used, not dimension {fields['dimension'][:80]} with sizes {sizes}")
    given = fields.get("space directions")
    vectors = list(_VECTOR.finditer(given)) if given is not None else []
    if given is not None and (len(vectors) != len(sizes) or _VECTOR.sub("", given).strip()):
        raise ImageFileError(f"{path}: the space directions {given[:80]!r} are not {len(sizes)} vectors: set them right in the header")
    beside = [axis for axis, vector in enumerate(vectors) if vector[1] is None]
    if given is None:
        beside = [3] if len(sizes) == 4 else []
        if len(sizes) == 4 and fields.get("kinds", "").split()[:1] not in ([], ["domain"], ["space"], ["???"]):
            beside = [0]
    if beside not in ([[]] if len(sizes) == 3 else [[0], [3]]):
        raise ImageFileError(f"{path}: three axes must lie in space, and of four the first or the last in none, not {given!r}")
    order: Order = "interleaved" if beside == [0] else "planes"
    c, (i, j, k) = sizes.pop(beside[0]) if beside else 1, sizes
    return Header((c, i, j, k), dtype, _affine(fields, [vector[1] for vector in vectors if vector[1] is not None], path), order=order)


def _dtype(fields: dict[str, str], path: Path) -> "np.dtype[np.generic]":
    kind = " ".join(fields["type"].lower().split())
    if kind not in _DTYPES:
        raise ImageFileError(f"{path}: voxels of type {kind[:80]!r} cannot be used: convert to integers or floats")
    dtype = np.dtype(_DTYPES[kind])
    endian = fields.get("endian", "").lower()
    if dtype.itemsize > 1 and endian not in ("little", "big"):
        raise ImageFileError(f"{path}: endian must be little or big, not {endian[:80]!r}: set it right in the header")
    return dtype.newbyteorder(">" if endian == "big" else "<")


def _affine(fields: dict[str, str], vectors: list[str], path: Path) -> Affine | None:
    turns = _TO_RAS.get(fields.get("space", "").lower())
    if turns is None or len(vectors) != 3:
        return None
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", "")))
    if not units <= {"", "mm", "millimeter", "millimeters"}:
        raise ImageFileError(f"{path}: space units must be mm, not {', '.join(sorted(units))[:80]}: write the geometry in millimetres")
    affine = np.eye(4)
    for axis, vector in enumerate(vectors):
        affine[:3, axis] = numbers(vector.replace(",", " "), 3, "space directions", path)
    origin = fields.get("space origin", "(0,0,0)")
    affine[:3, 3] = numbers(origin.removeprefix("(").removesuffix(")").replace(",", " "), 3, "space origin", path)
    affine[:2] *= np.array(turns)[:, None]
    return placed(affine + 0.0, path)
