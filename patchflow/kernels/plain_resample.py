"""The plain twin of `resample`, in torch on any device: what runs on a GPU, and what the kernels are tested against.

Nothing here waits for the device, loops over voxels or looks at labels by value; temporaries are a few arrays of the patch's size.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from patchflow.geometry.location import Outside, PatchLocation
from patchflow.geometry.maps import AffineStage, CoarseStage, ElasticStage, SpatialMap
from patchflow.kernels.box import Box, Interpolation
from patchflow.kernels.displacement import control_points, plain_spline_weights
from patchflow.kernels.points import along_rows, lattice_box
from patchflow.types import Array, Int3

Points = list[torch.Tensor]
"""Coordinates along I, J and K, float64, that broadcast to the patch's size."""


def source_points(source: SpatialMap, location: PatchLocation, device: torch.device | str = "cpu") -> torch.Tensor:
    """The source point of each voxel of `location`: float64 (3, i, j, k), in voxels; of coarse stages the nearer sample."""
    (points, _), *_ = _readings(source, location, torch.device(device), nearer=True)
    return torch.stack([point.expand(location.size) for point in points])


def plain_resample(
    region: torch.Tensor,
    box: Box,
    shape: Int3,
    source: SpatialMap,
    location: PatchLocation,
    fill: float,
    outside: Outside = "constant",
    interpolation: Interpolation = "linear",
    *,
    labels: bool = False,
) -> torch.Tensor:
    """What `resample` computes, on any device.

    Args:
        region: (C, i, j, k) voxels of `box`: values as read, or labels.
        box, shape, source, location, fill, outside, interpolation: as in `resample`.
        labels: the region holds labels.

    Returns:
        (C, i, j, k) of the location's size on the region's device: float32, or the region's dtype for labels.
    """
    nearest = interpolation == "nearest"
    readings = _readings(source, location, region.device, nearer=nearest or labels)
    if labels or nearest:
        points, _ = next(readings)
        points = [_folded(point, n, outside) for point, n in zip(points, shape, strict=True)]
        if nearest:
            found = _corner(region, box, shape, [torch.floor(point + 0.5).long() for point in points], fill)
        else:
            found = _voted(region, box, shape, points, fill)
        return found.expand(region.shape[0], *location.size)  # of a map that does not move along an axis there is one voxel
    values = region.double()
    if interpolation == "cubic":
        values = _plain_coefficients(values)
    total = torch.zeros((), dtype=torch.float64, device=region.device)
    for points, weight in readings:
        read = _linear if interpolation == "linear" else _cubic
        total = total + weight * read(values, box, shape, points, fill, outside)
    return total.float().expand(region.shape[0], *location.size)


def _readings(source: SpatialMap, location: PatchLocation, device: torch.device, *, nearer: bool) -> Iterator[tuple[Points, torch.Tensor]]:
    """The points and their weights for each choice of samples of the coarse stages."""
    count = 0 if nearer else sum(isinstance(stage, CoarseStage) for stage in source.stages)
    for choice in itertools.product((0, 1), repeat=count):
        uppers = iter(choice)
        points = _grid(location, device)
        weight = torch.ones((), dtype=torch.float64, device=device)
        low, high = np.array(location.start, np.float64), np.array(location.stop, np.float64) - 1
        for n, stage in enumerate(source.stages):
            if isinstance(stage, AffineStage):
                points = [_affine(row, points) for row in stage.matrix[:3].tolist()]
            elif isinstance(stage, ElasticStage):
                points = displaced(stage, points, low, high, separable=along_rows(source.stages[:n]))
            else:
                points, factor = _coarse(stage, points, None if nearer else next(uppers))
                weight = weight * factor
            low, high = stage.bounds(low, high)
        yield points, weight


def _grid(location: PatchLocation, device: torch.device) -> Points:
    i, j, k = (torch.arange(a, b, dtype=torch.float64, device=device) for a, b in zip(location.start, location.stop, strict=True))
    return [i[:, None, None], j[None, :, None], k[None, None, :]]


