"""Source points of a patch, a row at a time: what the stages of a spatial map do to the voxels of a row.

Coordinates are float64 and summed in one fixed order, so that a voxel has the same source point bit for bit whatever the patch it is
computed for. `plain_points.py` holds the twin.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation
from patchflow.geometry.maps import AffineStage, CoarseStage, ElasticStage, SpatialMap, Stage
from patchflow.kernels.displacement import control_points, plain_spline_weights, spline_weights
from patchflow.kernels.jit import kernel
from patchflow.kernels.registers import sum_of_sixteen
from patchflow.types import Array, Int3

CHUNK = 128
"""Voxels of a row that are worked on at a time: scratch arrays of known strides, small enough for the first cache."""

_AFFINE, _ELASTIC, _ELASTIC_ALONG_ROWS, _COARSE = range(4)
_MOST_POINTS = 2**25  # control points of one patch: 768 MiB


class Program(NamedTuple):
    """The stages of a map in plain arrays, with the control points that one patch needs."""

    kinds: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.float64]
    lattices: npt.NDArray[np.float64]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    length: int
    """Voxels of the patch along K."""
    planes: npt.NDArray[np.float64]
    stamps: npt.NDArray[np.float64]
    """Room for what rows of an elastic stage share: see `_elastic_along_row`."""


def lattice_box(stage: ElasticStage, low: Array, high: Array) -> tuple[Int3, Int3]:
    """The control points that the points of a box need: first, and one past the last.

    Raises:
        ArgumentError: where they are too many to hold.
    """
    ends = []
    for points, shift in ((low, -1), (high, 3)):
        places = np.floor((points - np.asarray(stage.origin)) / np.asarray(stage.spacing))
        ends.append([int(place) + shift for place in places])
    if max(abs(place) for place in (*ends[0], *ends[1])) >= 2**31:
        raise ArgumentError(f"the patch needs control points {ends[0]} to {ends[1]}, too far from the first: a lattice goes to 2^31")
    if math.prod(stop - start for start, stop in zip(*ends, strict=True)) > _MOST_POINTS:
        raise ArgumentError(f"the patch needs control points {ends[0]} to {ends[1]}, too many to hold: widen the spacing {stage.spacing}")
    return (ends[0][0], ends[0][1], ends[0][2]), (ends[1][0], ends[1][1], ends[1][2])


def program(source: SpatialMap, location: PatchLocation) -> Program:
    """The stages of `source` as the kernels take them, for the voxels of `location`."""
    stages = source.stages or (AffineStage(np.eye(4)),)
    count = len(stages)
    kinds, numbers = np.empty(count, np.int64), np.zeros((count, 12))
    starts, sizes, lattices = np.zeros((count, 4), np.int64), np.zeros((count, 3), np.int64), [np.zeros(0)]
    low, high, held = np.array(location.start, np.float64), np.array(location.stop, np.float64) - 1, 0
    for s, stage in enumerate(stages):
        if isinstance(stage, AffineStage):
            kinds[s], numbers[s] = _AFFINE, stage.matrix[:3].reshape(-1)
        elif isinstance(stage, CoarseStage):
            kinds[s], numbers[s, :3] = _COARSE, (stage.axis, stage.step, stage.origin)
        else:
            kinds[s] = _ELASTIC_ALONG_ROWS if along_rows(stages[:s]) else _ELASTIC
            first, stop = lattice_box(stage, low, high)
            points = control_points(stage, first, stop)
            if kinds[s] == _ELASTIC_ALONG_ROWS:
                held_points = _spread(stage, points, first, stages[:s], location)
            else:
                held_points = np.ascontiguousarray(np.moveaxis(points, 0, 2))
            numbers[s, :6] = (*stage.origin, *stage.spacing)
            starts[s], sizes[s] = (*first, held), points.shape[1:]
            lattices.append(held_points.reshape(-1))
            held += held_points.size
        low, high = stage.bounds(low, high)
    rows = max([0, *sizes[kinds == _ELASTIC_ALONG_ROWS, 1]])  # at most one stage is of that kind
    planes, stamps = np.empty(rows * 3 * CHUNK), np.full(2 * rows, np.nan)
    return Program(kinds, numbers, np.concatenate(lattices), starts, sizes, location.size[2], planes, stamps)


def _spread(stage: ElasticStage, points: Array, first: Int3, before: tuple[Stage, ...], location: PatchLocation) -> Array:
    """The control points (3, a, b, c) blended along their last axis, for each voxel k of a row: (a, b, 3, k)."""
    factor, shift = (before[0].matrix[2, 2], before[0].matrix[2, 3]) if before and isinstance(before[0], AffineStage) else (1.0, 0.0)
    place = ((shift + factor * np.arange(location.start[2], location.stop[2])) - stage.origin[2]) / stage.spacing[2]
    whole = np.floor(place)
    cells, weights = whole.astype(np.int64) - 1 - first[2], plain_spline_weights(torch.from_numpy(place - whole)).numpy()
    if points.shape[1] * points.shape[2] * place.size > _MOST_POINTS:
        raise ArgumentError(f"the patch of size {location.size} is too large for an elastic map of spacing {stage.spacing}")
    rows = np.moveaxis(points, 0, 2)
    spread: Array = sum(weight * rows[..., cells + n] for n, weight in enumerate(weights))
    return np.ascontiguousarray(spread)


def along_rows(stages: tuple[Stage, ...]) -> bool:
    """Whether these stages leave the rows of a patch along the last axis of the lattice, each with the same coordinates there."""
    if not stages:
        return True
    first = stages[0]
    if len(stages) > 1 or not isinstance(first, AffineStage):
        return False
    matrix = first.matrix
    return not (matrix[0, 2] or matrix[1, 2] or matrix[2, 0] or matrix[2, 1])


@kernel
def _affine(numbers, points, count):  # type: ignore[no-untyped-def]
    m = numbers
    for q in range(count):
        x, y, z = points[q], points[CHUNK + q], points[2 * CHUNK + q]
        points[q] = ((m[0] * x + m[1] * y) + m[3]) + m[2] * z
        points[CHUNK + q] = ((m[4] * x + m[5] * y) + m[7]) + m[6] * z
        points[2 * CHUNK + q] = ((m[8] * x + m[9] * y) + m[11]) + m[10] * z


@kernel
def affine_base(numbers, i, j):  # type: ignore[no-untyped-def]
    """Of the row (i, j) through an affine first stage: the sum up to the term in k for each coordinate, and that term's factor."""
    m = numbers[0]
    base = (m[0] * i + m[1] * j) + m[3], (m[4] * i + m[5] * j) + m[7], (m[8] * i + m[9] * j) + m[11]
    return base, (m[2], m[6], m[10])


