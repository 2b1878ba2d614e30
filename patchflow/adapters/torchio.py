"""Transforms of TorchIO, version 1 or 2, inside a recipe."""

import copy
import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from patchflow.adapters.base import Adapted, Sample, comes_from, handed_over, patch_affine, taken_back
from patchflow.augment.base import Context
from patchflow.augment.foreign import where
from patchflow.errors import ArgumentError


def from_torchio(transform: Callable[..., Any]) -> "TorchIOTransform":
    """A transform of TorchIO, 1 or 2, as a step of a recipe.

    TorchIO draws from PyTorch's global generator, and computes as it draws (also in version 2, whose transforms have `make_params`: a
    `Compose` draws for its second transform after it applied the first). So the global generators are seeded for each patch and put back,
    one patch at a time in a process, and a queue refuses thread workers: use worker_kind="process", or none. Images are `ScalarImage` and
    `LabelMap` of one `Subject`, with the affine of the patch (voxel of the patch to RAS+ millimetres). They come back as float32, and
    labels in their own dtype, in which they must be whole.

    Args:
        transform: a transform, or a `Compose` of them. It is copied.

    Returns:
        A callable f(sample, context), which can be pickled if the transform can.

    Raises:
        ArgumentError: for something that is no transform of TorchIO.
    """
    return TorchIOTransform(transform)


class TorchIOTransform(Adapted):
    """See `from_torchio`, which makes it."""

    library = "TorchIO"

    def __init__(self, transform: Any) -> None:
        if not comes_from(transform, ("torchio",)):
            raise ArgumentError(f"expected a transform of TorchIO, not {transform!r}")
        super().__init__(transform)

    def __call__(self, sample: Sample, context: Context) -> Any:
        torchio = import_module("torchio")
        # Version 1 takes a tensor by its name, version 2 whatever comes first.
        by_name = "tensor" in inspect.signature(torchio.Image.__init__).parameters
        images = {name: patch for name, patch in sample.items() if name in context.images}
        affine = patch_affine(context)
        members = {}
        for name, patch in images.items():
            kind = torchio.ScalarImage if context.images[name].kind == "scalar" else torchio.LabelMap
            voxels = handed_over(patch)
            members[name] = kind(tensor=voxels, affine=affine) if by_name else kind(voxels, affine=affine)
        subject = self.applied(copy.deepcopy(self.transform), torchio.Subject(**members), context)
        found = subject.get_images_dict(intensity_only=False) if hasattr(subject, "get_images_dict") else subject.images
        return {
            name: taken_back(image.data, images[name], context.images[name].kind, where(self.__name__, context), name)
            if name in images
            else image.data
            for name, image in found.items()
        }
