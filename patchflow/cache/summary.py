"""A cache in words: the table that it prints itself as."""

from pathlib import Path

from patchflow.cache.manifest import ENTRIES, Manifest
from patchflow.cache.records import ImageRecord
from patchflow.notices import size

_ROWS = 20
_CLASSES = 6


def describe(folder: Path, manifest: Manifest) -> str:
    """What the cache holds, where, and how large: the first subjects one by one, classes pooled over all."""
    subjects = len(manifest.entries)
    head = f"Cache of {subjects} subject{'' if subjects == 1 else 's'} in {folder}"
    voxels = sum(ImageRecord.from_dict(image).nbytes for record in manifest.entries for image in record["images"].values())
    lines = [
        head,
        f"layout {manifest.layout}: {manifest.layout_reason}",
        f"{size(voxels)} of voxels{_stored(folder, manifest)}",
        f"preprocessing {manifest.preprocessing}",
    ]
    rows = [("subject", "image", "shape (C, I, J, K)", "stored as", "values", "size")]
    for record in manifest.entries[:_ROWS]:
        label = record["name"]
        for name, values in record["images"].items():
            image = ImageRecord.from_dict(values)
            rows.append((label, name, str(image.shape), str(image.stored_dtype), _values(image), size(image.nbytes)))
            label = ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if subjects > _ROWS:
        lines.append(f"... and {subjects - _ROWS} more")
    return "\n".join(lines)


def _stored(folder: Path, manifest: Manifest) -> str:
    """Bytes on disk, of the listed files that are there; nothing for a large cache, whose files would take long to ask."""
    if manifest.layout == "contiguous" or len(manifest.entries) > 1000:
        return ""
    paths = [folder / ENTRIES / record["file"] for record in manifest.entries]
    return f", {size(sum(path.stat().st_size for path in paths if path.exists()))} on disk"


def _values(image: ImageRecord) -> str:
    if image.statistics is not None:
        found = image.statistics
        return f"{found.minimum:.6g} to {found.maximum:.6g}, mean {found.mean:.6g}, std {found.std:.6g}"
    counts = [f"{value}: {voxels}" for value, voxels in list(image.classes.items())[:_CLASSES]]
    more = len(image.classes) - _CLASSES
    return "voxels of " + ", ".join(counts) + (f" and {more} more classes" if more > 0 else "")
