"""A stand-in for a cached entry, made of arrays: samplers need the records and indices of an entry, not the cache."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest


class PlainLabelIndex:
    """The index of a label map (C,I,J,K), by looking at every voxel."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.classes = tuple(int(value) for value in np.unique(array))

    def _voxels(self, value: int, channel: int | None) -> np.ndarray:
        voxels = np.argwhere(self.array == value)
        return voxels if channel is None else voxels[voxels[:, 0] == channel]

    def count(self, value: int, channel: int | None = None) -> int:
        return len(self._voxels(value, channel))

    def voxel(self, value: int, rank: int, channel: int | None = None) -> tuple[int, int, int, int]:
        return tuple(int(n) for n in self._voxels(value, channel)[rank])  # type: ignore[return-value]


class PlainWeightIndex:
    """The index of a weight map (1,I,J,K), by summing every voxel."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape = array.shape[1:]
        self.sums = np.cumsum(array.ravel(), dtype=np.float64)
        self.total = float(self.sums[-1])

    def voxel(self, fraction: float) -> tuple[int, int, int]:
        flat = np.searchsorted(self.sums, fraction * self.total, side="right")
        return tuple(int(n) for n in np.unravel_index(flat, self.shape))  # type: ignore[return-value]


@dataclass
class PlainEntry:
    """An entry made of arrays (C,I,J,K): integers are label maps, floats are scalar images."""

    arrays: Mapping[str, np.ndarray]
    name: str = "s1"

    @property
    def shape(self) -> tuple[int, int, int]:
        _, i, j, k = next(iter(self.arrays.values())).shape
        return i, j, k

    @property
    def images(self) -> dict[str, Any]:
        return {name: _record(array) for name, array in self.arrays.items()}

    def label_index(self, name: str) -> PlainLabelIndex:
        return PlainLabelIndex(self.arrays[name])

    def weight_index(self, name: str) -> PlainWeightIndex:
        return PlainWeightIndex(self.arrays[name])


def _record(array: np.ndarray) -> SimpleNamespace:
    if np.issubdtype(array.dtype, np.integer):
        values, counts = np.unique(array, return_counts=True)
        classes = dict(zip(values.tolist(), counts.tolist(), strict=True))
        return SimpleNamespace(kind="label", channels=len(array), classes=classes, statistics=None)
    statistics = SimpleNamespace(minimum=float(array.min()), maximum=float(array.max()))
    return SimpleNamespace(kind="scalar", channels=len(array), classes={}, statistics=statistics)


@pytest.fixture
def entry_of() -> Callable[..., PlainEntry]:
    """Makes an entry of named arrays (C,I,J,K)."""
    return lambda **arrays: PlainEntry(arrays)
