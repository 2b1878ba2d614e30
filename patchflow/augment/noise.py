"""Random noise that belongs to the voxel."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from patchflow.augment.base import Context, IntensityTransform, Parameters, suits_kernels
from patchflow.augment.ranges import NOT_NEGATIVE, RangeLike, one_range
from patchflow.errors import ArgumentError
from patchflow.kernels.noise import add_normal, make_rician, plain_normal, plain_rician


class RandomNoise(IntensityTransform):
    """Add noise that belongs to the voxel: the same parameters give a voxel the same noise in every patch.

    Gaussian noise is added. Rician noise is what Gaussian noise in both parts of a complex signal makes of its magnitude, as in MRI:
    sqrt((v + n)^2 + m^2) with two independent normal numbers n and m of the same standard deviation (Gudbjartsson and Patz, Magnetic
    Resonance in Medicine 34, 1995). There v is a magnitude, 0 where there is no signal. Values as read may be normalised and negative, so v
    is measured from the minimum of the whole volume, and the minimum is added afterwards; for a volume with minimum 0 nothing changes.
    Values that other transforms have made lower than that minimum are folded up.

    Args:
        mean: of Gaussian noise: m for (-m, m), or a pair (low, high).
        std: standard deviation, in units of the values as read: s for (0, s), or a pair.
        kind: "gaussian" or "rician".
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`. Each gets noise of its own, and so does each channel.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for a range the wrong way round, a negative `std`, another `kind`, Rician noise with a mean, or a `p` outside 0 to 1.
    """

    trusted = True

    def __init__(
        self,
        mean: RangeLike = 0,
        std: RangeLike = (0, 0.1),
        kind: Literal["gaussian", "rician"] = "gaussian",
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        self.mean = one_range(mean, "mean")
        self.std = one_range(std, "std", NOT_NEGATIVE)
        if kind not in ("gaussian", "rician"):
            raise ArgumentError(f'kind must be "gaussian" or "rician", not {kind!r}')
        if kind == "rician" and (self.mean.low != 0 or self.mean.high != 0):
            raise ArgumentError(f"Rician noise comes from normal numbers of mean 0, so mean must be 0, not {mean!r}")
        self.kind = kind

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        mean, std = self.mean.draw(rng), self.std.draw(rng)
        return {"mean": mean, "std": std, "key": _key(rng)}

    def draw_image(self, rng: np.random.Generator, context: Context) -> "Parameters | list[Parameters | None] | None":
        """As every intensity transform does, but channels with shared parameters that are changed one by one get keys of their own."""
        drawn = super().draw_image(rng, context)
        if isinstance(drawn, list) and not self.per_channel:
            return [None if parameters is None else {**parameters, "key": _key(rng)} for parameters in drawn]
        return drawn

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        key, mean, std, start = parameters["key"], parameters["mean"], parameters["std"], context.location.start
        if self.kind == "rician":
            low = float(context.statistics.minimum)
            if suits_kernels(patch):
                make_rician(patch.numpy(), start, key, low, std)
                return patch
            return plain_rician(patch, start, key, low, std)
        if suits_kernels(patch):
            add_normal(patch.numpy(), start, key, mean, std)
            return patch
        channels, i, j, k = patch.shape
        noise = plain_normal((channels, i, j, k), start, key, patch.device)
        noisy: torch.Tensor = patch + (mean + std * noise).to(patch.dtype)
        return noisy


def _key(rng: np.random.Generator) -> int:
    return int(rng.integers(0, 2**64, dtype=np.uint64))
