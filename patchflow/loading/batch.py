"""The memory of batches: how one is laid out, and the slots that workers write finished patches into."""

import weakref
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from patchflow.cache.read import Cache
from patchflow.errors import SubjectError, UnknownNameError
from patchflow.types import Int3

_ALIGNMENT = 64
"""Bytes: a cache line, so that two workers never write to the same one."""

SPARE = 2
"""Slots for the batches that the consumer holds: the one at hand, and the one before it while the next is fetched."""


@dataclass(frozen=True)
class Field:
    """One image of a batch: a patch has shape (C, i, j, k), and `offset` bytes into the slot lie `batch_size` of them."""

    name: str
    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    offset: int
    nbytes: int


@dataclass(frozen=True)
class BatchLayout:
    """Where each image of a batch lies in its slot."""

    fields: tuple[Field, ...]
    batch_size: int
    nbytes: int

    def views(self, storage: torch.Tensor, rows: int) -> dict[str, torch.Tensor]:
        """The images of the first `rows` patches, (rows, C, i, j, k) each, as views of a slot's bytes."""
        return {
            field.name: storage[field.offset : field.offset + rows * field.nbytes].view(field.dtype).view(rows, *field.shape)
            for field in self.fields
        }


def batch_layout(cache: Cache, patch_size: Int3, batch_size: int, keys: tuple[str, ...] | None = None) -> BatchLayout:
    """Lay out batches of the images `keys` (all, if None).

    Raises:
        UnknownNameError: a key that a subject has no image of.
        SubjectError: an image with other channels in one subject than in another, or subjects with other images.
    """
    first = cache[0]
    names = tuple(first.images) if keys is None else keys
    if keys is None:
        _same_images(cache, names)
    fields, offset = [], 0
    for name in names:
        channels, dtype = _common(cache, name)
        patch = (channels, *patch_size)
        nbytes = int(np.prod(patch)) * dtype.itemsize
        fields.append(Field(name, patch, torch.from_numpy(np.empty(0, dtype)).dtype, offset, nbytes))
        offset += -(-nbytes * batch_size // _ALIGNMENT) * _ALIGNMENT
    return BatchLayout(tuple(fields), batch_size, offset)


def _common(cache: Cache, name: str) -> tuple[int, np.dtype]:
    """Channels of image `name`, which must agree over the subjects, and the least dtype that holds it in all of them."""
    first, dtypes = cache[0], set()
    for entry in cache:
        if name not in entry.images:
            raise UnknownNameError(f"subject {entry.name!r} has no image {name!r}, only {', '.join(map(repr, entry.images))}")
        record = entry.images[name]
        if record.channels != first.images[name].channels or record.kind != first.images[name].kind:
            raise SubjectError(
                f"image {name!r} of subject {entry.name!r} is a {record.kind} image of {record.channels} channels, but that of subject "
                f"{first.name!r} is a {first.images[name].kind} image of {first.images[name].channels}: a batch needs them alike"
            )
        dtypes.add(np.dtype(record.dtype))
    return first.images[name].channels, np.result_type(*dtypes)


def _same_images(cache: Cache, names: tuple[str, ...]) -> None:
    for entry in cache:
        if set(entry.images) != set(names):
            raise SubjectError(
                f"subject {entry.name!r} has the images {sorted(entry.images)}, but subject {cache[0].name!r} has {sorted(names)}: "
                "name the images that batches shall hold with keys=(...)"
            )


class Slots:
    """The memory of the batches in flight: slots that are used again once the consumer has let go of their batch.

    Fresh memory costs a page fault for every 4 KiB, more than reading a patch does, so slots are kept. There are `count` of them. When the
    consumer keeps more batches than `SPARE`, another slot takes the place of one that it holds, until that one is back: the memory in
    flight stays `count x layout.nbytes`, and what the consumer keeps is the consumer's. Workers in other processes know a fixed set of
    slots, so there the consumer is given copies instead.

    Args:
        layout: of the batches.
        count: number of slots.
        shared: put slots in shared memory, for worker processes.
        pinned: hand batches over in page-locked memory of PyTorch's caching host allocator, which reuses memory only when copies from it
            to the device are done. Threads write into it at once; from shared memory one copy is made.
    """

    def __init__(self, layout: BatchLayout, count: int, shared: bool = False, pinned: bool = False) -> None:
        self.layout, self.count = layout, count
        self._shared, self._pinned = shared, pinned
        self.storages = [self._fresh(pinned=False) for _ in range(count)]
        if shared:
            self.storages = [storage.share_memory_() for storage in self.storages]  # type: ignore[no-untyped-call]
        self._free = deque(range(count))
        self._busy = 0  # taken, and not handed over yet
        self._retired: list[int] = []

    def take(self) -> int:
        """A free slot's number; an IndexError if there is none."""
        slot = self._free.popleft()
        self._busy += 1
        if self._pinned and not self._shared:
            self.storages[slot] = self._fresh(pinned=True)
        return slot

    def hand_over(self, slot: int, rows: int, needed: int) -> dict[str, torch.Tensor]:
        """The finished batch in `slot`, for the consumer; the slot comes back by itself once no tensor uses it.

        Args:
            slot: a number from `take`.
            rows: patches in the batch.
            needed: free slots that the queue needs to go on.
        """
        self._busy -= 1
        storage = self.storages[slot]
        if self._pinned and not self._shared:
            self._free.append(slot)
            return self.layout.views(storage, rows)
        if self._shared and (self._pinned or len(self._free) < needed):
            copies = self.layout.views(self._fresh(self._pinned), rows)
            for name, view in self.layout.views(storage, rows).items():
                copies[name].copy_(view)
            self._free.append(slot)
            return copies
        if len(self._free) < needed:
            self._free.append(self._another())
        # Every tensor made from `root` keeps it alive through their common storage, so its end is the end of the batch's use.
        root = storage.numpy()[:]
        weakref.finalize(root, self._take_back, slot).atexit = False
        return self.layout.views(torch.from_numpy(root), rows)

    def _take_back(self, slot: int) -> None:
        """A slot that nobody uses: wanted again, unless others took its place."""
        if len(self._free) + self._busy < self.count:
            self._free.append(slot)
        else:
            self.storages[slot] = torch.empty(0, dtype=torch.uint8)
            self._retired.append(slot)

    def _another(self) -> int:
        if not self._retired:
            self.storages.append(self._fresh(pinned=False))
            return len(self.storages) - 1
        slot = self._retired.pop()
        self.storages[slot] = self._fresh(pinned=False)
        return slot

    def _fresh(self, pinned: bool) -> torch.Tensor:
        return torch.empty(max(self.layout.nbytes, 1), dtype=torch.uint8, pin_memory=pinned)