def _affine(row: list[float], points: Points) -> torch.Tensor:
    """((m0 i + m1 j) + m3) + m2 k, without the terms that are 0: coordinates of a row keep to their axis where they can."""
    total = torch.zeros(1, 1, 1, dtype=torch.float64, device=points[0].device)
    for factor, point in ((row[0], points[0]), (row[1], points[1])):
        total = total + factor * point if factor else total
    total = total + row[3]
    return total + row[2] * points[2] if row[2] else total


def displaced(stage: ElasticStage, points: Points, low: Array, high: Array, *, separable: bool) -> Points:
    """Points, all between `low` and `high`, moved by the displacement there; `separable` is quicker, for rows along the lattice."""
    first, stop = lattice_box(stage, low, high)
    device = points[0].device
    lattice = torch.from_numpy(control_points(stage, first, stop)).to(device)
    cells, weights = [], []
    for point, origin, spacing, start in zip(points, stage.origin, stage.spacing, first, strict=True):
        place = (point - origin) / spacing
        whole = torch.floor(place)
        cells.append(whole.long() - 1 - start)
        weights.append(plain_spline_weights(place - whole))
    size = lattice.shape[1:]
    own_axis = [point.shape[axis] == point.numel() for axis, point in enumerate(points)]
    if separable and all(own_axis):  # one coordinate per axis: a product of three matrices
        matrices = []
        for cell, weight, n in zip(cells, weights, size, strict=True):
            matrix = torch.zeros(cell.numel(), n, dtype=torch.float64, device=device)
            places = torch.stack([cell.reshape(-1) + d for d in range(4)], dim=1)
            matrices.append(matrix.scatter_(1, places, weight.reshape(4, -1).T))
        displacements = torch.einsum("ia,jb,kc,xabc->xijk", *matrices, lattice)
    else:
        flat = lattice.reshape(3, -1)
        displacements = torch.zeros((), dtype=torch.float64, device=device)
        for a, b, c in itertools.product(range(4), repeat=3):
            at = ((cells[0] + a) * size[1] + cells[1] + b) * size[2] + cells[2] + c
            displacements = displacements + weights[0][a] * weights[1][b] * weights[2][c] * flat[:, at]
    return [point + displacement for point, displacement in zip(points, displacements, strict=True)]


def _coarse(stage: CoarseStage, points: Points, upper: int | None) -> tuple[Points, torch.Tensor | float]:
    place = (points[stage.axis] - stage.origin) / stage.step
    below = torch.floor(place if upper is not None else place + 0.5)
    moved = list(points)
    moved[stage.axis] = stage.origin + stage.step * (below + (upper or 0))
    if upper is None:
        return moved, 1.0
    return moved, place - below if upper else 1 - (place - below)


def _folded(x: torch.Tensor, n: int, outside: Outside) -> torch.Tensor:
    """Coordinates beyond the border of an axis of n voxels, brought back to 0 <= x <= n - 1."""
    if outside == "constant":
        return x
    if outside == "reflect" and n > 1:
        back = x.abs()
        back = back - 2.0 * (n - 1) * torch.floor(back / (2.0 * (n - 1)))
        back = torch.minimum(back, 2.0 * (n - 1) - back)
        x = torch.where((x >= 0) & (x <= n - 1), x, back)
    return x.clamp(0, n - 1)


def _corner(region: torch.Tensor, box: Box, shape: Int3, voxels: Sequence[torch.Tensor], fill: float) -> torch.Tensor:
    inside = torch.ones((), dtype=torch.bool, device=region.device)
    offset = torch.zeros((), dtype=torch.int64, device=region.device)
    for voxel, start, stop, n in zip(voxels, box.start, box.stop, shape, strict=True):
        inside = inside & (voxel >= 0) & (voxel < n)
        offset = offset * (stop - start) + voxel.clamp(start, stop - 1) - start
    values = region.reshape(region.shape[0], -1)[:, offset]
    filled: torch.Tensor = torch.where(inside, values, torch.full((), fill, dtype=region.dtype, device=region.device))
    return filled


