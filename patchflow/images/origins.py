"""What an image is made of: an array, a file (or the folder of a series), or several files that are its channels."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from patchflow.errors import ArgumentError, ImageError, ImageFileError
from patchflow.geometry.affine import TOLERANCE, corners_apart, spacing
from patchflow.images.content import Content, Header, Source, widened_dtype
from patchflow.images.formats import format_of, source_of
from patchflow.images.volume import as_array, checked_affine
from patchflow.images.voxels import allocate
from patchflow.kernels.pointwise import IntensityMap, apply_map
from patchflow.types import Affine, Array

_MOST_AT_A_TIME = 4  # files that are read side by side: each holds its voxels twice for a while


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of an image without its voxels.

    Attributes:
        shape: (C, I, J, K).
        dtype: of the stored voxels, in the machine's byte order.
        affine: 4x4 float64, voxel index to RAS+ millimetres.
        slope: value = slope * stored + inter.
        inter: likewise.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    affine: Affine
    slope: float = 1.0
    inter: float = 0.0

    @property
    def stored(self) -> tuple[np.dtype[Any], float, float]:
        """How values are stored."""
        return self.dtype, self.slope, self.inter

    def agree(self, other: "Facts") -> bool:
        """Whether both say the same."""
        return (self.shape, self.stored) == (other.shape, other.stored) and bool((self.affine == other.affine).all())


class Origin(Protocol):
    """Where an image's voxels come from. A file is read when asked for, and nothing of it kept but its facts."""

    paths: tuple[Path, ...]
    """The files or folders."""

    def describe(self) -> str:
        """For messages: the paths, with what is chosen of them, or that it is an array."""

    def facts(self) -> Facts:
        """From headers alone."""

    def load(self) -> Content:
        """All stored voxels, with an affine, and the digest."""

    def digest(self) -> str:
        """sha256 in hexadecimal of what `load` reads."""


def origin_of(source: Any, affine: Any, series: str | None) -> Origin:
    """The origin that a path, an array or tensor, or a list of paths names; see `Image`."""
    if isinstance(source, (str, os.PathLike)):
        return FileOrigin(source_of(os.fspath(source), series), affine)
    if series is not None:
        raise ArgumentError("series= chooses among those in a folder: give it with the path of a folder only")
    if isinstance(source, (list, tuple)) and source and all(isinstance(part, (str, os.PathLike)) for part in source):
        files = [FileOrigin(source_of(os.fspath(part), None), affine) for part in source]
        return files[0] if len(files) == 1 else ChannelsOrigin(files)
    return ArrayOrigin(source, affine)


class ArrayOrigin:
    """An array or tensor, whose memory is shared."""

    paths: tuple[Path, ...] = ()

    def __init__(self, source: Any, affine: Any) -> None:
        self._array = _checked_array(source)
        self._facts = Facts(
            _four(self._array), self._array.dtype, checked_affine(np.eye(4) if affine is None else affine, "image of an array")
        )

    def describe(self) -> str:
        """That it is an array."""
        return f"array of shape {self._facts.shape}"

    def facts(self) -> Facts:
        """Of the array."""
        return self._facts

    def load(self) -> Content:
        """A read-only view: the array is the caller's own."""
        array = self._array.view()
        array.flags.writeable = False
        return Content(array, self._facts.affine, 1.0, 0.0, self.digest())

    def digest(self) -> str:
        """Of dtype, shape, affine and bytes."""
        sha = hashlib.sha256(repr((self._facts.dtype.str, self._facts.shape)).encode())
        sha.update(self._facts.affine.tobytes())
        sha.update(self._array.reshape(-1).view(np.uint8).data)
        return sha.hexdigest()


class FileOrigin:
    """A file, or the folder of a DICOM series."""

    def __init__(self, source: Source, affine: Any) -> None:
        self._source = source
        self.paths: tuple[Path, ...] = (source.path,)
        self._facts: Facts | None = None
        places = format_of(source).places  # raises for what cannot be read
        self._given = None if affine is None else checked_affine(affine, self.describe())
        if places is not None:
            self._check_given(places)

    def describe(self) -> str:
        """The path, with what is chosen of it."""
        return str(self._source)

    def facts(self) -> Facts:
        """Of the header, which is read once."""
        if self._facts is None:
            header = format_of(self._source).read_header(self._source)
            self._facts = Facts(header.shape, widened_dtype(header.dtype), self._placed(header.affine), header.slope, header.inter)
        return self._facts

    def load(self) -> Content:
        """All voxels; raises `ImageFileError` for a file that has changed since its header was read."""
        content = format_of(self._source).read(self._source)
        found = Facts(_four(content.array), content.array.dtype, self._placed(content.affine), content.slope, content.inter)
        if self._facts is not None and not self._facts.agree(found):
            raise ImageFileError(f"{self._source} has changed since its header was read: make the image anew")
        self._facts = found
        return content._replace(affine=found.affine, digest=self._full_digest(content.digest))

    def digest(self) -> str:
        """Of the file's bytes, and of what is chosen of it or given with it."""
        return self._full_digest(format_of(self._source).digest(self._source))

    def _full_digest(self, digest: str) -> str:
        if self._given is None and not self._source.inner:
            return digest
        sha = hashlib.sha256(repr((digest, self._source.inner)).encode())
        sha.update(b"" if self._given is None else self._given.tobytes())
        return sha.hexdigest()

    def _placed(self, affine: Affine | None) -> Affine:
        """The affine of the file, or the one given for a file without."""
        try:
            self._check_given(affine is not None)
        except ArgumentError as error:
            raise ImageFileError(f"{error}") from error
        placed = self._given if affine is None else affine
        assert placed is not None
        return placed

    def _check_given(self, places: bool) -> None:
        """Raise `ArgumentError` unless an affine is given exactly where the file has none."""
        if places and self._given is not None:
            raise ArgumentError(f"{self.describe()} brings its own affine: give an affine with arrays, and files that have none, only")
        if not places and self._given is None:
            raise ArgumentError(
                f"{self.describe()} does not say where its voxels lie: give affine=, 4x4, to RAS+ millimetres (numpy.eye(4) for 1 mm)"
            )


