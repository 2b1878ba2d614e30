"""What a queue draws from: a cache, or subjects for which it builds one."""

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from patchflow.cache.build import build_cache
from patchflow.cache.read import Cache, open_cache
from patchflow.errors import ArgumentError
from patchflow.notices import say
from patchflow.preprocess.pipeline import Pipeline
from patchflow.subjects import Subject


def as_cache(
    source: Cache | Sequence[Subject] | str | Path,
    preprocess: Pipeline | None = None,
    folder: str | Path | None = None,
    num_workers: int = 0,
) -> Cache:
    """The cache itself, opened if its folder is given; or one built of subjects (or used again, where a whole one stands) in `folder`.

    Without a folder the cache stands in the user's cache folder, under a name made of the subjects' names and files and the preprocessing.

    Raises:
        ArgumentError: for something else than a cache or subjects, or for `preprocess` with a cache that is built already.
        CacheError: for a folder without a cache.
    """
    if isinstance(source, (str, Path)):
        source = open_cache(source)
    if isinstance(source, Cache):
        if preprocess is not None or folder is not None:
            raise ArgumentError(
                f"the cache in {source.folder} is built already: give `preprocess` and the folder to build_cache, or give subjects instead"
            )
        return source
    subjects = list(source) if isinstance(source, (list, tuple)) else []
    if not subjects or not all(isinstance(subject, Subject) for subject in subjects):
        raise ArgumentError(
            f"expected a cache (pf.open_cache, pf.build_cache), the folder of one, or a list of subjects, not {source!r:.200}"
        )
    if folder is None:
        folder = default_folder(subjects, preprocess)
    say(f"{len(subjects)} subjects are cached in {folder} (entries that are whole and up to date are used again)")
    return build_cache(subjects, folder, preprocess=preprocess, num_workers=num_workers)


def default_folder(subjects: Sequence[Subject], preprocess: Pipeline | None = None) -> Path:
    """Where the cache of these subjects stands if no folder is given; the same in every process."""
    return user_cache_folder() / _name(subjects, preprocess)


def user_cache_folder() -> Path:
    """Where this platform keeps what programs can make again: PATCHFLOW_CACHE, or the XDG, macOS or Windows convention."""
    if "PATCHFLOW_CACHE" in os.environ:
        return Path(os.environ["PATCHFLOW_CACHE"])
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "patchflow"


def _name(subjects: Sequence[Subject], preprocess: Pipeline | None) -> str:
    parts = [preprocess.fingerprint() if preprocess else ""]
    for subject in subjects:
        parts += [subject.name, *(f"{name}={image.describe()}" for name, image in sorted(subject.images.items()))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
