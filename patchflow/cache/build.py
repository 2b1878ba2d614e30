"""Building a cache: every subject preprocessed once, over any executor, atomically, and going on where a build stopped."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed, wait
from contextlib import contextmanager
from multiprocessing import current_process
from pathlib import Path
from typing import Any, Literal, get_args

from patchflow.cache.executors import workers_for
from patchflow.cache.layout import Layout
from patchflow.cache.make import EntryTask, make_entry
from patchflow.cache.manifest import ENTRIES, MANIFEST, Manifest, write_manifest
from patchflow.cache.read import Cache, open_cache
from patchflow.errors import ArgumentError, CacheError, PatchflowError, SubjectError
from patchflow.files import TEMPORARY, machine_memory
from patchflow.notices import say, size
from patchflow.preprocess.pipeline import Pipeline
from patchflow.subjects import Subject
from patchflow.types import count

SHARE_OF_MEMORY = 0.6
"""Of physical memory that "auto" lets the page cache have; the rest is for training."""


def build_cache(
    subjects: Sequence[Subject],
    folder: str | Path,
    *,
    preprocess: Pipeline | None = None,
    layout: Literal["auto", "contiguous", "compressed"] = "auto",
    num_workers: int = 0,
    executor: Executor | None = None,
    progress: bool = True,
) -> Cache:
    """Preprocess subjects and store them, or go on with a build that was stopped.

    Each entry is written beside its final name, flushed to disk and renamed, so that whatever stops a build, every entry file is whole. An
    entry that stands there already is used as it is if it was made of the same source content and metadata, by the same preprocessing, in
    the same layout and format version; else it is built anew. Entries of other subjects stay in the folder and are not listed. Two builds
    in one folder wait for one another (where the file system has locks).

    Args:
        subjects: with names that differ (also where upper and lower case are one); shapes may differ.
        folder: made when it is not there. One that holds something else than a cache is refused.
        preprocess: run on every subject before it is stored; None stores the images as they are.
        layout: "contiguous" is read fastest, as long as the voxels fit in memory; "compressed" is about 2.7 times smaller; "auto" takes
            "contiguous" if all voxels fit in 60 % of the memory, and says which and why.
        num_workers: processes that build side by side; 0 builds in this one. Scripts need the usual `if __name__ == "__main__":`.
        executor: runs the tasks instead: any `concurrent.futures.Executor`, whose workers see the same files. It is not shut down.
        progress: show a progress bar.

    Returns:
        The cache, opened.

    Raises:
        ArgumentError: for an argument that cannot be used.
        SubjectError: for two subjects of one name, images on different grids, or metadata that JSON cannot keep.
        ImageError, ImageFileError: for a file or voxels that cannot be used.
        CacheError: if the folder holds something else, the disk is full, or a step or worker failed. What was finished is used again by
            the next build.
    """
    subjects = _checked_subjects(subjects)
    if layout not in ("auto", *get_args(Layout)):
        raise ArgumentError(f'layout must be "auto", "contiguous" or "compressed", not {layout!r}')
    num_workers = count(num_workers, "num_workers", 0)
    if executor is not None and num_workers:
        raise ArgumentError("give num_workers or an executor, not both: the executor has its own number of workers")
    chosen, reason = _choose_layout(subjects) if layout == "auto" else (layout, "as asked")
    folder = Path(folder).absolute()
    pipeline = Pipeline() if preprocess is None else preprocess
    if not isinstance(pipeline, Pipeline):
        raise ArgumentError(f"preprocess must be a pf.Pipeline, not {preprocess!r}: write pf.Pipeline([...])")
    _prepare_folder(folder)
    with _only_builder(folder):
        for left in (*folder.glob(f"*{TEMPORARY}"), *(folder / ENTRIES).glob(f"*{TEMPORARY}")):
            left.unlink(missing_ok=True)  # of a build that was killed; no other is running
        tasks = [EntryTask(subject, folder / ENTRIES, pipeline, chosen) for subject in subjects]
        with workers_for(num_workers, executor, pipeline, len(tasks)) as workers:
            records = _run(tasks, workers, progress)
        write_manifest(folder, Manifest(chosen, reason, pipeline.fingerprint(), repr(pipeline), records))
    if layout == "auto":
        say(f"layout {chosen} for {folder}: {reason}")
    return open_cache(folder)


def _checked_subjects(given: Any) -> list[Subject]:
    if isinstance(given, Subject) or not isinstance(given, Iterable):
        raise ArgumentError(f"subjects must be a list of pf.Subject objects, not {given!r}")
    subjects = list(given)
    if not subjects:
        raise ArgumentError("there are no subjects to cache")
    seen: dict[str, str] = {}
    for subject in subjects:
        if not isinstance(subject, Subject):
            raise ArgumentError(f"subjects must be pf.Subject objects, not {subject!r}")
        key = subject.name.casefold()
        if key in seen:
            raise SubjectError(
                f"two subjects are named {subject.name!r}: rename one"
                if seen[key] == subject.name
                else f"the subjects {seen[key]!r} and {subject.name!r} would be one file where case does not count: rename one"
            )
        seen[key] = subject.name
        subject.check()
        for name, value in subject.metadata.items():
            _check_json(value, f"subject {subject.name!r}: metadata {name!r}")
    return subjects


def _check_json(value: Any, what: str) -> None:
    if value is None or isinstance(value, (str, bool, int)):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise SubjectError(f"{what} is {value!r}, which JSON cannot keep: leave it out or use None")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            _check_json(item, f"{what}[{number}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise SubjectError(f"{what} has the key {key!r}, but JSON keys are strings: use {str(key)!r}")
            _check_json(item, f"{what}[{key!r}]")
    else:
        raise SubjectError(
            f"{what} is a {type(value).__module__}.{type(value).__qualname__}, which JSON cannot keep: "
            "give numbers, strings, lists or dicts (int(x), float(x), str(x))"
        )


def _choose_layout(subjects: list[Subject]) -> tuple[Layout, str]:
    nbytes = sum(math.prod(image.shape) * image.dtype.itemsize for subject in subjects for image in subject.images.values())
    memory = machine_memory()
    share = f"{SHARE_OF_MEMORY:.0%} of the {size(memory)} of memory"
    if nbytes <= SHARE_OF_MEMORY * memory:
        return "contiguous", f"{size(nbytes)} of voxels fit in {share}"
    return "compressed", f"{size(nbytes)} of voxels do not fit in {share}"


def _prepare_folder(folder: Path) -> None:
    """Make the folder; refuse one that holds something else than a cache."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        strangers = [item.name for item in folder.iterdir() if item.name not in (MANIFEST, ENTRIES) and not item.name.endswith(TEMPORARY)]
        if strangers and not _is_ours(folder / MANIFEST):
            raise CacheError(
                f"{folder} holds other things ({', '.join(sorted(strangers)[:3])}) and no cache: choose a folder that is new or empty"
            )
        (folder / ENTRIES).mkdir(exist_ok=True)
    except CacheError:
        raise
    except OSError as error:
        raise CacheError(f"the folder {folder} cannot be used for a cache: {error}") from error


