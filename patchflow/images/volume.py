"""An image's voxels in memory, and the checks that every source of voxels shares."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from patchflow.errors import ArgumentError, ImageError
from patchflow.kernels.pointwise import IntensityMap, apply_map
from patchflow.types import Affine, Array, Int3

Kind = Literal["scalar", "label"]

_LEAST_DETERMINANT = 1e-6


@dataclass(frozen=True, eq=False)
class Volume:
    """An image's voxels as stored, and what turns them into values.

    Attributes:
        array: (C, I, J, K), C-contiguous, in the byte order of the machine. A scalar image keeps the dtype of its source (also when the
            source is scaled: the scaling is in `map`); a label map is uint8, int8, int16, int32 or int64. It may share memory with the
            array that an image was made from, and is then read-only.
        affine: 4x4 float64, voxel index (I, J, K) to RAS+ millimetres.
        kind: "scalar" or "label".
        map: from stored voxels to values; the identity for label maps.
        source: where the voxels come from, for messages: a path, or that it is an array.
    """

    array: Array
    affine: Affine
    kind: Kind
    map: IntensityMap = field(default_factory=IntensityMap)
    source: str = "array"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, I, J, K)."""
        c, i, j, k = self.array.shape
        return c, i, j, k

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.array)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values as read: float32 for a scalar image, the labels' own for a label map."""
        return self.array.dtype if self.kind == "label" else np.dtype(np.float32)

    @property
    def spatial_shape(self) -> Int3:
        """(I, J, K)."""
        return self.shape[1], self.shape[2], self.shape[3]

    def values(self) -> Array:
        """The values as read (C, I, J, K): float32 in an array of its own for a scalar image, `array` itself for a label map."""
        return self.array if self.kind == "label" else apply_map(self.array, self.map)


def as_array(source: Any) -> Array:
    """An array or tensor as an array of the machine's byte order, sharing memory where it can.

    Types that files and kernels lack are widened, exactly: bool to uint8, float16 and bfloat16 to float32.

    Raises:
        ArgumentError: for anything else than an array or tensor.
        ImageError: for voxels that are not integers or floats of at most 64 bits.
    """
    if hasattr(source, "detach"):
        source = source.detach().cpu()
        source = (source.float() if str(source.dtype) == "torch.bfloat16" else source).numpy()
    if not isinstance(source, np.ndarray):
        raise ArgumentError(f"voxels must be an array or a tensor, not {type(source).__name__}")
    if source.dtype.kind not in "biuf" or source.dtype.itemsize > 8:
        raise ImageError(f"voxels must be integers or floats of at most 64 bits, not {source.dtype}")
    widened: dict[Any, Any] = {np.dtype(np.float16): np.dtype(np.float32), np.dtype(np.bool_): np.dtype(np.uint8)}
    native = source.dtype.newbyteorder("=")
    array: Array = source.astype(widened.get(native, native), copy=False)
    return array


def checked_affine(affine: object, what: str) -> Affine:
    """A copy of `affine` as 4x4 float64, if it places voxels in space.

    Args:
        affine: 4x4, voxel index to RAS+ millimetres.
        what: the image or file, for the error.

    Raises:
        ImageError: for another shape, a number that is not finite, another last row than 0 0 0 1, or a singular matrix.
    """
    try:
        matrix = np.array(affine, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ImageError(f"{what}: the affine must be 4x4 numbers, not {affine!r}") from error
    if matrix.shape != (4, 4):
        raise ImageError(f"{what}: the affine must be 4x4, not of shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ImageError(f"{what}: the affine holds numbers that are not finite: {matrix.tolist()}; set it right in the source")
    if (matrix[3] != (0, 0, 0, 1)).any():
        raise ImageError(f"{what}: the last row of the affine must be 0 0 0 1, not {matrix[3].tolist()}")
    with np.errstate(all="ignore"):  # of numbers whose square is not finite, the determinant is not either
        determinant = abs(np.linalg.det(matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)))
    if not determinant >= _LEAST_DETERMINANT:
        raise ImageError(
            f"{what}: the affine is singular, so that voxels have no place of their own: {matrix[:3].tolist()}; "
            "set the spacing and directions right in the source"
        )
    return matrix
