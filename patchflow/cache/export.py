"""Subjects and entries to NIfTI files, with the values that a network would see."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchflow.cache.entry import Entry
from patchflow.cache.layout import read_entry_file
from patchflow.cache.read import Cache
from patchflow.errors import ArgumentError, ImageFileError, SubjectError, UnknownNameError
from patchflow.files import whole_file
from patchflow.images.scaled import write_volume
from patchflow.images.volume import Volume
from patchflow.images.write import NIFTI_ENDINGS
from patchflow.notices import say
from patchflow.preprocess.pipeline import Pipeline
from patchflow.subjects import Subject
from patchflow.types import count

_NOTE_KEYS = {"subject", "files", "made_of", "whole"}


def export(
    source: Subject | Entry | Cache | Iterable[Subject | Entry],
    folder: str | Path,
    *,
    images: str | Iterable[str] | None = None,
    preprocess: Pipeline | None = None,
    suffix: str = ".nii.gz",
    overwrite: bool = False,
    num_workers: int = 1,
    progress: bool = True,
) -> dict[str, dict[str, Path]]:
    """Write the images of subjects, or of a cache's entries, as NIfTI files NAME_IMAGE.nii.gz.

    The values are those that are read from a cache, after its preprocessing. Label maps keep their integers. Scalar images keep the dtype
    in which they are stored where that is exact: where values are the stored ones, or integers with a slope and an intercept that NIfTI
    holds (float32); others become float32. Affines are those of the processed images. Files appear whole or not at all, one after another;
    NAME.json beside them keeps the subject's metadata and what the files were made of. Called again after an interruption, it goes on with
    what is missing.

    Args:
        source: a cache, an entry or a subject, or several entries and subjects.
        folder: made if it is not there.
        images: names of the images to write; None: all.
        preprocess: done to `Subject`s before they are written. Entries are preprocessed already.
        suffix: ".nii.gz" or ".nii".
        overwrite: replace files that are there and were not made of the same subject in the same way; else they are an error.
        num_workers: threads, each of which holds a subject's volumes.
        progress: show a progress bar.

    Returns:
        Subject name to image name to the path of its file, those that were there before included.

    Raises:
        ArgumentError: for an argument that cannot be used, two files of one name, or a file that is there and is another's.
        UnknownNameError: for an image that a subject lacks.
        SubjectError: for images on different grids, or metadata that JSON cannot keep.
        ImageError, ImageFileError: for an image that cannot be read, or not be written as NIfTI, such as on a full disk.
        CacheError, CacheDamagedError: for an entry whose file is missing, or not what was written.
    """
    if suffix not in NIFTI_ENDINGS:
        raise ArgumentError(f'suffix must be ".nii.gz" or ".nii", not {suffix!r}')
    num_workers = count(num_workers, "num_workers", 1)
    tasks = [_Task(item, _chosen(item, images), Path(folder), suffix, preprocess, overwrite) for item in _items(source, preprocess)]
    _check_names(tasks)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"{folder} cannot be made a folder to export to ({error.strerror}): name another") from error
    kept = _run(tasks, num_workers, progress)
    if kept:
        say(f"{kept} of {len(tasks)} subjects were exported before and are kept as they are in {folder}")
    return {task.item.name: task.files for task in tasks}


@dataclass(frozen=True)
class _Task:
    """A subject to be written."""

    item: Subject | Entry
    images: tuple[str, ...]
    folder: Path
    suffix: str
    preprocess: Pipeline | None
    overwrite: bool

    @property
    def files(self) -> dict[str, Path]:
        return {image: self.folder / f"{self.item.name}_{image}{self.suffix}" for image in self.images}

    @property
    def note(self) -> Path:
        return self.folder / f"{self.item.name}.json"

    def run(self) -> bool:
        """Write what is to be written; gives whether anything was."""
        note = self._checked_note()
        if note is not None and note["made_of"] == self._made_of():
            if note["whole"] and all(path.exists() for path in self.files.values()):
                return False
        elif note is not None and note["whole"] and not self.overwrite:
            raise ArgumentError(
                f"{self.note}: subject {self.item.name!r} was exported from other images, or in another way: name another folder, or give "
                "overwrite=True"
            )
        made_of, volumes = self._volumes()
        self._write_note(made_of, whole=False)  # so that what is there after an interruption is known to be ours
        for image, path in self.files.items():
            write_volume(path, volumes[image])
        self._write_note(made_of, whole=True)
        return True

    def _checked_note(self) -> dict[str, Any] | None:
        """What an export before left, if there was one."""
        try:
            content = json.loads(self.note.read_bytes())
        except FileNotFoundError:
            there = [path.name for path in self.files.values() if path.exists()]
            if there and not self.overwrite:
                raise ArgumentError(
                    f"{self.folder} holds {', '.join(there)} already, not from an export: name another folder, or give overwrite=True"
                ) from None
            return None
        except (OSError, ValueError) as error:
            raise ArgumentError(f"{self.note} is there, and is not from an export ({error}): name another folder") from error
        if not isinstance(content, dict) or not set(content) >= _NOTE_KEYS:
            raise ArgumentError(f"{self.note} is there, and is not from an export: name another folder")
        return content

    def _made_of(self) -> str:
        if isinstance(self.item, Entry):
            return self._identity(read_entry_file(self.item.path).record["id"])
        return self._identity({key: image.digest() for key, image in self.item.images.items()})

    def _identity(self, sources: Any) -> str:
        steps = None if self.preprocess is None else self.preprocess.fingerprint()
        text = json.dumps([sources, steps, list(self.images), self.suffix], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _volumes(self) -> tuple[str, Mapping[str, Volume]]:
        """What to write, and what it is made of."""
        item = self.item
        if isinstance(item, Entry):
            where = f"subject {item.name!r} in {item.path}"
            records = {image: item.images[image] for image in self.images}
            return self._made_of(), {
                image: Volume(item.region(image, (0, 0, 0), item.shape), item.affine, record.kind, record.map, where)
                for image, record in records.items()
            }
        item.check()
        volumes, digests = item.load_with_digests()
        return self._identity(digests), volumes if self.preprocess is None else self.preprocess.apply(volumes, item.name)

    def _write_note(self, made_of: str, whole: bool) -> None:
        files = {image: path.name for image, path in self.files.items()}
        content = {"subject": self.item.name, "files": files, "made_of": made_of, "whole": whole, "metadata": self.item.metadata}
        try:
            text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise SubjectError(f"subject {self.item.name!r} has metadata that JSON cannot keep ({error}): leave it out") from error
        try:
            with whole_file(self.note) as beside:
                beside.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ImageFileError(f"{self.note} cannot be written ({error.strerror or error}): check that its folder has room") from error


def _items(source: Any, preprocess: Pipeline | None) -> list[Subject | Entry]:
    items = [source] if isinstance(source, (Subject, Entry)) else list(source) if isinstance(source, Iterable) else []
    for item in items:
        if not isinstance(item, (Subject, Entry)):
            raise ArgumentError(f"what can be exported is a cache, entries and subjects, not {item!r:.80}")
        if preprocess is not None and isinstance(item, Entry):
            raise ArgumentError(f"subject {item.name!r} was preprocessed when the cache was built: leave out preprocess, or give subjects")
    if not items:
        raise ArgumentError(f"there is nothing to export in {source!r:.80}: give a cache, entries or subjects")
    return items


def _chosen(item: Subject | Entry, images: str | Iterable[str] | None) -> tuple[str, ...]:
    if images is None:
        return tuple(item.images)
    names = (images,) if isinstance(images, str) else tuple(images)
    for name in names:
        if name not in item.images:
            raise UnknownNameError(f"subject {item.name!r} has no image {name!r}: it has {', '.join(map(repr, item.images))}")
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"images must be names, each once, or None for all, not {images!r}")
    return names


def _check_names(tasks: Iterable[_Task]) -> None:
    """Refuse two files of one name, also where upper and lower case are one."""
    seen: dict[str, str] = {}
    for task in tasks:
        for what, path in {"its notes": task.note, **task.files}.items():
            whose = f"{what!r} of subject {task.item.name!r}"
            before = seen.setdefault(path.name.casefold(), whose)
            if before is not whose:
                raise ArgumentError(f"{before} and {whose} would both be written to {path.name}: rename one subject")


def _run(tasks: list[_Task], num_workers: int, progress: bool) -> int:
    """Do all tasks, and give how many had been done before; an error lets those that are running finish, and starts no more."""
    from tqdm.auto import tqdm  # takes a while to import

    kept = 0
    with (
        tqdm(total=len(tasks), desc="exporting", unit="subject", disable=not progress) as bar,
        ThreadPoolExecutor(num_workers, thread_name_prefix="patchflow-export") as threads,
    ):
        futures: list[Future[bool]] = [threads.submit(task.run) for task in tasks]
        try:
            for future in as_completed(futures):
                kept += not future.result()
                bar.update()
        finally:
            threads.shutdown(cancel_futures=True)
    return kept
