"""Patches from everywhere in a volume with equal probability."""

from typing import TYPE_CHECKING

import numpy as np

from patchflow.geometry.location import PatchLocation
from patchflow.sampling.base import Sampler, uniform_location

if TYPE_CHECKING:
    from patchflow.cache import Entry


class UniformSampler(Sampler):
    """Draws every patch that lies in the volume with equal probability.

    Distribution: for a patch of (i, j, k) voxels in a volume of (I, J, K), the start is uniform over the (I-i+1)(J-j+1)(K-k+1) starts at
    which the patch lies inside. Along an axis where the patch is as large as the volume or larger there is one start, at which the overhang
    is shared between both sides. (Voxels near the border therefore lie in fewer patches than voxels in the middle.)

    Args:
        patch_size: voxels along I, J, K: an int for all three, or three ints.

    Raises:
        ArgumentError: if `patch_size` is not in whole voxels of at least 1.
    """

    def draw(self, entry: "Entry", rng: np.random.Generator) -> PatchLocation:
        """Draw one location; see the class for the distribution. Suits every subject, so it raises nothing."""
        return uniform_location(entry.shape, self.patch_size, rng)
