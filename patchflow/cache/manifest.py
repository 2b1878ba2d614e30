"""The manifest: one JSON file that says what a cache holds, so that opening a cache opens no entry.

    {"checksum": "crc32 of all that follows this pair, 8 hexadecimal digits",
     "format": 1, "layout": ..., "layout_reason": ..., "fingerprint": ..., "preprocessing": ...,
     "entries": [the record of each entry, one per line]}

An entry's record: "id" (a digest of the rest), "file" (below entries/), "name", "layout", "fingerprint" (of the preprocessing), "shape"
(I, J, K), "affine", "metadata", "images" (by name: see `ImageRecord.to_dict`). The entry file holds the same record, so that a manifest
can be made again from the entries.
"""

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchflow.cache.layout import FORMAT, Layout
from patchflow.errors import CacheDamagedError, CacheError, CacheFormatError

MANIFEST = "manifest.json"
ENTRIES = "entries"
SUFFIX = ".h5"
TEMPORARY = ".tmp"
_HEAD = b'{"checksum": "'
_SKIP = len(_HEAD) + len('01234567",')


@dataclass(frozen=True)
class Manifest:
    """What a cache holds.

    Attributes:
        layout: "contiguous" or "compressed".
        layout_reason: why that one, in words.
        fingerprint: of the preprocessing.
        preprocessing: the same in words.
        entries: the record of each entry, in the order of the subjects.
    """

    layout: Layout
    layout_reason: str
    fingerprint: str
    preprocessing: str
    entries: list[dict[str, Any]]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest beside its final name, flush it to disk, and rename it."""
    lines = ",\n".join(json.dumps(record, allow_nan=False) for record in manifest.entries)
    fields = {key: value for key, value in vars(manifest).items() if key != "entries"}
    pairs = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items())
    body = f'\n"format": {FORMAT},\n{pairs},\n"entries": [\n{lines}\n]}}\n'.encode()

    def write(path: Path) -> None:
        with open(path, "wb") as stream:
            stream.write(_HEAD + b'%08x",' % zlib.crc32(body) + body)
            stream.flush()
            os.fsync(stream.fileno())

    write_whole(folder / MANIFEST, write)


def read_manifest(folder: Path) -> Manifest:
    """Read a cache's manifest.

    Raises:
        CacheError: if there is none.
        CacheFormatError: if it is of another format version.
        CacheDamagedError: if it is not what was written.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CacheError(
            f"there is no cache in {folder}: {MANIFEST} is missing. Build it with pf.build_cache(subjects, {str(folder)!r})"
        ) from None
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error}") from error
    try:
        content = json.loads(data)
        version = content["format"]
    except (ValueError, KeyError, TypeError):
        content, version = None, FORMAT  # nothing that states a version: the checksum will tell
    if version != FORMAT:
        raise CacheFormatError(f"{path} is of cache format {version}, but this version reads format {FORMAT}: build the cache again")
    if content is None or data[:_SKIP] != _HEAD + b'%08x",' % zlib.crc32(data[_SKIP:]):
        raise CacheDamagedError(
            f"{path} is not what was written. Build the cache again from the same subjects: entries that are whole are used as they are"
        )
    for record in content["entries"]:
        if record["file"] != record["name"] + SUFFIX or "/" in record["file"] or os.sep in record["file"]:
            raise CacheDamagedError(f"{path} lists the file {record['file']!r} for subject {record['name']!r}: build the cache again")
    return Manifest(*(content[key] for key in ("layout", "layout_reason", "fingerprint", "preprocessing", "entries")))


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Have `write` make a file beside `path`, then rename it and flush the folder: `path` is whole or as it was before.

    `write` flushes its file to disk. Whatever stops it, the file beside is removed.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}{TEMPORARY}")
    try:
        write(beside)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
