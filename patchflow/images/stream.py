"""The bytes of a file, decompressed on the way if it is gzip, read once from the start to the very end."""

import errno
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from patchflow.errors import ImageFileError

MAX_EXPANSION = 1032
"""Deflate turns a byte into at most this many (zlib's technical details, "maximum compression factor")."""

_CHUNK_IN, _CHUNK_OUT = 1 << 17, 1 << 19  # both fit a second-level cache: the copy out of a chunk costs little
_GZIP = 16 + zlib.MAX_WBITS


class ByteStream(Protocol):
    """The content of a file, front to back. Errors name the file."""

    limit: int
    """The content has at most this many bytes (for an uncompressed file: exactly)."""

    def into(self, target: memoryview) -> None:
        """Fill `target` with the next bytes; raises `ImageFileError` when the file ends before."""

    def at_end(self) -> bool:
        """Whether nothing is left; a gzip file's checksum and length have been checked if so."""


@contextmanager
def open_stream(path: Path, digest: Any = None) -> Iterator[ByteStream]:
    """Open a file as a stream of its content.

    Args:
        path: decompressed if its name ends in ".gz".
        digest: a hashlib object that takes in the file's own bytes, in order, as they are read.

    Raises:
        ImageFileError: for a file that is missing, empty, no regular file, or not what the end of its name says.
    """
    try:
        with open_image_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            is_gzip = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if path.name.lower().endswith(".gz"):
                if not is_gzip:
                    raise ImageFileError(f"{path} is not compressed by gzip, though its name ends in .gz: rename it, or fetch it again")
                yield _GzipStream(path, file, size, digest)
            else:
                if is_gzip:
                    raise ImageFileError(f"{path} is compressed by gzip, though its name does not end in .gz: rename it to {path.name}.gz")
                yield _PlainStream(path, file, size, digest)
    except OSError as error:
        if isinstance(error, ImageFileError):
            raise
        raise ImageFileError(f"{path} cannot be read: {error.strerror or error}") from error


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal; raises `ImageFileError` if it cannot be read."""
    try:
        with open_image_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except OSError as error:
        if isinstance(error, ImageFileError):
            raise
        raise ImageFileError(f"{path} cannot be read: {error.strerror or error}") from error


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


class _GzipStream:
    """Members of a gzip file one after another, as RFC 1952 has it; zeros after the last are padding."""

    def __init__(self, path: Path, file: IO[bytes], size: int, digest: Any) -> None:
        self.path, self.file, self.limit, self.digest = path, file, size * MAX_EXPANSION, digest
        self.member = zlib.decompressobj(_GZIP)
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

    def _piece(self, most: int) -> bytes:
        """At least one and at most `most` bytes of content; none at the end of the file."""
        while True:
            if self.member.eof and not self._next_member():
                return b""
            if not self.pending:
                self.pending = self._input()
            last = not self.pending
            try:
                piece = self.member.decompress(self.pending, most)
            except zlib.error as error:
                raise ImageFileError(f"{self.path} is damaged ({error}): fetch or write it again") from error
            self.pending = self.member.unconsumed_tail
            if piece:
                return piece
            if last and not self.member.eof:
                raise ImageFileError(f"{self.path} is truncated: its gzip stream does not end; fetch or write it again")

    def _next_member(self) -> bool:
        rest = self.member.unused_data
        while not (rest := rest.lstrip(b"\0")):
            if not (rest := self._input()):
                return False
        self.pending, self.member = rest, zlib.decompressobj(_GZIP)
        return True

    def _input(self) -> bytes:
        data = self.file.read(_CHUNK_IN)
        if self.digest is not None:
            self.digest.update(data)
        return data
