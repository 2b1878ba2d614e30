"""Opening a cache: a sequence of entries."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from patchflow.cache.entry import Entry
from patchflow.cache.handles import handles
from patchflow.cache.layout import Layout
from patchflow.cache.manifest import Manifest, read_manifest
from patchflow.cache.summary import describe
from patchflow.cache.verify import Finding, verify_entry
from patchflow.errors import ArgumentError, UnknownNameError


class Cache:
    """Subjects, ready to be read in patches: a sequence of entries, by number or by subject name.

    Opening it reads the manifest alone. It can be pickled: it is opened again where it is unpickled.

    Attributes:
        folder: where it stands.
        names: the subjects' names, in order.
    """

    def __init__(self, folder: Path, manifest: Manifest, verify_on_read: bool = True) -> None:
        self.folder, self._manifest, self._verify = folder, manifest, verify_on_read
        self.names: tuple[str, ...] = tuple(record["name"] for record in manifest.entries)
        self._places = {name: place for place, name in enumerate(self.names)}
        self._entries: dict[int, Entry] = {}

    @property
    def layout(self) -> Layout:
        """ "contiguous" or "compressed"."""
        return self._manifest.layout

    @property
    def layout_reason(self) -> str:
        """Why that layout, in words."""
        return self._manifest.layout_reason

    @property
    def fingerprint(self) -> str:
        """Of the preprocessing."""
        return self._manifest.fingerprint

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Entry]:
        return (self[place] for place in range(len(self)))

    def __contains__(self, which: object) -> bool:
        """Whether a subject's name, or an entry, is in the cache."""
        return which in self._places if isinstance(which, str) else any(which is entry for entry in self)

    @overload
    def __getitem__(self, which: int | str) -> Entry: ...
    @overload
    def __getitem__(self, which: slice) -> "Cache": ...
    def __getitem__(self, which: int | str | slice) -> "Entry | Cache":
        """The entry of a number (negative ones count from the end) or of a subject's name; of a slice, the `subset` of its subjects.

        Raises:
            UnknownNameError: for a name that is not there.
            IndexError: for a number that is not there.
        """
        if isinstance(which, slice):
            return self.subset(self.names[which])
        if isinstance(which, str):
            if which not in self._places:
                raise UnknownNameError(f"the cache in {self.folder} has no subject {which!r}; it has {len(self)} others")
            which = self._places[which]
        place = range(len(self))[which]
        if place not in self._entries:
            self._entries[place] = Entry(self.folder, self._manifest.entries[place], self._verify)
        return self._entries[place]

    def subset(self, names: Iterable[str]) -> "Cache":
        """The same cache with some of its subjects alone, in the order of `names`: to train on some and validate on others.

        Raises:
            UnknownNameError: for a name that is not there.
            ArgumentError: for a name given twice.
        """
        if isinstance(names, str):
            raise ArgumentError(f"names must be a list of subjects' names, not the text {names!r}: write [{names!r}]")
        chosen = [self[name].name for name in names]
        if len(set(chosen)) < len(chosen):
            raise ArgumentError(f"a subject is named twice in {chosen}")
        entries = [self._manifest.entries[self._places[name]] for name in chosen]
        return Cache(self.folder, replace(self._manifest, entries=entries), self._verify)

    def verify(self) -> list[Finding]:
        """Read every block of every entry and compare it with its checksum.

        Returns:
            One finding for each block or file that is not what was written; it does not stop at the first. An empty list: all is well.
        """
        return [finding for entry in self for finding in verify_entry(entry.path, self._manifest.entries[self._places[entry.name]])]

    def describe(self) -> str:
        """A table of the cache: names, shapes, dtypes, classes with voxel counts, sizes, layout and why."""
        return describe(self.folder, self._manifest)

    def __repr__(self) -> str:
        return self.describe()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.folder, self._verify, self.names)


def open_cache(folder: str | Path, verify_on_read: bool = True) -> Cache:
    """Open the cache in a folder; reads its manifest alone.

    Args:
        folder: where `build_cache` put it.
        verify_on_read: compare every block with its checksum, once per process, when it is first touched.

    Raises:
        CacheError: if there is no cache in the folder.
        CacheFormatError: if it is of another format version.
        CacheDamagedError: if the manifest is not what was written.
    """
    folder = Path(folder).absolute()
    manifest = read_manifest(folder)
    handles.close(folder)  # files may have been built anew
    return Cache(folder, manifest, verify_on_read)


def _reopen(folder: Path, verify_on_read: bool, names: tuple[str, ...]) -> Cache:
    cache = open_cache(folder, verify_on_read)
    return cache if cache.names == names else cache.subset(names)
