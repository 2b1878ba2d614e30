"""Random changes of values, voxel by voxel."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from patchflow.augment.base import Context, IntensityTransform, Parameters
from patchflow.augment.ranges import RangeLike, one_range, uniform
from patchflow.kernels.intensity import apply_gamma, apply_scale_shift, plain_gamma, plain_scale_shift
from patchflow.kernels.noise import add_normal, plain_normal


class RandomNoise(IntensityTransform):
    """Add Gaussian noise that belongs to the voxel: the same parameters give a voxel the same noise in every patch.

    Args:
        mean: of the noise: m for (-m, m), or a pair (low, high).
        std: standard deviation, in units of the values as read: s for (0, s), or a pair.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`. Each gets noise of its own, and so does each channel.

    Raises:
        ArgumentError: for a range the wrong way round, a negative `std`, or a `p` outside 0 to 1.
    """

    trusted = True

    def __init__(self, mean: RangeLike = 0, std: RangeLike = (0, 0.1), *, p: float = 1.0, keys: Sequence[str] | None = None) -> None:
        super().__init__(p=p, keys=keys)
        self.mean = one_range(mean, "mean")
        self.std = one_range(std, "std", least=0.0, one_sided=True)

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        mean, std = uniform(rng, self.mean), uniform(rng, self.std)
        return {"mean": mean, "std": std, "key": int(rng.integers(0, 2**64, dtype=np.uint64))}

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        key, mean, std, start = parameters["key"], parameters["mean"], parameters["std"], context.location.start
        if suits_kernels(patch):
            add_normal(patch.numpy(), start, key, mean, std)
            return patch
        channels, i, j, k = patch.shape
        noise = plain_normal((channels, i, j, k), start, key, patch.device)
        noisy: torch.Tensor = patch + (mean + std * noise).to(patch.dtype)
        return noisy


class RandomGamma(IntensityTransform):
    """Raise values to a power: v becomes n^gamma, where n is the value on a scale from 0 (the volume's minimum) to 1 (its maximum).

    Values beyond the volume's own, as other transforms may make, keep their sign: sign(n) |n|^gamma. Minimum and maximum are those of the
    whole volume as read, so a patch changes as the volume would. A volume of one value has no such scale and stays as it is.

    Args:
        log_gamma: natural logarithm of gamma: b for (-b, b), or a pair (low, high), as in TorchIO; negative values brighten.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.

    Raises:
        ArgumentError: for a range the wrong way round or a `p` outside 0 to 1.
    """

    trusted = True

    def __init__(self, log_gamma: RangeLike = (-0.3, 0.3), *, p: float = 1.0, keys: Sequence[str] | None = None) -> None:
        super().__init__(p=p, keys=keys)
        self.log_gamma = one_range(log_gamma, "log_gamma")

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        return {"gamma": math.exp(uniform(rng, self.log_gamma))}

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        low = float(context.info.statistics.minimum)
        width = float(context.info.statistics.maximum) - low
        if width <= 0:
            return patch
        if suits_kernels(patch):
            apply_gamma(patch.numpy(), parameters["gamma"], low, width)
            return patch
        return plain_gamma(patch, parameters["gamma"], low, width)


class RandomBrightness(IntensityTransform):
    """Multiply values by a factor and add a shift.

    Args:
        factor: x for (1 - x, 1 + x), or a pair (low, high).
        shift: in units of the values as read: s for (-s, s), or a pair.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.

    Raises:
        ArgumentError: for a range the wrong way round, a negative factor, or a `p` outside 0 to 1.
    """

    trusted = True

    def __init__(
        self, factor: RangeLike = (0.75, 1.25), shift: RangeLike = (0, 0), *, p: float = 1.0, keys: Sequence[str] | None = None
    ) -> None:
        super().__init__(p=p, keys=keys)
        self.factor = one_range(factor, "factor", around=1.0, least=0.0)
        self.shift = one_range(shift, "shift")

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        return {"factor": uniform(rng, self.factor), "shift": uniform(rng, self.shift)}

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        if suits_kernels(patch):
            apply_scale_shift(patch.numpy(), parameters["factor"], parameters["shift"])
            return patch
        return plain_scale_shift(patch, parameters["factor"], parameters["shift"])


def suits_kernels(patch: torch.Tensor) -> bool:
    """Whether the CPU's kernels can work on a patch in place; otherwise the same formula runs on tensors."""
    return patch.device.type == "cpu" and patch.dtype == torch.float32 and patch.is_contiguous()
