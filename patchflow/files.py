"""What the machine gives: files that stand under their name whole, or not at all, and memory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp"
"""How the name of a file that is being written ends."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside `path` to write a file to: when the block ends it is flushed to disk and renamed, and then the folder is flushed.

    Whatever stops it, `path` is as it was before, and the file beside it is removed (but not by a process that is killed).

    Raises:
        OSError: when the file cannot be flushed or renamed.
    """
    beside = path.with_name(f".{path.name[:200]}.{os.urandom(4).hex()}{TEMPORARY}")
    try:
        yield beside
        _flush(beside, os.O_RDWR)
        os.replace(beside, path)
        if os.name != "nt":  # Windows cannot open folders
            _flush(path.parent, os.O_RDONLY)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _flush(path: Path, access: int) -> None:
    descriptor = os.open(path, access)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's limit."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            memory = min(memory, int(Path(path).read_text()))
        except (OSError, ValueError):
            continue  # no such group, or "max"
    return memory
