"""Subjects of a folder of which nothing is said: what it seems to hold."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from patchflow.errors import SubjectError
from patchflow.images.formats import FORMATS, ending_of
from patchflow.images.image import Image, ScalarImage
from patchflow.subjects.gather import image_kinds
from patchflow.subjects.nnunet import subjects_from_nnunet
from patchflow.subjects.subject import Subject

_DICOM = (".dcm", ".ima")


def guess_subjects(folder: str | Path) -> list[Subject]:
    """Every image below a folder, to be looked through: one subject for each folder that holds image files.

    An nnU-Net raw data set is read as its dataset.json says. Elsewhere each folder with image files is a subject, called by its path below
    `folder`, and each file an image of it, called by its file's name without the ending; a folder of DICOM files is an image of the folder
    above. Files that lie in `folder` itself, beside each other, are subjects of their own, as nothing tells which belong together. Images
    are label maps if they are called so (see `find_subjects`).

    Returns:
        Subjects sorted by name. No image is opened.

    Raises:
        SubjectError: when the folder is not there, or holds no file that can be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SubjectError(f"{root} is not a folder: there are no subjects to find")
    if (root / "dataset.json").is_file():
        return subjects_from_nnunet(root)
    found: dict[str, dict[str, Path]] = {}
    for path in _images(root):
        parts = path.relative_to(root).parts
        owner = "_".join(parts[:-1]) or _stem(path)
        name = _stem(path)
        images = found.setdefault(owner, {})
        if name in images:
            raise SubjectError(f"{images[name]} and {path} would both be image {name!r} of subject {owner!r}: rename one")
        images[name] = path
    if not found:
        raise SubjectError(f"no subject in {root.absolute()}: it holds no file that can be read ({', '.join(FORMATS)}, or DICOM series)")
    return [Subject(name, **_opened(found[name])) for name in sorted(found)]


def _images(root: Path) -> Iterator[Path]:
    """Files of a known format below a folder, and folders of DICOM files, in order of their paths."""
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        endings = {name: ending_of(name) for name in sorted(files) if not name.startswith(".")}
        if any(ending in _DICOM for ending in endings.values()):
            yield Path(place)
        yield from (Path(place) / name for name, ending in endings.items() if ending and ending not in _DICOM)


def _stem(path: Path) -> str:
    """The name of an image: its file's, with only what an identifier may hold."""
    ending = "" if path.is_dir() else ending_of(path.name) or ""
    word = re.sub(r"\W+", "_", path.name[: len(path.name) - len(ending)]).strip("_")
    return word if word and not word[0].isdigit() else f"image_{word}".rstrip("_")


def _opened(paths: dict[str, Path]) -> dict[str, Image]:
    kinds = image_kinds(paths, None, "image='*/t1.nii.gz'")
    return {name: kinds.get(name, ScalarImage)(path) for name, path in paths.items()}
