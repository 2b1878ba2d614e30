"""Comparing every block of an entry with its checksum."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchflow.cache.handles import OpenEntry
from patchflow.cache.records import ImageRecord
from patchflow.errors import CacheError


@dataclass(frozen=True)
class Finding:
    """Something in a cache that is not what was written.

    Attributes:
        subject: its name.
        image: the image concerned; None for the file as a whole.
        what: what is wrong, where, and the mend.
    """

    subject: str
    image: str | None
    what: str

    def __str__(self) -> str:
        return f"subject {self.subject!r}{'' if self.image is None else f', image {self.image!r}'}: {self.what}"


def verify_entry(path: Path, record: dict[str, Any]) -> Iterator[Finding]:
    """Every finding about the entry file at `path`, which should hold `record`."""
    subject = record["name"]
    images = {name: ImageRecord.from_dict(values) for name, values in record["images"].items()}
    try:
        entry = OpenEntry(path, record["id"], images, verify=True, unchecked={})  # nothing counts as checked
    except CacheError as error:
        yield Finding(subject, None, str(error))
        return
    for name in images:
        try:
            yield from (Finding(subject, name, what) for what in entry.image(name).voxels.damages())
            for key in entry.mapping.file.extents:
                if key.startswith(f"{name}/index/") and not key.endswith("_checksums"):
                    yield from (Finding(subject, name, what) for what in entry.mapping.blocks(key).damages())
        except CacheError as error:
            yield Finding(subject, name, str(error))
