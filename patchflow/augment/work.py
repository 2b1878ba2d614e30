"""What is to be done for one image of a patch: read it through its map, then change its values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from patchflow.augment.base import Context, Source
from patchflow.augment.chain import Chain, Link
from patchflow.augment.reading import Clock, Reading, read_through
from patchflow.geometry.location import PatchLocation
from patchflow.geometry.maps import SpatialMap


@dataclass(frozen=True)
class Work:
    """One image of a patch.

    Attributes:
        context: of the image, at the patch.
        map: output voxel to source voxel; None where nothing moves.
        how: what lies outside the volume, and the interpolation.
        links: the intensity transforms that were drawn for it, in order, with their parameters.
    """

    context: Context
    map: SpatialMap | None
    how: Reading
    links: Sequence[Link]

    @property
    def name(self) -> str:
        """The image's name."""
        return str(self.context.image)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 for a scalar image, that of the labels otherwise."""
        info = self.context.info
        return np.dtype(np.float32 if info.kind == "scalar" else info.dtype)

    def make(self, entry: Source, out: torch.Tensor, clock: Clock) -> None:
        """Fill `out`, a tensor on the CPU."""

        def read(location: PatchLocation, target: torch.Tensor | None) -> torch.Tensor:
            if target is None:
                target = torch.from_numpy(np.empty((self.context.info.channels, *location.size), self.dtype))
            read_through(self.map, entry, target.numpy(), self.context, location, self.how, clock)
            return target

        Chain(self.links, self.context, read, clock).make(self.context.location, out)