def _is_ours(manifest: Path) -> bool:
    try:
        content = json.loads(manifest.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"checksum", "format", "entries"} <= set(content)


@contextmanager
def _only_builder(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which goes with the process: builds in one folder take turns, and the later finds all done."""
    try:
        import fcntl  # POSIX alone
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if getattr(current_process(), "_inheriting", False):  # still importing the script; multiprocessing itself looks there
                raise CacheError(
                    f"the cache in {folder} is being built by the process that started this one, which would wait for it for ever: put "
                    'what the script does under `if __name__ == "__main__":`'
                ) from None
            say(f"another process is building the cache in {folder}: waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


def _run(tasks: list[EntryTask], executor: Executor, progress: bool) -> list[dict[str, Any]]:
    """The records of all entries, in order. An error or interrupt lets running tasks finish, starts no more, and goes on up."""
    from tqdm.auto import tqdm  # takes a while to import

    futures: list[Future[tuple[dict[str, Any], bool]]] = []
    with tqdm(total=len(tasks), desc="caching", unit="subject", disable=not progress) as bar:
        try:
            for task in tasks:
                futures.append(executor.submit(make_entry, task))
                futures[-1].add_done_callback(lambda _: bar.update())
            for future in as_completed(futures):
                future.result()
            return [future.result()[0] for future in futures]
        except BrokenExecutor as error:
            raise CacheError(
                f"a worker that was building the cache died ({error}). It may have been killed for want of memory: use fewer workers; or "
                'the script lacks `if __name__ == "__main__":` around what it does. The next build uses finished entries again'
            ) from error
        except PatchflowError:
            raise
        except Exception as error:  # of the executor itself: tasks raise nothing else
            raise CacheError(
                f"{executor!r} could not carry out the build: {type(error).__name__}: {error}. It must be a concurrent.futures.Executor "
                "that is still running, and able to send the subjects and the preprocessing to its workers"
            ) from error
        finally:
            # Those that were cancelled never run, and not every executor says of them that they are done.
            wait([future for future in futures if not future.cancel()])
