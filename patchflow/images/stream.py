"""The bytes of a file, decompressed on the way if it is gzip, read once from the start to the very end.

Deflate is undone by ISA-L (the package isal, in the extra "fast") where that is installed, else by zlib. Both check gzip's checksums.
"""

import errno
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from patchflow.errors import ImageFileError

_deflate: Any = import_module("isal.isal_zlib") if find_spec("isal") else zlib

MAX_EXPANSION = 1032
"""Deflate turns a byte into at most this many (zlib's technical details, "maximum compression factor")."""

_CHUNK_IN, _CHUNK_OUT = 1 << 17, 1 << 19  # both fit a second-level cache: the copy out of a chunk costs little
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "zlib": zlib.MAX_WBITS}

Packing = Literal["", "gzip", "zlib"]
"""How a stream is compressed: not at all, as RFC 1952 or as RFC 1950 has it."""


class ByteStream(Protocol):
    """The content of a file, front to back. Errors name the file."""

    limit: int
    """The content has at most this many bytes (for an uncompressed file: exactly)."""

    def into(self, target: memoryview) -> None:
        """Fill `target` with the next bytes; raises `ImageFileError` when the file ends before."""

    def at_end(self) -> bool:
        """Whether nothing is left; a gzip file's checksum and length have been checked if so."""

    def run_out(self, most: int) -> bool:
        """Read on to the end, and say whether it came within about `most` bytes."""


@contextmanager
def open_stream(path: Path, digest: Any = None) -> Iterator[ByteStream]:
    """Open a file as a stream of its content.

    Args:
        path: decompressed if its name ends in ".gz".
        digest: a hashlib object that takes in the file's own bytes, in order, as they are read.

    Raises:
        ImageFileError: for a file that is missing, empty, no regular file, or not what the end of its name says.
    """
    with reading(path), open_image_file(path) as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        named_so = path.name.lower().endswith((".gz", ".mgz"))
        if named_so and not is_gzip:
            raise ImageFileError(f"{path} is not compressed by gzip, though its name ends in .gz: rename it, or fetch it again")
        if is_gzip and not named_so:
            raise ImageFileError(f"{path} is compressed by gzip, though its name does not end in .gz: rename it to {path.name}.gz")
        yield stream_of(path, file, "gzip" if is_gzip else "", digest)


def stream_of(path: Path, file: IO[bytes], packing: Packing, digest: Any = None) -> ByteStream:
    """The rest of an open file as a stream of its content, decompressed.

    Args:
        path: the file, for errors.
        file: open, unbuffered, at where the stream begins.
        packing: of what follows.
        digest: a hashlib object that takes in the file's own bytes, in order, as they are read.
    """
    left = os.fstat(file.fileno()).st_size - file.tell()
    return _PackedStream(path, file, left, digest, packing) if packing else _PlainStream(path, file, left, digest)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what the system says of a read into an `ImageFileError` that names the file."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ImageFileError):
            raise
        raise ImageFileError(f"{path} cannot be read: {error.strerror or error}") from error


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal; raises `ImageFileError` if it cannot be read."""
    with reading(path), open_image_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def open_image_file(path: Path) -> IO[bytes]:
    """Open a file for reading, unbuffered; raises `ImageFileError` if it is missing, empty or no regular file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        missing = isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENOTDIR)
        raise ImageFileError(f"{path} does not exist: check the path" if missing else f"{path} cannot be read: {error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageFileError(f"{path} is a folder, not an image file")
    if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
        raise ImageFileError(f"{path} is not a regular file")
    if status.st_size == 0:
        raise ImageFileError(f"{path} is empty (zero bytes): fetch or write it again")
    return open(path, "rb", buffering=0)


class _PlainStream:
    def __init__(self, path: Path, file: IO[bytes], size: int, digest: Any) -> None:
        self.path, self.file, self.limit, self.digest = path, file, size, digest

    def into(self, target: memoryview) -> None:
        done = 0
        while done < len(target):
            count = self.file.readinto(target[done : done + (1 << 20)])  # type: ignore[attr-defined]
            if not count:
                raise ImageFileError(f"{self.path} is truncated: it ends {len(target) - done} bytes too early; fetch or write it again")
            if self.digest is not None:
                self.digest.update(target[done : done + count])  # while the piece is in the processor's cache
            done += count

    def at_end(self) -> bool:
        return not self.file.read(1)

    def run_out(self, most: int) -> bool:
        while most > 0:
            piece = self.file.read(1 << 20)
            if not piece:
                return True
            if self.digest is not None:
                self.digest.update(piece)
            most -= len(piece)
        return self.at_end()


class _PackedStream:
    """Members of a gzip file one after another, as RFC 1952 has it; zeros after the last are padding. Or one stream of zlib's."""

    def __init__(self, path: Path, file: IO[bytes], size: int, digest: Any, packing: Packing) -> None:
        self.path, self.file, self.limit, self.digest = path, file, size * MAX_EXPANSION, digest
        self.window, self.name = _WINDOW[packing], packing
        self.member = _deflate.decompressobj(self.window)
        self.pending = b""

    def into(self, target: memoryview) -> None:
        done = 0
        while done < len(target):
            piece = self._piece(min(len(target) - done, _CHUNK_OUT))
            if not piece:
                raise ImageFileError(f"{self.path} holds {len(target) - done} bytes too few: fetch or write it again")
            target[done : done + len(piece)] = piece
            done += len(piece)

    def at_end(self) -> bool:
        return not self._piece(1)

    def run_out(self, most: int) -> bool:
        while most > 0:
            piece = self._piece(_CHUNK_OUT)
            if not piece:
                return True
            most -= len(piece)
        return self.at_end()

    def _piece(self, most: int) -> bytes:
        """At least one and at most `most` bytes of content; none at the end of the file."""
        while True:
            if self.member.eof and not self._next_member():
                return b""
            if not self.pending:
                self.pending = self._input()
            last = not self.pending
            try:
                piece: bytes = self.member.decompress(self.pending, most)
            except _deflate.error as error:
                raise ImageFileError(f"{self.path} is damaged ({error}): fetch or write it again") from error
            self.pending = self.member.unconsumed_tail
            if piece:
                return piece
            if last and not self.member.eof:
                raise ImageFileError(f"{self.path} is truncated: its {self.name} stream does not end; fetch or write it again")

    def _next_member(self) -> bool:
        rest = self.member.unused_data
        while not (rest := rest.lstrip(b"\0")):
            if not (rest := self._input()):
                return False
        self.pending, self.member = rest, _deflate.decompressobj(self.window)
        return True

    def _input(self) -> bytes:
        data = self.file.read(_CHUNK_IN)
        if self.digest is not None:
            self.digest.update(data)
        return data
