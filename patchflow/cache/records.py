"""What the cache knows of an image without touching its voxels, and how that is written as JSON."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from patchflow.kernels.pointwise import IntensityMap
from patchflow.types import Int3

Shape4 = tuple[int, int, int, int]
"""(C, I, J, K)."""


@dataclass(frozen=True)
class Statistics:
    """Of the values as read (after the intensity map, as float32), over all channels, in float64; std is that of the population."""

    minimum: float
    maximum: float
    mean: float
    std: float


@dataclass(frozen=True)
class ImageRecord:
    """One image of an entry.

    Attributes:
        kind: "scalar" or "label".
        shape: (C, I, J, K).
        dtype: as read: float32 for a scalar image, the labels' own for a label map.
        stored_dtype: as stored.
        map: turns stored voxels into values as read; the identity for a label map.
        classes: label value to its voxels, all channels pooled; empty for a scalar image.
        statistics: None for a label map.
        index: "label", "weight", or None where the image has no index.
        digest: sha256 of the source, hexadecimal.
    """

    kind: Literal["scalar", "label"]
    shape: Shape4
    dtype: np.dtype[Any]
    stored_dtype: np.dtype[Any]
    map: IntensityMap
    statistics: Statistics | None
    index: Literal["label", "weight"] | None
    digest: str
    classes: Mapping[int, int] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the stored voxels before compression."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.stored_dtype.itemsize

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "kind": self.kind,
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "stored_dtype": self.stored_dtype.name,
            "map": self.map.to_dict(),
            "statistics": None if self.statistics is None else vars(self.statistics),
            "index": self.index,
            "digest": self.digest,
            "classes": {str(value): voxels for value, voxels in self.classes.items()},  # JSON keys are strings
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ImageRecord":
        """The record written by `to_dict`."""
        channels, i, j, k = (int(n) for n in values["shape"])
        return cls(
            kind=values["kind"],
            shape=(channels, i, j, k),
            dtype=np.dtype(values["dtype"]),
            stored_dtype=np.dtype(values["stored_dtype"]),
            map=IntensityMap.from_dict(values["map"]),
            statistics=None if values["statistics"] is None else Statistics(**values["statistics"]),
            index=values["index"],
            digest=values["digest"],
            classes={int(value): int(voxels) for value, voxels in values["classes"].items()},
        )


def identity_of(record: Mapping[str, Any]) -> str:
    """A short name for exactly this entry record, its own "id" left aside: tells an entry file from one built of other sources."""
    text = json.dumps({key: value for key, value in record.items() if key != "id"}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def volume_shape(record: Mapping[str, Any]) -> Int3:
    """(I, J, K) of an entry record."""
    i, j, k = record["shape"]
    return int(i), int(j), int(k)