@kernel
def _affine_first(numbers, i, j, k, points, count):  # type: ignore[no-untyped-def]
    base, slope = affine_base(numbers, i, j)
    for q in range(count):
        at = np.float64(np.int32(k + q))
        points[q] = base[0] + slope[0] * at
        points[CHUNK + q] = base[1] + slope[1] * at
        points[2 * CHUNK + q] = base[2] + slope[2] * at


@kernel
def _rows(i, j, k, points, count):  # type: ignore[no-untyped-def]
    for q in range(count):
        points[q] = i
        points[CHUNK + q] = j
        points[2 * CHUNK + q] = np.float64(np.int32(k + q))


@kernel
def _cell(place, start, size):  # type: ignore[no-untyped-def]
    """The first of the four control points around a place in the lattice, counted from those at hand; and how far into its cell it lies."""
    whole = np.floor(place)
    return min(max(np.int64(np.int32(whole)) - 1 - start, 0), size - 4), place - whole


@kernel
def _elastic(numbers, lattice, start, size, points, taps, count):  # type: ignore[no-untyped-def]
    """The full 64 taps, for points anywhere: first the weights of all, then the sums of one after the other."""
    for axis in range(3):
        origin, spacing = numbers[axis], numbers[3 + axis]
        stride = np.float64(3 * size[2] * size[1] if axis == 0 else 3 * size[2] if axis == 1 else 1)
        least, most = np.float64(start[axis] + 1), np.float64(start[axis] + size[axis] - 3)
        weights, along, ways = taps[4 * axis * CHUNK :], points[axis * CHUNK :], taps[(12 + axis) * CHUNK :]
        for q in range(count):
            place = (along[q] - origin) / spacing
            whole = np.floor(place)
            w0, w1, w2, w3 = spline_weights(place - whole)
            weights[q] = w0
            weights[CHUNK + q] = w1
            weights[2 * CHUNK + q] = w2
            weights[3 * CHUNK + q] = w3
            ways[q] = (min(max(whole, least), most) - least) * stride
    row, plane = np.uint64(3 * size[2]), np.uint64(3 * size[2] * size[1])
    for q in range(count):
        first = np.uint64(taps[12 * CHUNK + q] + taps[13 * CHUNK + q] + taps[14 * CHUNK + q])
        along = taps[q], taps[CHUNK + q], taps[2 * CHUNK + q], taps[3 * CHUNK + q]
        across = taps[4 * CHUNK + q], taps[5 * CHUNK + q], taps[6 * CHUNK + q], taps[7 * CHUNK + q]
        w0, w1, w2, w3 = taps[8 * CHUNK + q], taps[9 * CHUNK + q], taps[10 * CHUNK + q], taps[11 * CHUNK + q]
        for axis in range(3):
            s0, s1, s2, s3 = sum_of_sixteen(lattice, first + np.uint64(axis * size[2]), plane, row, along, across)
            points[axis * CHUNK + q] += (w0 * s0 + w1 * s1) + (w2 * s2 + w3 * s3)


