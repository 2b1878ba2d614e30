"""Displacement fields of an elastic map: random control points of a lattice without end, and the cubic B-spline over them.

A control point's displacement is a function of the key and of its place in the lattice (Philox4x32-10, Salmon et al., SC 2011; see
`kernels/noise.py`), so that every patch of a volume sees the same field. Between control points the field is the tensor product of uniform
cubic B-splines (Rueckert et al., "Nonrigid registration using free-form deformations", IEEE TMI 18, 1999).
"""

import numpy as np
import numpy.typing as npt
import torch

from patchflow.geometry.maps import ElasticStage
from patchflow.kernels.jit import inlined, kernel
from patchflow.kernels.noise import philox, plain_philox
from patchflow.types import Array, Int3

FOLD_BOUND = 2.479472335
"""No fold where every |displacement| of a control point is below spacing / FOLD_BOUND along each axis: the map is then one to one.

Source: Choi and Lee, "Injectivity conditions of 2D and 3D uniform cubic B-spline functions", Graphical Models 62, 2000.
"""

_WORD = 0x656C6173  # the last counter word: another stream than that of noise, which has a channel there
_u = np.uint64
_MASK = _u(0xFFFFFFFF)


def control_points(stage: ElasticStage, low: Int3, high: Int3) -> npt.NDArray[np.float64]:
    """The displacements of the control points `low` (in) to `high` (one past the last) of an elastic stage's lattice.

    Args:
        stage: gives key and amplitude.
        low, high: places in the lattice, may be negative; a place has the same values whatever the box around it.

    Returns:
        float64 (3, a, b, c), in voxels: the displacement along I, J and K, uniform in [-amplitude, amplitude].
    """
    size = [stop - start for start, stop in zip(low, high, strict=True)]
    points = np.empty((3, *size))
    _control_points(points, low, _u(stage.key & 0xFFFFFFFF), _u(stage.key >> 32), stage.amplitude)
    return points


def plain_control_points(stage: ElasticStage, low: Int3, high: Int3, device: torch.device | str = "cpu") -> torch.Tensor:
    """What `control_points` computes, bit for bit, on any device."""
    axes = [torch.arange(a, b, device=device) & 0xFFFFFFFF for a, b in zip(low, high, strict=True)]
    i, j, k = torch.meshgrid(*axes, indexing="ij")
    words = torch.stack(plain_philox(i, j, k, torch.full_like(i, _WORD), stage.key)[:3])
    amplitude = torch.tensor(stage.amplitude, dtype=torch.float64).to(device)
    return ((words.double() + 0.5) * 2.0**-31 - 1) * amplitude[:, None, None, None]


def plain_spline_weights(t: torch.Tensor) -> torch.Tensor:
    """The four weights of a uniform cubic B-spline at 0 <= t < 1 between the second and third of four points: a new first axis."""
    s = 1 - t
    return torch.stack([s * s * s, (3 * t - 6) * t * t + 4, (3 * s - 6) * s * s + 4, t * t * t]) * (1 / 6)


@inlined
def spline_weights(t):  # type: ignore[no-untyped-def]
    """The four weights of a uniform cubic B-spline at 0 <= t < 1 between the second and third of four points."""
    s = 1 - t
    sixth = 1 / 6
    return s * s * s * sixth, ((3 * t - 6) * t * t + 4) * sixth, ((3 * s - 6) * s * s + 4) * sixth, t * t * t * sixth


@kernel
def _control_points(points: Array, low: Int3, k0: np.uint64, k1: np.uint64, amplitude: tuple[float, float, float]) -> None:
    scale = 2.0**-31
    for i in range(points.shape[1]):
        for j in range(points.shape[2]):
            one, two = _u(low[0] + i) & _MASK, _u(low[1] + j) & _MASK
            for k in range(points.shape[3]):
                x, y, z, _ = philox(one, two, _u(low[2] + k) & _MASK, _u(_WORD), k0, k1)
                points[0, i, j, k] = ((np.float64(x) + 0.5) * scale - 1) * amplitude[0]
                points[1, i, j, k] = ((np.float64(y) + 0.5) * scale - 1) * amplitude[1]
                points[2, i, j, k] = ((np.float64(z) + 0.5) * scale - 1) * amplitude[2]
