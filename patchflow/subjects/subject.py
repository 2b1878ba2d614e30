"""A subject: named images on one voxel grid, plus metadata."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import combinations
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from patchflow.errors import ImageError, SubjectError, UnknownNameError
from patchflow.geometry.affine import TOLERANCE as TOLERANCE
from patchflow.geometry.affine import corners_apart
from patchflow.images.formats import names_an_image
from patchflow.images.image import Image
from patchflow.images.volume import Volume
from patchflow.types import Affine, Int3

_BATCH_KEYS = {"location", "index", "subject"}
_BAD_IN_NAMES = re.compile(r'[\x00-\x1f/\\:*?"<>|\ud800-\udfff]')  # surrogates: a file name that is no UTF-8


class Subject:
    """Named images on one voxel grid, plus metadata.

    Args:
        name: unique among the subjects used together, and usable as a file name.
        **images_or_metadata: values that are a `ScalarImage` or `LabelMap` are images, all others metadata. The path of an image file is
            refused, as it was most likely meant as an image; where it is metadata indeed, set it in `metadata` afterwards.

    Attributes:
        name: the name.
        images: read-only mapping of image names to images, in the order given.
        metadata: dict of the rest.

    Raises:
        SubjectError: for a name that cannot be a file's, no image, an image named as a batch's own keys ("location", "index",
            "subject"), or an array or the path of an image file that is not wrapped in an image.
    """

    def __init__(self, name: str, /, **images_or_metadata: Any) -> None:
        self.name = _checked_name(name)
        self._images = {key: value for key, value in images_or_metadata.items() if isinstance(value, Image)}
        self.metadata: dict[str, Any] = {key: value for key, value in images_or_metadata.items() if not isinstance(value, Image)}
        for key, value in self.metadata.items():
            _refuse_bare(value, key, name)
        if not self._images:
            raise SubjectError(f"subject {name!r} has no image: give one, for example image=pf.ScalarImage('image.nii.gz')")
        for key in self._images:
            if not key or key in _BATCH_KEYS or key.startswith(".") or _BAD_IN_NAMES.search(key):
                raise SubjectError(f"subject {name!r}: an image cannot be named {key!r}, which batches or files use otherwise: rename it")

    @property
    def images(self) -> MappingProxyType[str, Image]:
        """Image names to images, in the order given."""
        return MappingProxyType(self._images)

    def __getitem__(self, name: str) -> Image:
        try:
            return self._images[name]
        except KeyError:
            raise UnknownNameError(f"subject {self.name!r} has no image {name!r}: it has {', '.join(map(repr, self._images))}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._images

    @property
    def shape(self) -> Int3:
        """Voxels (I, J, K), of the first image."""
        i, j, k = next(iter(self._images.values())).shape[1:]
        return i, j, k

    @property
    def affine(self) -> Affine:
        """4x4 float64, voxel index to RAS+ millimetres, of the first image."""
        return next(iter(self._images.values())).affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along I, J, K, of the first image."""
        return next(iter(self._images.values())).spacing

    def check(self) -> None:
        """Check that all images are on one voxel grid, from their headers alone.

        Shapes must be equal. Affines may differ by rounding: no corner voxel may lie further from where the other image has it than
        `TOLERANCE` (a tenth) of the smallest spacing in millimetres. A shift by half a voxel, a flip or another spacing is well beyond.

        Raises:
            SubjectError: naming both images and their files.
            ImageFileError: for a header that cannot be read; it names the subject, the image and the file.
        """
        for key, image in self._images.items():
            with self._naming(key):
                image.shape  # noqa: B018  its header is read
        for (one, first), (two, second) in combinations(self._images.items(), 2):
            both = f"subject {self.name!r}: {one!r} ({first.describe()}) and {two!r} ({second.describe()})"
            if first.shape[1:] != second.shape[1:]:
                raise SubjectError(f"{both} are of different shapes, {first.shape[1:]} and {second.shape[1:]}: resample one to the other")
            moved = corners_apart(first.affine, second.affine, first.shape[1:])
            allowed = TOLERANCE * min(*first.spacing, *second.spacing)
            if not moved <= allowed:
                raise SubjectError(
                    f"{both} are at different places: corners are up to {moved:.6g} mm apart, and {allowed:.6g} mm are allowed; "
                    f"resample one to the other, or set the right affine. Affines: {first.affine.tolist()} and {second.affine.tolist()}"
                )

    def load_with_digests(self) -> tuple[dict[str, Volume], dict[str, str]]:
        """Read all images, files side by side: image names to volumes, and to the sha256 of their sources.

        Raises:
            ImageError: for a file or voxels that cannot be used; it names the subject, the image and the file.
        """
        with ThreadPoolExecutor(max_workers=len(self._images)) as threads:  # decompression lets other threads run
            loaded = dict(zip(self._images, threads.map(self._load, self._images), strict=True))
        return {key: volume for key, (volume, _) in loaded.items()}, {key: digest for key, (_, digest) in loaded.items()}

    def _load(self, key: str) -> tuple[Volume, str]:
        with self._naming(key):
            return self._images[key].load_with_digest()

    @contextmanager
    def _naming(self, key: str) -> Iterator[None]:
        try:
            yield
        except ImageError as error:
            raise type(error)(f"subject {self.name!r}, image {key!r}: {error}") from error

    def __repr__(self) -> str:
        parts = [f"{key}={value!r}" for key, value in (*self._images.items(), *self.metadata.items())]
        return f"Subject({self.name!r}, {', '.join(parts)})"


def _refuse_bare(value: Any, key: str, name: str) -> None:
    """Refuse metadata that is most likely meant as an image."""
    if getattr(value, "ndim", 0) >= 3:
        raise SubjectError(f"subject {name!r}: {key!r} is a bare array: wrap it in pf.ScalarImage(...) or pf.LabelMap(...)")
    several = isinstance(value, (list, tuple))
    if any(isinstance(part, (str, PurePath)) and names_an_image(str(part)) for part in (value if several else [value])):
        told = repr([str(part) for part in value]) if several else repr(str(value))
        one = "" if several else f"{key}=pf.LabelMap({told}) or "
        raise SubjectError(
            f"subject {name!r}: {key!r} is the path of an image file, {told}: write {one}{key}=pf.ScalarImage({told}); "
            f"if it is no image of the subject, set subject.metadata[{key!r}] afterwards"
        )


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not name or name != name.strip() or name.startswith(".") or _BAD_IN_NAMES.search(name):
        raise SubjectError(f'{name!r} cannot name a subject: a name is a text usable as a file name, with no / \\ : * ? " < > | in it')
    if len(name.encode()) > 200:
        raise SubjectError(f"the subject name {name!r} is longer than the 200 bytes that fit a file name: shorten it")
    return name