@kernel
def _elastic_along_row(numbers, spread, start, size, points, k, length, count, planes, stamps):  # type: ignore[no-untyped-def]
    """A row along the lattice's last axis, along which the control points are already blended: four rows of a plane, each of four others.

    `planes` keeps the latest of those rows, and `stamps` for which I and K they were made: neighbouring rows of a patch share them.
    """
    x = points[0]
    a, t = _cell((x - numbers[0]) / numbers[3], start[0], size[0])
    b, u = _cell((points[CHUNK] - numbers[1]) / numbers[4], start[1], size[1])
    plane = np.uint64(3 * length * size[1])
    w0, w1, w2, w3 = spline_weights(t)
    for n in range(b, b + 4):
        if stamps[2 * n] == x and stamps[2 * n + 1] == k:
            continue
        stamps[2 * n], stamps[2 * n + 1] = x, k
        for axis in range(3):
            first, row = np.uint64(start[3] + ((a * size[1] + n) * 3 + axis) * length + k), planes[(3 * n + axis) * CHUNK :]
            for q in range(count):
                at = first + np.uint64(q)
                one, two = (
                    w0 * spread[at] + w1 * spread[at + plane],
                    w2 * spread[at + plane + plane] + w3 * spread[at + plane + plane + plane],
                )
                row[q] = one + two
    w0, w1, w2, w3 = spline_weights(u)
    for axis in range(3):
        along, first, step = points[axis * CHUNK : axis * CHUNK + count], np.uint64((3 * b + axis) * CHUNK), np.uint64(3 * CHUNK)
        for q in range(count):
            at = first + np.uint64(q)
            along[q] += (w0 * planes[at] + w1 * planes[at + step]) + (w2 * planes[at + step + step] + w3 * planes[at + step + step + step])


@kernel
def _coarse(numbers, upper, points, weights, count):  # type: ignore[no-untyped-def]
    """To the sample below (`upper` 0) or above (1), whose weight is taken into account; or to the nearer one (-1)."""
    axis, step, origin = np.int64(numbers[0]), numbers[1], numbers[2]
    row = points[axis * CHUNK : axis * CHUNK + count]
    for q in range(count):
        place = (row[q] - origin) / step
        below = np.floor(place)
        if upper < 0:
            row[q] = origin + step * np.floor(place + 0.5)
        elif upper == 0:
            row[q] = origin + step * below
            weights[q] *= 1 - (place - below)
        else:
            row[q] = origin + step * (below + 1)
            weights[q] *= place - below


@kernel
def row_points(stages, i, j, k, choice, first, points, scratch, count):  # type: ignore[no-untyped-def]
    """The source points of the voxels (i, j, k) to (i, j, k + count - 1), count <= CHUNK.

    Args:
        stages: a `Program`.
        i, j, k: the first voxel.
        choice: bit n says which sample the nth coarse stage takes, 0 the lower and 1 the upper; -1 for the nearer one of all.
        first: the patch's first voxel along K.
        points: float64 (3 CHUNK,), filled: I, J and K coordinates one after the other.
        scratch: float64 (16 CHUNK,); its last CHUNK are filled with the product of the weights of the samples taken.
        count: voxels.
    """
    kinds, numbers, lattices, starts, sizes, length, planes, stamps = stages
    weights = scratch[15 * CHUNK :]
    if kinds[0] == _AFFINE:
        _affine_first(numbers, i, j, k, points, count)
    else:
        _rows(i, j, k, points, count)
    if choice >= 0:
        weights[:count] = 1.0
    coarse = 0
    for s in range(kinds.size):
        if kinds[s] == _AFFINE:
            if s:
                _affine(numbers[s], points, count)
        elif kinds[s] == _ELASTIC:
            _elastic(numbers[s], lattices[starts[s, 3] :], starts[s], sizes[s], points, scratch, count)
        elif kinds[s] == _ELASTIC_ALONG_ROWS:
            _elastic_along_row(numbers[s], lattices, starts[s], sizes[s], points, k - first, length, count, planes, stamps)
        else:
            _coarse(numbers[s], -1 if choice < 0 else (choice >> coarse) & 1, points, weights, count)
            coarse += 1