def _split(points: Points) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    floors = [torch.floor(point) for point in points]
    return [floor.long() for floor in floors], [point - floor for point, floor in zip(points, floors, strict=True)]


def _linear(values: torch.Tensor, box: Box, shape: Int3, points: Points, fill: float, outside: Outside) -> torch.Tensor:
    points = [_folded(point, n, outside) for point, n in zip(points, shape, strict=True)]
    (x, y, z), (tx, ty, tz) = _split(points)
    planes = []
    for dx in (0, 1):
        rows = []
        for dy in (0, 1):
            low, high = (_corner(values, box, shape, [x + dx, y + dy, z + dz], fill) for dz in (0, 1))
            rows.append(low + tz * (high - low))
        planes.append(rows[0] + ty * (rows[1] - rows[0]))
    blended: torch.Tensor = planes[0] + tx * (planes[1] - planes[0])
    return blended


def _voted(region: torch.Tensor, box: Box, shape: Int3, points: Points, fill: float) -> torch.Tensor:
    """The label of most weight; ties go to the nearest voxel's label, else to the lowest."""
    (x, y, z), fractions = _split(points)
    ends = [(1 - t, t) for t in fractions]
    corners = list(itertools.product((0, 1), repeat=3))
    labels = [_corner(region, box, shape, [x + dx, y + dy, z + dz], fill) for dx, dy, dz in corners]
    weights = [ends[0][dx] * ends[1][dy] * ends[2][dz] for dx, dy, dz in corners]
    nearest = _corner(region, box, shape, [voxel + (t >= 0.5) for voxel, t in zip((x, y, z), fractions, strict=True)], fill)
    best, most = nearest, torch.full((), -1.0, dtype=torch.float64, device=region.device)
    for label in labels:
        total = torch.zeros((), dtype=torch.float64, device=region.device)
        for other, weight in zip(labels, weights, strict=True):
            total = total + weight * (other == label)
        better = (total > most) | ((total == most) & (best != nearest) & ((label == nearest) | (label < best)))
        best, most = torch.where(better, label, best), torch.where(better, total, most)
    return best


def _plain_coefficients(values: torch.Tensor) -> torch.Tensor:
    """Solves for the coefficients whose spline, mirrored at both ends, has the values at the voxels; along each axis in turn."""
    for axis in (1, 2, 3):
        n = values.shape[axis]
        if n > 1:
            matrix = np.diag(np.full(n, 4.0)) + np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)
            matrix[0, 1] = matrix[n - 1, n - 2] = 2.0
            inverse = torch.from_numpy(np.linalg.inv(matrix) * 6).to(values.device)
            values = torch.tensordot(inverse, values, dims=([1], [axis])).movedim(0, axis)
    return values


def _cubic(values: torch.Tensor, box: Box, shape: Int3, points: Points, fill: float, outside: Outside) -> torch.Tensor:
    inside = torch.ones((), dtype=torch.bool, device=values.device)
    for point, n in zip(points, shape, strict=True):
        inside = inside & (point + 0.5 >= 0) & (point + 0.5 < n)
    points = [_folded(point, n, "border" if outside == "border" else "reflect") for point, n in zip(points, shape, strict=True)]
    cells, fractions = _split(points)
    weights = [plain_spline_weights(t) for t in fractions]
    flat = values.reshape(values.shape[0], -1)
    total = torch.zeros((), dtype=torch.float64, device=values.device)
    for taps in itertools.product(range(4), repeat=3):
        offset = torch.zeros((), dtype=torch.int64, device=values.device)
        for cell, tap, start, stop in zip(cells, taps, box.start, box.stop, strict=True):
            n = stop - start
            place = (cell - 1 + tap - start).abs()
            place = torch.minimum(place, 2 * (n - 1) - place).clamp(0, n - 1)
            offset = offset * n + place
        total = total + weights[0][taps[0]] * weights[1][taps[1]] * weights[2][taps[2]] * flat[:, offset]
    return total if outside != "constant" else torch.where(inside, total, torch.full((), fill, dtype=torch.float64, device=values.device))
