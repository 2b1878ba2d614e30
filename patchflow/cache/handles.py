"""Entry files that this process has open: a bounded number, most recently used first, never taken across a fork.

An entry keeps no handle of its own, so that it can be pickled and shared by threads; it asks here for each read.
"""

import os
import threading
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

from patchflow.cache.index import LabelIndex, WeightIndex
from patchflow.cache.layout import damaged, map_entry_file
from patchflow.cache.records import ImageRecord
from patchflow.cache.storage import CompressedVoxels, ContiguousVoxels, Mapping, Unchecked, Voxels
from patchflow.errors import CacheDamagedError

LIMIT = 256
"""Entry files open at a time; each takes a file descriptor, of which processes commonly have 1,024."""


class OpenImage:
    """The mapped arrays of one image."""

    def __init__(self, mapping: Mapping, name: str, record: ImageRecord) -> None:
        self._mapping, self._name, self._record = mapping, name, record
        found = mapping.file.chunks.get(name)
        if found is None:
            extent = mapping.file.extents.get(f"{name}/voxels")
            if extent is None or (extent.shape, extent.dtype) != (record.shape, record.stored_dtype):
                raise damaged(mapping.path, f"image {name!r} is not of shape {record.shape} and dtype {record.stored_dtype}")
        self.voxels: Voxels = (
            ContiguousVoxels(mapping, name) if found is None else CompressedVoxels(mapping, name, record.shape, record.stored_dtype)
        )

    @cached_property
    def label_index(self) -> LabelIndex:
        """Of a label map."""
        return LabelIndex(self._mapping, self._name, self._record.shape)

    @cached_property
    def weight_index(self) -> WeightIndex:
        """Of an image that has one."""
        return WeightIndex(self._mapping, self._name, self.voxels, self._record.shape, self._record.map)


class OpenEntry:
    """An entry file, mapped into memory."""

    def __init__(self, path: Path, identity: str, images: "dict[str, ImageRecord]", verify: bool, unchecked: Unchecked) -> None:
        file, memory = map_entry_file(path)
        if file.record.get("id") != identity:
            raise CacheDamagedError(
                f"{path} is not the file that the manifest lists: the entry was built anew or replaced since. "
                "Open the cache again, or build it again if that does not help"
            )
        self.mapping = Mapping(path, memory, file, verify, unchecked)
        self._records = images
        self._images: dict[str, OpenImage] = {}

    def image(self, name: str) -> OpenImage:
        """An image of the entry, which must be there."""
        found = self._images.get(name)
        return found if found is not None else self._images.setdefault(name, OpenImage(self.mapping, name, self._records[name]))


class _Handles:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._lock = threading.Lock()  # a new one: in a forked child another thread's hold on the old one would never end
        self._open: OrderedDict[Any, OpenEntry] = OrderedDict()
        self._unchecked: dict[Any, Unchecked] = {}  # kept when a file is closed for the sake of others: checking costs more than reading

    def get(self, path: Path, identity: str, images: dict[str, ImageRecord], verify: bool) -> OpenEntry:
        key = (path, identity, verify)
        with self._lock:
            found = self._open.get(key)
            if found is not None:
                self._open.move_to_end(key)
                return found
        opened = OpenEntry(
            path, identity, images, verify, self._unchecked.setdefault(key, {})
        )  # outside the lock, which other threads' reads need
        with self._lock:
            found = self._open.setdefault(key, opened)
            self._open.move_to_end(key)
            while len(self._open) > LIMIT:
                self._open.popitem(last=False)  # unmapped when the last view of it is gone
        return found

    def close(self, folder: Path) -> None:
        with self._lock:
            for known in (self._open, self._unchecked):
                for key in [key for key in known if key[0] == folder or folder in key[0].parents]:
                    del known[key]

    def __len__(self) -> int:
        return len(self._open)


handles = _Handles()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=handles.reset)
