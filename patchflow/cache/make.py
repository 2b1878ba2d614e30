"""Making one entry of a cache: a task that any executor can run, in this process or another."""

import errno
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np

from patchflow.cache.index import build_label_index, build_weight_index, class_counts
from patchflow.cache.layout import ImageParts, Layout, block_checksums, read_entry_file, write_entry
from patchflow.cache.manifest import SUFFIX
from patchflow.cache.records import ImageRecord, Statistics, identity_of
from patchflow.errors import CacheError, ImageError, PatchflowError
from patchflow.files import whole_file
from patchflow.images.labels import LABEL_DTYPES
from patchflow.images.volume import Volume
from patchflow.kernels.histogram import has_histogram, histogram, levels
from patchflow.kernels.pointwise import IntensityMap, apply_map
from patchflow.kernels.summary import combine, moments
from patchflow.preprocess.pipeline import Pipeline, ProcessedSubject
from patchflow.subjects import Subject
from patchflow.types import Array

_DISK_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_SLAB = 1 << 20
"""Voxels looked at together: their float32 values fit a core's cache."""


@dataclass(frozen=True)
class EntryTask:
    """One entry to make; entry files stand in `folder`."""

    subject: Subject
    folder: Path
    pipeline: Pipeline
    layout: Layout

    @property
    def path(self) -> Path:
        """The entry's final file."""
        return self.folder / f"{self.subject.name}{SUFFIX}"


def make_entry(task: EntryTask) -> tuple[dict[str, Any], bool]:
    """Build the entry, unless a whole one of the same source, preprocessing and format stands there already.

    Returns:
        Its record, and whether it was built.

    Raises:
        PatchflowError: whatever is wrong with the subject, naming it. A `CacheError` for a disk that is full, or an error in a step.
    """
    name = task.subject.name
    try:
        record = _reusable(task)
        return (record, False) if record is not None else (_build(task), True)
    except PatchflowError as error:
        if repr(name) in str(error) or f'"{name}"' in str(error):
            raise
        raise type(error)(f"subject {name!r}: {error}") from error
    except Exception as error:
        if _disk_is_full(error):
            raise CacheError(
                f"subject {name!r}: the disk, or what may be written to it, is full: {task.path} could not be written. Free some room or "
                "choose another folder, then build again: entries that are finished are kept"
            ) from error
        raise CacheError(f"subject {name!r} could not be cached: {type(error).__name__}: {error}") from error


def _disk_is_full(error: BaseException) -> bool:
    number = getattr(error, "errno", None)  # HDF5 tells the number in its message alone
    return number in _DISK_FULL or any(f"errno = {number}," in str(error) for number in _DISK_FULL)


def _wanted(task: EntryTask) -> dict[str, Any]:
    """What an entry's record says about where it came from, besides digests."""
    metadata = json.loads(json.dumps(task.subject.metadata, allow_nan=False))
    return {"name": task.subject.name, "layout": task.layout, "fingerprint": task.pipeline.fingerprint(), "metadata": metadata}


def _reusable(task: EntryTask) -> dict[str, Any] | None:
    """The record of the entry that stands there, if it is the one wanted."""
    if not task.path.exists():
        return None
    try:
        record = read_entry_file(task.path).record
    except CacheError:
        return None  # damaged or of another format: built anew
    images = record.get("images", {})
    same = (
        all(record.get(key) == value for key, value in _wanted(task).items())
        and record.get("id") == identity_of(record)
        and [(name, values["kind"]) for name, values in images.items()]
        == [(name, image.kind) for name, image in task.subject.images.items()]
        and record.get("past", []) == _past(task.subject)
        and all(image.digest() == images[name]["digest"] for name, image in task.subject.images.items())
    )
    return record if same else None


def _past(subject: Subject) -> list[dict[str, Any]]:
    """What became of the subject's grid before it was given."""
    return [change.to_dict() for change in subject.changes] if isinstance(subject, ProcessedSubject) else []


def _build(task: EntryTask) -> dict[str, Any]:
    loaded, digests = task.subject.load_with_digests()
    processed = task.pipeline.process(task.subject, loaded)
    volumes = processed.volumes
    with ThreadPoolExecutor(max_workers=len(volumes)) as threads:  # the kernels release the GIL
        what = [f"subject {task.subject.name!r}, image {name!r}" for name in volumes]
        parts = dict(zip(volumes, threads.map(partial(_prepare, task.layout), what, volumes.values()), strict=True))
    first = next(iter(volumes.values()))
    record: dict[str, Any] = {
        "file": task.path.name,
        **_wanted(task),
        "shape": list(first.shape[1:]),
        "affine": np.asarray(first.affine, np.float64).tolist(),
        "past": _past(task.subject),
        "grids": [change.to_dict() for change in processed.changes][len(_past(task.subject)) :],
        "images": {name: {**facts.to_dict(), "digest": digests[name]} for name, (facts, _) in parts.items()},
    }
    record["id"] = identity_of(record)
    images = {name: arrays for name, (_, arrays) in parts.items()}
    with whole_file(task.path) as beside:
        write_entry(beside, record, images, task.layout)
    return record


def _prepare(layout: Layout, what: str, volume: Volume) -> tuple[ImageRecord, ImageParts]:
    """The record of an image (without its digest) and the arrays to store; the pipeline has seen to it that every value is finite."""
    voxels = np.ascontiguousarray(volume.array)
    checksums = block_checksums(voxels) if layout == "contiguous" else None  # here, beside other images
    if volume.kind == "label":
        if voxels.dtype not in LABEL_DTYPES:
            raise ImageError(
                f"{what}: labels must be {', '.join(map(str, LABEL_DTYPES))}, not {voxels.dtype}: convert them in the preprocessing"
            )
        index = build_label_index(voxels)
        record = ImageRecord("label", volume.shape, voxels.dtype, voxels.dtype, IntensityMap(), None, "label", "", class_counts(index))
        return record, ImageParts(voxels, index, checksums)
    statistics = _statistics(voxels, volume.map)
    weights = build_weight_index(voxels, volume.map) if len(voxels) == 1 and statistics.minimum >= 0 else {}
    record = ImageRecord(
        "scalar", volume.shape, np.dtype(np.float32), voxels.dtype, volume.map, statistics, "weight" if weights else None, digest=""
    )
    return record, ImageParts(voxels, weights, checksums)


def _statistics(voxels: Array, intensities: IntensityMap) -> Statistics:
    """Of the values as read."""
    if has_histogram(voxels.dtype):
        counts = histogram(voxels)
        present = np.flatnonzero(counts)
        values = apply_map(levels(voxels.dtype)[present].reshape(1, 1, 1, -1), intensities).ravel().astype(np.float64)
        mean = float(np.average(values, weights=counts[present]))
        std = float(np.sqrt(np.average((values - mean) ** 2, weights=counts[present])))
        return Statistics(float(values.min()), float(values.max()), mean, std)
    planes = voxels.reshape(1, -1, *voxels.shape[2:])
    step = max(1, _SLAB // planes[0, 0].size)
    slabs = (planes[:, start : start + step] for start in range(0, planes.shape[1], step))
    found = reduce(combine, (moments(apply_map(slab, intensities)) for slab in slabs))
    return Statistics(found.minimum, found.maximum, found.mean, float(np.sqrt(found.squares / found.voxels)))
