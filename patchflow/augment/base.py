"""What a transform is: `draw` returns small plain parameters, `apply` (or `map`) does exactly what they say.

A transform of your own is a class with two methods; give it to a `Recipe` beside the others:

    class RandomOffset(IntensityTransform):
        def draw(self, rng, context):
            return {"offset": rng.normal(0, 0.1)}

        def apply(self, patch, parameters, context):
            return patch + parameters["offset"]
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from patchflow.augment.ranges import probability
from patchflow.errors import ArgumentError, TransformError, UnknownNameError
from patchflow.geometry.location import PatchLocation
from patchflow.geometry.maps import SpatialMap
from patchflow.kernels.pointwise import IntensityMap
from patchflow.types import Affine, Array, Int3

Parameters = dict[str, Any]
"""What was drawn: plain JSON values (numbers, strings, booleans, None, lists, dicts)."""

STILL: Int3 = (0, 0, 0)
"""The reach of a transform that looks at no neighbours."""


class ImageInfo(Protocol):
    """What a transform may know of an image: the part of the cache's image record that is used here."""

    @property
    def kind(self) -> str: ...
    @property
    def channels(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def map(self) -> IntensityMap: ...
    @property
    def statistics(self) -> Any: ...


class Readable(Protocol):
    """What patches can be read from."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Int3: ...
    @property
    def affine(self) -> Affine: ...
    @property
    def images(self) -> Mapping[str, Any]: ...
    def read(self, name: str, location: PatchLocation, *, out: Array | None = None, fill: float = 0) -> Array: ...


class Source(Readable, Protocol):
    """What a recipe reads patches from: a cache's entry, or anything with its methods."""

    @property
    def spacing(self) -> Any: ...
    def region(self, name: str, start: Int3, stop: Int3) -> Array: ...


@dataclass(frozen=True, slots=True)
class Context:
    """Where and of what a patch is.

    Attributes:
        name: the subject's name.
        location: the voxels at hand: the patch in `draw`, what the tensor covers in `apply` (the patch, and around it what later
            transforms reach for).
        shape: voxels of the whole volume (I, J, K).
        spacing: millimetres between voxels along I, J, K.
        images: name of each image of the subject to its record: kind "scalar" or "label", channels, statistics of the whole volume.
        anchor: the centre, in voxel coordinates, of the location for which the parameters were drawn; spatial transforms leave it in place.
        affine: 4x4 float64, voxel index of the volume to RAS+ millimetres.
        patch: the patch to be made, in `apply`: lies in `location`.
        image: the image at hand, for intensity transforms.
        windows: in `apply`, what the transform's `windows` asked for: a tensor (C, i, j, k) each.
    """

    name: str
    location: PatchLocation
    shape: Int3
    spacing: tuple[float, float, float]
    images: Mapping[str, Any]
    anchor: tuple[float, float, float]
    affine: Affine | None = None
    patch: PatchLocation | None = None
    image: str | None = None
    windows: tuple[torch.Tensor, ...] = ()

    def of(self, image: str) -> "Context":
        """The same for one image."""
        return replace(self, image=image)

    @property
    def info(self) -> Any:
        """The record of the image at hand."""
        if self.image is None:
            raise TransformError(f"no image is at hand in this context of subject {self.name}: spatial transforms see all of `images`")
        return self.images[self.image]

    @property
    def statistics(self) -> Any:
        """Of the image at hand over the whole volume, as read: minimum, maximum, mean, std."""
        return self.info.statistics

    def core(self, tensor: torch.Tensor) -> torch.Tensor:
        """The part of a tensor over `location` that is the patch itself: a view."""
        if self.patch is None or self.patch == self.location:
            return tensor
        return tensor[(slice(None), *self.patch.within(self.location))]


class Transform(ABC):
    """A random change of patches.

    Args:
        p: probability, 0 to 1, with which the transform is applied to a patch.
        keys: names of the images to change; None for every image (spatial) or every `ScalarImage` (intensity).

    Attributes:
        exact: whether the patch of an augmented volume is the augmented patch, for the same parameters.
        trusted: leaves out the checks of what `apply` returned; for transforms whose own tests make them needless.

    Raises:
        ArgumentError: for a `p` outside 0 to 1 or `keys` that are not names.
    """

    exact: bool = True
    trusted: ClassVar[bool] = False

    def __init__(self, *, p: float = 1.0, keys: Sequence[str] | None = None) -> None:
        self.p = probability(p, "p")
        if keys is not None and (isinstance(keys, str) or not all(isinstance(key, str) for key in keys)):
            raise ArgumentError(f"keys must be a list of image names, not {keys!r}")
        self.keys = None if keys is None else tuple(keys)

    @property
    def name(self) -> str:
        """The class's name: how parameters, errors and statistics call the transform."""
        return type(self).__name__

    def happens(self, rng: np.random.Generator) -> bool:
        """Whether a patch is changed at all: drawn once per patch, before `draw`."""
        return bool(rng.random() < self.p)

    @abstractmethod
    def draw(self, rng: np.random.Generator, context: Context) -> Parameters | None:
        """Draw parameters as plain JSON values, or None to leave the patch as it is; `rng` is the only source of randomness."""

    def takes(self, image: str, info: ImageInfo) -> bool:
        """Whether an image is changed."""
        return self.keys is None or image in self.keys

    def check(self, images: Mapping[str, Any]) -> None:
        """Raise what would go wrong with subjects of these images, before any patch is made.

        Raises:
            UnknownNameError: for a key that is no image.
        """
        for key in self.keys or ():
            if key not in images:
                raise UnknownNameError(f"{self.name} has the key {key!r}, but the images are {sorted(images)}: mend its `keys`")

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{self.name}({settings})"


class SpatialTransform(Transform):
    """A random change of where voxels come from: it gives a map, and never touches voxels.

    The maps of a recipe are composed in the order of its list and each image is read once, through the composed map.
    """

    @abstractmethod
    def map(self, parameters: Parameters, context: Context) -> SpatialMap | Affine:
        """Output voxel to source voxel, in voxel coordinates of the volume: a map, or the 4x4 float64 matrix of an affine one."""


class IntensityTransform(Transform):
    """A random change of values. Parameters are drawn for every `ScalarImage` (or those in `keys`) by itself.

    Args:
        p, keys: see `Transform`.
        per_channel: draw parameters for each channel by itself; otherwise the channels of an image share them.
        p_per_channel: probability, 0 to 1, with which each channel of a patch that is changed is changed.
    """

    def __init__(self, *, p: float = 1.0, keys: Sequence[str] | None = None, per_channel: bool = False, p_per_channel: float = 1.0) -> None:
        super().__init__(p=p, keys=keys)
        self.per_channel = bool(per_channel)
        self.p_per_channel = probability(p_per_channel, "p_per_channel")

    def reach(self, parameters: Parameters, context: Context) -> Int3:
        """How many voxels around a patch `apply` looks at along each axis.

        `apply` is given a patch that is larger by so much on each side, and the middle of what it returns is kept.
        """
        return STILL

    def windows(self, parameters: Parameters, context: Context) -> Sequence[PatchLocation]:
        """Other places of the image, as it is before this transform, that `apply` needs, and finds in `context.windows`, not to be changed.

        `context.location` is what `apply` will be given.
        """
        return ()

    @abstractmethod
    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        """Change a patch as the parameters say.

        Args:
            patch: float32 (C, i, j, k), values as read, on any device, of `context.location`; it may be changed in place. C is 1 where
                parameters were drawn per channel.
            parameters: what `draw` returned for this image or channel.
            context: with `image` set to the image at hand.

        Returns:
            The result, of the same shape, dtype and device; may be `patch`.
        """

    def takes(self, image: str, info: ImageInfo) -> bool:
        return info.kind == "scalar" if self.keys is None else image in self.keys

    def check(self, images: Mapping[str, Any]) -> None:
        super().check(images)
        for key in self.keys or ():
            if images[key].kind != "scalar":
                raise TransformError(f"{self.name} changes intensities, but its key {key!r} is a label map: leave it out of `keys`")

    def draw_image(self, rng: np.random.Generator, context: Context) -> "Parameters | list[Parameters | None] | None":
        """Parameters of one image: shared by its channels, or a list with those of each (None where a channel is left as it is)."""
        if not self.per_channel and self.p_per_channel == 1:
            return self.draw(rng, context)
        shared = None if self.per_channel else self.draw(rng, context)
        drawn: list[Parameters | None] = []
        for _ in range(context.info.channels):
            chosen = rng.random() < self.p_per_channel
            drawn.append((self.draw(rng, context) if self.per_channel else shared) if chosen else None)
        return drawn


def suits_kernels(patch: torch.Tensor) -> bool:
    """Whether the CPU's kernels can work on a patch in place; otherwise the same formula runs on tensors."""
    return patch.device.type == "cpu" and patch.dtype == torch.float32 and patch.is_contiguous()
