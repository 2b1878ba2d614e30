"""Text headers with their voxels behind them or in a file of their own: what MetaImage and NRRD have in common."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from patchflow.errors import ImageError, ImageFileError
from patchflow.images.content import Content, Header
from patchflow.images.stream import ByteStream, Packing, open_image_file, reading, stream_of
from patchflow.images.volume import checked_affine
from patchflow.images.voxels import check_end, read_voxels
from patchflow.types import Affine

_MOST_TEXT = 1 << 18


@dataclass(frozen=True)
class Described:
    """What the text of a header says.

    Attributes:
        header: the voxels; its offset counts from where the packed stream begins.
        packing: of the voxels.
        text: bytes of the text, behind which the voxels begin if no file of theirs is named.
        data: the file of the voxels; None for behind the text.
        start: bytes to pass over before the voxels, unpacked; -1 for voxels that end with the file.
    """

    header: Header
    packing: Packing
    text: int
    data: Path | None = None
    start: int = 0


Parse = Callable[[bytes, Path], Described]
"""The text of a file, with what follows it, and its path, to what it says; raises `ImageFileError`."""


def read_attached_header(path: Path, parse: Parse) -> Header:
    """The header alone, checked against the size of the file that holds the voxels.

    Raises:
        ImageFileError: for files that are missing, or a header that cannot be used or claims more than its file holds.
    """
    with _opened(path, parse, None) as (described, _, _):
        return described.header


def read_attached(path: Path, parse: Parse) -> Content:
    """All voxels, from a file read to its very end. The digest is that of the header's file and then the voxels' file.

    Raises:
        ImageFileError: as `read_attached_header` does, and for a file that is damaged, or longer than its header says.
    """
    digest = hashlib.sha256()
    with _opened(path, parse, digest) as (described, stream, _):
        array = read_voxels(stream, described.header, path)
        check_end(stream, described.header, described.data or path)
    header = described.header
    return Content(array, header.affine, header.slope, header.inter, digest.hexdigest())


def attached_digest(path: Path, parse: Parse) -> str:
    """The sha256 of the header's file and then the voxels' file, where they are two; raises `ImageFileError`."""
    digest = hashlib.sha256()
    with _opened(path, parse, digest) as (_, _, file):
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def _opened(path: Path, parse: Parse, digest: Any) -> Iterator[tuple[Described, ByteStream, IO[bytes]]]:
    with reading(path), open_image_file(path) as file:
        text = file.read(_MOST_TEXT)
        described = parse(text, path)
        if described.data is None:
            if digest is not None:
                digest.update(text[: described.text])
            file.seek(described.text)
            yield described, _stream(path, file, described, digest), file
            return
        if digest is not None:
            digest.update(text)
            while piece := file.read(_MOST_TEXT):
                digest.update(piece)
        with _opened_data(described.data, path) as other:
            yield described, _stream(described.data, other, described, digest), other


@contextmanager
def _opened_data(data: Path, path: Path) -> Iterator[IO[bytes]]:
    try:
        file = open_image_file(data)
    except OSError as error:
        raise ImageFileError(f"{path} names the file of its voxels, and {error}") from error
    with reading(data), file:
        yield file


def _stream(path: Path, file: IO[bytes], described: Described, digest: Any) -> ByteStream:
    stream = stream_of(path, file, described.packing, digest)
    header, start = described.header, described.start
    if start < 0:
        start = stream.limit - header.nbytes
    if start > 0 and not described.packing and start <= stream.limit:
        _pass_over(file, start, digest)
        stream = stream_of(path, file, "", digest)
    elif start > 0:
        raise ImageFileError(f"{path}: the header puts the voxels at byte {start}, where none can be: set it right in the header")
    header.check_fits(stream.limit, path)
    return stream


def _pass_over(file: IO[bytes], count: int, digest: Any) -> None:
    if digest is None:
        file.seek(count, 1)
        return
    while count and (piece := file.read(min(count, 1 << 20))):
        digest.update(piece)
        count -= len(piece)


def lines_of(text: bytes, path: Path) -> list[str]:
    """Lines of a header, which must be text."""
    if b"\0" in text:
        raise ImageFileError(f"{path}: the header is not text: fetch or write it again")
    return text.decode("latin-1").splitlines()


def numbers(text: str, count: int, what: str, path: Path) -> list[float]:
    """`count` numbers of a header's field; raises `ImageFileError` for anything else."""
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise ImageFileError(f"{path}: {what} must be {count} numbers, not {text[:80]!r}: set it right in the header")
    return values


def counts(text: str, what: str, path: Path) -> list[int]:
    """Whole numbers of at least 1 of a header's field; raises `ImageFileError` for anything else."""
    words = text.split()
    if not words or not all(word.isascii() and word.isdigit() and 0 < len(word) < 12 and int(word) > 0 for word in words):
        raise ImageFileError(f"{path}: {what} must be whole numbers of at least 1, not {text[:80]!r}: set it right in the header")
    return [int(word) for word in words]


def placed(affine: Affine, path: Path) -> Affine:
    """The affine if it places voxels in space; raises `ImageFileError`."""
    try:
        return checked_affine(affine, str(path))
    except ImageError as error:
        raise ImageFileError(f"{path}: the header cannot be used: {error}") from error


def neighbour(name: str, path: Path) -> Path:
    """The file of a header's voxels, named relative to the header's folder; raises `ImageFileError` for many files."""
    name = name.strip()
    if not name or "%" in name or name.split()[0].upper() == "LIST":
        raise ImageFileError(f"{path}: voxels in several files ({name[:80]!r}) cannot be used: write them to one file")
    return path.parent / name
