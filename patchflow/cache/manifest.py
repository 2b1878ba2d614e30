"""The manifest: one JSON file that says what a cache holds, so that opening a cache opens no entry.

    {"checksum": "crc32 of all that follows this pair, 8 hexadecimal digits",
     "format": 1, "layout": ..., "layout_reason": ..., "fingerprint": ..., "preprocessing": ...,
     "entries": [the record of each entry, one per line]}

An entry's record: "id" (a digest of the rest), "file" (below entries/), "name", "layout", "fingerprint" (of the preprocessing), "shape"
(I, J, K), "affine", "grids" (the steps that changed the voxel grid, each with the shape and affine before it), "past" (the same of what was
done before the build; caches that are older than such steps have neither), "metadata", "images" (by name: see `ImageRecord.to_dict`). The
entry file holds the same record, so that a manifest can be made again from the entries.
"""

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchflow.cache.layout import FORMAT, Layout
from patchflow.errors import CacheDamagedError, CacheError, CacheFormatError
from patchflow.files import whole_file

MANIFEST = "manifest.json"
ENTRIES = "entries"
SUFFIX = ".h5"
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
    """Write the manifest beside its final name, flush it to disk, and rename it; one that says the same already is left as it is.

    Raises:
        CacheError: if it cannot be written.
    """
    lines = ",\n".join(json.dumps(record, allow_nan=False) for record in manifest.entries)
    fields = {key: value for key, value in vars(manifest).items() if key != "entries"}
    pairs = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items())
    body = f'\n"format": {FORMAT},\n{pairs},\n"entries": [\n{lines}\n]}}\n'.encode()
    path, data = folder / MANIFEST, _HEAD + b'%08x",' % zlib.crc32(body) + body
    try:
        if path.exists() and path.read_bytes() == data:
            return  # a cache that is whole may lie where nobody may write
        with whole_file(path) as beside:
            beside.write_bytes(data)
    except OSError as error:
        raise CacheError(
            f"{path} cannot be written ({error.strerror or error}): mend that or choose another folder, then build again: entries that are "
            "finished are kept"
        ) from error


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
