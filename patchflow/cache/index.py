"""Drawing from an image without reading it: where the voxels of a class are, and where the weight is."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping as Dict
from itertools import pairwise

import numpy as np

from patchflow.cache.storage import CheckedVector, Mapping, Voxels, checked_table
from patchflow.errors import ArgumentError, SamplerError
from patchflow.kernels.pointwise import IntensityMap, apply_map
from patchflow.kernels.runs import label_runs
from patchflow.kernels.summary import row_sums
from patchflow.types import Array, Int3


def build_label_index(labels: Array) -> dict[str, Array]:
    """The arrays of a label index of C-contiguous labels (C, I, J, K).

    Runs of equal labels in storage order are grouped by class: `starts` are their first voxels (positions in the flattened array), `ends`
    the voxels of the class up to and including each run. `first_run` and `voxels_before` (classes, C + 1) say for each class and channel
    where its runs begin and how many voxels of the class lie in the channels before.
    """
    runs = label_runs(labels)
    classes, which = np.unique(runs.values, return_inverse=True)
    kind = np.uint32 if labels.size < 2**32 else np.int64
    which = which.astype(np.min_scalar_type(len(classes)))
    order = np.argsort(which, kind="stable")  # radix sort for up to 65,536 classes
    starts, totals = runs.starts[order], np.cumsum(runs.lengths[order])
    borders = np.searchsorted(which[order], np.arange(len(classes) + 1))
    before = np.append(0, totals)[borders]
    ends = totals - np.repeat(before[:-1], np.diff(borders))
    size = labels.size // labels.shape[0]
    first_run = np.empty((len(classes), labels.shape[0] + 1), np.int64)
    for number, (low, high) in enumerate(pairwise(borders)):
        first_run[number] = low + np.searchsorted(starts[low:high], np.arange(labels.shape[0] + 1) * size)
    voxels_before = np.append(0, totals)[first_run] - before[:-1, None]
    return {
        "classes": classes.astype(np.int64),
        "first_run": first_run,
        "voxels_before": voxels_before,
        "starts": starts.astype(kind),
        "ends": ends.astype(kind),
    }


def build_weight_index(voxels: Array, intensities: IntensityMap) -> dict[str, Array]:
    """The array of a weight index of stored voxels (1, I, J, K): the running float64 sums of the values as read over rows along K."""
    sums = [row_sums(apply_map(voxels[:, i : i + 1], intensities)) for i in range(voxels.shape[1])]
    return {"cumulative": np.cumsum(np.concatenate(sums))}


def class_counts(index: Dict[str, Array]) -> dict[int, int]:
    """Voxels of each class, all channels pooled, from the arrays of a label index."""
    return dict(zip(index["classes"].tolist(), index["voxels_before"][:, -1].tolist(), strict=True))


class LabelIndex:
    """Where the voxels of each class are: counts, and the voxel of any rank by a binary search over runs.

    Attributes:
        classes: the label values that occur, ascending.
    """

    def __init__(self, mapping: Mapping, image: str, shape: tuple[int, int, int, int]) -> None:
        self._image, self._shape = image, shape
        self.classes: tuple[int, ...] = tuple(checked_table(mapping, f"{image}/index/classes").tolist())
        self._rows = {value: row for row, value in enumerate(self.classes)}
        self._first_run: list[list[int]] = checked_table(mapping, f"{image}/index/first_run").tolist()
        self._before: list[list[int]] = checked_table(mapping, f"{image}/index/voxels_before").tolist()
        self._starts = CheckedVector(mapping, f"{image}/index/starts")
        self._ends = CheckedVector(mapping, f"{image}/index/ends")

    def count(self, value: int, channel: int | None = None) -> int:
        """Voxels of a class, in one channel or (None) in all together; 0 for a class that does not occur."""
        low, high = self._channels(channel)
        row = self._rows.get(value)
        return 0 if row is None else self._before[row][high] - self._before[row][low]

    def voxel(self, value: int, rank: int, channel: int | None = None) -> tuple[int, int, int, int]:
        """The voxel (c, i, j, k) of a class with `rank` others before it in storage order, 0 <= rank < count.

        Raises:
            ArgumentError: for a rank that no voxel has, or a channel that the image has not.
        """
        count = self.count(value, channel)
        if not 0 <= rank < count:
            raise ArgumentError(f"image {self._image!r} has {count} voxels of class {value}: there is none of rank {rank}")
        row, (low, high) = self._rows[value], self._channels(channel)
        target = int(rank) + self._before[row][low]
        run = bisect_right(self._ends, target, self._first_run[row][low], self._first_run[row][high])
        before = self._ends[run - 1] if run > self._first_run[row][0] else 0
        rest, k = divmod(self._starts[run] + target - before, self._shape[3])
        rest, j = divmod(rest, self._shape[2])
        c, i = divmod(rest, self._shape[1])
        return c, i, j, k

    def _channels(self, channel: int | None) -> tuple[int, int]:
        if channel is None:
            return 0, self._shape[0]
        if not 0 <= channel < self._shape[0]:
            raise ArgumentError(f"image {self._image!r} has {self._shape[0]} channels, counted from 0: there is no channel {channel}")
        return channel, channel + 1


class WeightIndex:
    """Where the weight of an image is: the inverse of its cumulative distribution, by a binary search over rows and one row read.

    Attributes:
        total: the sum of all values as read, in float64.
    """

    def __init__(self, mapping: Mapping, image: str, voxels: Voxels, shape: tuple[int, int, int, int], intensities: IntensityMap) -> None:
        self._image, self._shape, self._voxels, self._map = image, shape, voxels, intensities
        self._cumulative = CheckedVector(mapping, f"{image}/index/cumulative")
        self.total: float = self._cumulative[len(self._cumulative) - 1]

    def voxel(self, fraction: float) -> Int3:
        """The voxel (i, j, k) at which the running sum of values, in storage order, first exceeds `fraction` of the total.

        With `fraction` uniform in [0, 1) each voxel is drawn in proportion to its value; a voxel of value 0 never is.

        Raises:
            ArgumentError: for a fraction outside [0, 1).
            SamplerError: if all values are 0.
        """
        if not 0 <= fraction < 1:
            raise ArgumentError(f"the fraction must be in [0, 1), not {fraction!r}")
        if not self.total > 0:
            raise SamplerError(f"every value of image {self._image!r} is 0: no voxel can be drawn in proportion to it")
        target = fraction * self.total
        row = bisect_right(self._cumulative, target)
        if row == len(self._cumulative):  # the product was rounded up to the total
            row = bisect_left(self._cumulative, self.total)
        i, j = divmod(row, self._shape[2])
        weights = np.empty((1, 1, 1, self._shape[3]), np.float32)
        self._voxels.copy((i, j, 0), (i + 1, j + 1, self._shape[3]), weights, self._map)
        sums = np.cumsum(weights, dtype=np.float64)
        k = int(np.searchsorted(sums, target - (self._cumulative[row - 1] if row else 0.0), side="right"))
        if k == len(sums):  # what the running sum over rows lost to rounding
            k = int(np.flatnonzero(weights.ravel())[-1])
        return i, j, k
