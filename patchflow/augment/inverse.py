"""Taking a spatial map back: what was predicted for an augmented patch, on the voxels as they lie in the volume."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from patchflow.errors import TransformError
from patchflow.geometry.location import PatchLocation
from patchflow.geometry.maps import AffineStage, ElasticStage, SpatialMap
from patchflow.kernels.plain_resample import displaced

_CLOSE = 1e-4
"""Voxels: how near an inverted point has to come to where it belongs."""
_STEPS = 200


def bring_back(
    prediction: torch.Tensor, source: SpatialMap, location: PatchLocation, interpolation: Literal["linear", "nearest"], fill: float
) -> torch.Tensor:
    """Read a prediction for an augmented patch at each voxel of the patch as it lies in the volume.

    Args:
        prediction: (C, i, j, k) of `location` in the augmented space, any device.
        source: output voxel to source voxel, by which the patch was augmented; coarse stages, which move nothing, are passed over.
        location: the patch.
        interpolation: "linear", or "nearest" for labels.
        fill: for voxels that the augmented patch does not show.

    Returns:
        (C, i, j, k) of `location`, in the prediction's dtype.
    """
    points = inverted(source, location, prediction.device)
    size = torch.tensor(location.size, dtype=torch.float64, device=prediction.device)[:, None, None, None]
    start = torch.tensor(location.start, dtype=torch.float64, device=prediction.device)[:, None, None, None]
    relative = points - start
    inside = ((relative >= -0.5) & (relative < size - 0.5)).all(dim=0)
    scaled = torch.where(size > 1, 2 * relative / (size - 1).clamp(min=1) - 1, torch.zeros_like(relative))
    grid = scaled.flip(0).movedim(0, -1)[None]  # grid_sample takes K first
    mode = "bilinear" if interpolation == "linear" else "nearest"
    values = F.grid_sample(prediction[None].double(), grid, mode, padding_mode="border", align_corners=True)[0]
    return torch.where(inside, values, torch.full((), fill, dtype=values.dtype, device=values.device)).to(prediction.dtype)


def inverted(source: SpatialMap, location: PatchLocation, device: torch.device | str = "cpu") -> torch.Tensor:
    """The output point whose source is each voxel of `location`: float64 (3, i, j, k), in voxels.

    An elastic stage is inverted by the fixed-point iteration y <- x - displacement(y), relaxed where it does not settle.

    Raises:
        TransformError: for an affine stage that has no inverse, or an elastic one whose iteration does not settle.
    """
    axes = [torch.arange(a, b, dtype=torch.float64, device=device) for a, b in zip(location.start, location.stop, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    for stage in reversed(source.stages):
        if isinstance(stage, AffineStage):
            if abs(np.linalg.det(stage.matrix)) < 1e-12:
                raise TransformError(f"the map {stage.matrix.tolist()} flattens the volume and cannot be inverted")
            back = torch.from_numpy(np.linalg.inv(stage.matrix)).to(points)
            points = torch.einsum("ab,b...->a...", back[:3, :3], points) + back[:3, 3, None, None, None]
        elif isinstance(stage, ElasticStage):
            points = _undisplaced(stage, points)
    return points


def _undisplaced(stage: ElasticStage, points: torch.Tensor) -> torch.Tensor:
    before, step, last = points - displacement(stage, points), 1.0, float("inf")
    for _ in range(_STEPS):
        wrong = before + displacement(stage, before) - points
        worst = float(wrong.abs().max())
        if worst < _CLOSE:
            return before
        step = step if worst < last else max(step * 0.7, 0.2)
        before, last = before - step * wrong, worst
    raise TransformError(f"the inverse of an elastic map of amplitude {stage.amplitude} did not settle: {worst:.2g} voxels remain")


def displacement(stage: ElasticStage, points: torch.Tensor) -> torch.Tensor:
    """The displacement at points (3, ...), in voxels."""
    low, high = (bound(points.flatten(1), dim=1).values.cpu().numpy() for bound in (torch.min, torch.max))
    moved = displaced(stage, list(points), low, high, separable=False)
    return torch.stack(moved) - points