class ChannelsOrigin:
    """Several files, the channels of which follow one another."""

    def __init__(self, files: Sequence[FileOrigin]) -> None:
        self._files = files
        self.paths = tuple(path for file in files for path in file.paths)
        self._facts: Facts | None = None

    def describe(self) -> str:
        """The paths."""
        return ", ".join(file.describe() for file in self._files)

    def facts(self) -> Facts:
        """Of all headers. The affine is the first file's. Files that are stored or scaled in different ways give float32.

        Raises:
            ImageError: for files of different shapes or at different places (see `TOLERANCE`); it names two.
        """
        if self._facts is None:
            self._facts = self._together([file.facts() for file in self._files])
        return self._facts

    def _together(self, each: Sequence[Facts]) -> Facts:
        first, *others = each
        for file, facts in zip(self._files[1:], others, strict=True):
            both = f"{self._files[0].describe()} and {file.describe()} cannot be channels of one image"
            if facts.shape[1:] != first.shape[1:]:
                raise ImageError(f"{both}: their shapes are {first.shape[1:]} and {facts.shape[1:]}; resample one to the other")
            apart = corners_apart(first.affine, facts.affine, first.shape[1:])
            allowed = TOLERANCE * float(min(spacing(first.affine).min(), spacing(facts.affine).min()))
            if not apart <= allowed:
                raise ImageError(
                    f"{both}: corners are up to {apart:.6g} mm apart, and {allowed:.6g} mm are allowed; resample one to the other, or set "
                    f"the right affine. Affines: {first.affine.tolist()} and {facts.affine.tolist()}"
                )
        shape = (sum(facts.shape[0] for facts in each), *first.shape[1:])
        if all(facts.stored == first.stored for facts in others):
            return replace(first, shape=shape)
        return Facts(shape, np.dtype(np.float32), first.affine)

    def load(self) -> Content:
        """All voxels, files side by side."""
        facts = self.facts()
        whole = allocate(Header(facts.shape, facts.dtype, facts.affine), self.paths[0])
        counts = [file.facts().shape[0] for file in self._files]
        parts = np.split(whole, np.cumsum(counts)[:-1])

        def fill(file: FileOrigin, part: Array) -> str:
            content = file.load()
            if (content.array.dtype, content.slope, content.inter) == facts.stored:
                part[...] = content.array
            else:
                apply_map(content.array, IntensityMap(content.slope, content.inter), part)
            return content.digest

        with ThreadPoolExecutor(_MOST_AT_A_TIME, thread_name_prefix="patchflow-channels") as threads:
            digests = list(threads.map(fill, self._files, parts))
        return Content(whole, facts.affine, facts.slope, facts.inter, _joined(digests))

    def digest(self) -> str:
        """Of the files' digests, in order."""
        return _joined(file.digest() for file in self._files)


def _joined(digests: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _four(array: Array) -> tuple[int, int, int, int]:
    c, i, j, k = array.shape
    return c, i, j, k


def _checked_array(source: Any) -> Array:
    """A C-contiguous (C, I, J, K) array of native byte order, sharing memory where it can."""
    if not isinstance(source, np.ndarray) and not hasattr(source, "detach"):
        raise ArgumentError(f"an image is made from a path, an array or a tensor, or a list of paths, not from {type(source).__name__}")
    array = as_array(source)
    if array.ndim == 2:
        raise ImageError(f"an array of shape {array.shape} has no third axis: make a 2D image of it by array[..., None]")
    if array.ndim not in (3, 4):
        raise ImageError(f"an array must be (I, J, K) or (C, I, J, K), not of shape {array.shape}")
    if array.size == 0:
        raise ImageError(f"an array of shape {array.shape} has no voxels: every axis needs at least one")
    return np.ascontiguousarray(array if array.ndim == 4 else array[None])
