"""Random changes of values, voxel by voxel: brightness, contrast, gamma, histogram shift."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from patchflow.augment.base import Context, IntensityTransform, Parameters, suits_kernels
from patchflow.augment.counts import draw_count, whole_range
from patchflow.augment.ranges import Limits, RangeLike, one_range
from patchflow.errors import ArgumentError
from patchflow.kernels.intensity import (
    apply_gamma,
    apply_gamma_measured,
    apply_scale_shift,
    apply_segments,
    plain_gamma,
    plain_scale_shift,
    plain_segments,
)
from patchflow.kernels.statistics import patch_mean, patch_moments, plain_moments_of

Statistics = Literal["volume", "patch"]
"""Of what mean and range are taken: of the whole volume as read, or of each channel of the patch at hand."""

_FLAT = 1e-7  # a range or standard deviation below this one is not stretched, as in nnU-Net


class RandomBrightness(IntensityTransform):
    """Multiply values by a factor and add a shift: other gains and offsets of a scanner.

    Source: the multiplicative and additive brightness of nnU-Net (Isensee et al., Nature Methods 18, 2021, supplement).

    Args:
        factor: x for (1 - x, 1 + x), or a pair (low, high).
        shift: in units of the values as read: s for (-s, s), or a pair.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for a range the wrong way round, a negative factor, or a `p` outside 0 to 1.
    """

    trusted = True

    def __init__(
        self,
        factor: RangeLike = (0.75, 1.25),
        shift: RangeLike = (0, 0),
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        self.factor = one_range(factor, "factor", Limits(around=1.0, least=0.0))
        self.shift = one_range(shift, "shift")

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        return {"factor": self.factor.draw(rng), "shift": self.shift.draw(rng)}

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        if suits_kernels(patch):
            apply_scale_shift(patch.numpy(), parameters["factor"], parameters["shift"])
            return patch
        return plain_scale_shift(patch, parameters["factor"], parameters["shift"])


class RandomContrast(IntensityTransform):
    """Spread values about their mean m, or draw them together: v becomes m + factor (v - m).

    Source: the contrast of nnU-Net (Isensee et al., Nature Methods 18, 2021, supplement), which is `statistics="patch"`.

    Args:
        factor: x for (1 - x, 1 + x), or a pair (low, high).
        preserve_range: keep the result between the former minimum and maximum.
        statistics: "volume" takes mean and range of the whole volume as read, so a patch changes as the volume would. "patch" takes those
            of each channel of the patch itself: then the same parameters at another location have another mean, `exact` is False, and the
            result differs from the crop of the augmented volume by |1 - factor| times the difference of both means, and by other limits.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for a range the wrong way round, a negative factor, other `statistics`, or a `p` outside 0 to 1.
    """

    trusted = True

    def __init__(
        self,
        factor: RangeLike = (0.75, 1.25),
        preserve_range: bool = True,
        statistics: Statistics = "volume",
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        self.factor = one_range(factor, "factor", Limits(around=1.0, least=0.0))
        self.preserve_range = bool(preserve_range)
        self.statistics = _checked_statistics(statistics)
        self.exact = statistics == "volume"

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        return {"factor": self.factor.draw(rng)}

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        factor = parameters["factor"]
        if self.statistics == "volume":
            known = context.statistics
            low, high = (float(known.minimum), float(known.maximum)) if self.preserve_range else (-math.inf, math.inf)
            shift = float(known.mean) * (1 - factor)
            if suits_kernels(patch):
                apply_scale_shift(patch.numpy(), factor, shift, low, high)
                return patch
            return plain_scale_shift(patch, factor, shift, low, high)
        fast = suits_kernels(patch)
        for channel, core in zip(patch, context.core(patch), strict=True):
            if fast and self.preserve_range:
                of = patch_moments(core.numpy())
                apply_scale_shift(channel.numpy(), factor, of.mean * (1 - factor), of.minimum, of.maximum)
            elif fast:
                apply_scale_shift(channel.numpy(), factor, patch_mean(core.numpy()) * (1 - factor))
            else:
                least, most, mean, _ = plain_moments_of(core)
                changed = channel * factor + mean * (1 - factor)
                channel.copy_(torch.clamp(changed, least, most) if self.preserve_range else changed)
        return patch


class RandomGamma(IntensityTransform):
    """Raise values to a power: v becomes n^gamma, where n is the value on a scale from 0 (the minimum) to 1 (the maximum).

    Values beyond the scale, as other transforms may make, keep their sign: sign(n) |n|^gamma. Values that are all the same have no such
    scale and stay as they are.

    Source: TorchIO's `RandomGamma` for the volume's statistics (Pérez-García et al., Computer Methods and Programs in Biomedicine 208,
    2021); nnU-Net's for the patch's (Isensee et al., Nature Methods 18, 2021, supplement).

    Args:
        log_gamma: natural logarithm of gamma: b for (-b, b), or a pair (low, high), as in TorchIO; negative values brighten. When neither
            this nor `gamma` is given, (-0.3, 0.3).
        gamma: gamma itself instead, above 0: a pair or a distribution, as in nnU-Net: `Balanced(0.7, 1.5)`.
        invert: take the scale from the maximum down to the minimum, so that bright values are stretched where dark ones would be.
        retain_stats: give the result the mean and standard deviation that values had before; for `statistics="patch"`.
        statistics: "volume" takes minimum and maximum of the whole volume as read, so a patch changes as the volume would. "patch" takes
            those of each channel of the patch itself: then the same parameters at another location have another scale, `exact` is False,
            and results differ from the crop of the augmented volume as far as the patch's range differs from the volume's.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for both `log_gamma` and `gamma`, a range the wrong way round, a `gamma` that is not above 0, other `statistics`,
            `retain_stats` of the volume (its mean after gamma is not known without reading all of it), or a `p` outside 0 to 1.
    """

    trusted = True

    def __init__(
        self,
        log_gamma: RangeLike | None = None,
        *,
        gamma: RangeLike | None = None,
        invert: bool = False,
        retain_stats: bool = False,
        statistics: Statistics = "volume",
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        if log_gamma is not None and gamma is not None:
            raise ArgumentError(f"give log_gamma or gamma, not both: log_gamma is {log_gamma!r}, gamma is {gamma!r}")
        self.gamma = None if gamma is None else one_range(gamma, "gamma", Limits(around=1.0, above=0.0))
        default = (-0.3, 0.3) if gamma is None and log_gamma is None else log_gamma
        self.log_gamma = None if default is None else one_range(default, "log_gamma")
        self.invert, self.retain_stats = bool(invert), bool(retain_stats)
        self.statistics = _checked_statistics(statistics)
        if self.retain_stats and statistics == "volume":
            raise ArgumentError(
                'retain_stats needs statistics="patch": the mean and standard deviation that a whole volume has after gamma are not known '
                "without reading all of it for every patch"
            )
        self.exact = statistics == "volume"

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        return {"gamma": math.exp(self.log_gamma.draw(rng)) if self.gamma is None else self.gamma.draw(rng)}  # type: ignore[union-attr]

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        gamma = parameters["gamma"]
        if self.statistics == "patch":
            change = self._change_channel if suits_kernels(patch) else self._plain_change_channel
            for channel in range(patch.shape[0]):
                change(patch[channel : channel + 1], gamma, context)
            return patch
        start, width = self._scale(float(context.statistics.minimum), float(context.statistics.maximum))
        if width == 0:
            return patch
        if suits_kernels(patch):
            apply_gamma(patch.numpy(), gamma, start, width)
            return patch
        return plain_gamma(patch, gamma, start, width)

    def _scale(self, low: float, high: float) -> tuple[float, float]:
        return (high, low - high) if self.invert else (low, high - low)

    def _change_channel(self, channel: torch.Tensor, gamma: float, context: Context) -> None:
        values, core = channel.numpy(), context.core(channel)
        before = patch_moments(core[0].numpy())
        start, width = self._scale(before.minimum, before.maximum)
        if abs(width) < _FLAT:
            return
        if not self.retain_stats:
            apply_gamma(values, gamma, start, width)
            return
        if core.shape == channel.shape:
            after = apply_gamma_measured(values, gamma, start, width)
        else:
            apply_gamma(values, gamma, start, width)
            after = patch_moments(core[0].numpy())
        factor = math.sqrt(before.squares / before.voxels) / max(math.sqrt(after.squares / after.voxels), _FLAT)
        apply_scale_shift(values, factor, before.mean - factor * after.mean)

    def _plain_change_channel(self, channel: torch.Tensor, gamma: float, context: Context) -> None:
        low, high, mean, std = plain_moments_of(context.core(channel))
        span = (high - low).clamp(min=_FLAT)
        changed = plain_gamma(channel, gamma, high if self.invert else low, -span if self.invert else span)
        if self.retain_stats:
            _, _, mean_after, std_after = plain_moments_of(context.core(changed))
            changed = (changed - mean_after) * (std / std_after.clamp(min=_FLAT)) + mean
        channel.copy_(torch.where(high - low < _FLAT, channel, changed))


class RandomHistogramShift(IntensityTransform):
    """Map values by straight lines between control points that are moved at random, never past one another: a monotone change of scale.

    Points lie evenly between the volume's minimum and maximum, which stay; each point between is moved to a place drawn uniformly between
    the (already moved) point before and the point after it, as MONAI's `RandHistogramShift` does. Values beyond the volume's own, as other
    transforms may make, stay. Imitates how scanners' intensity scales differ, which are matched by such maps: Nyúl and Udupa, Magnetic
    Resonance in Medicine 42, 1999.

    Args:
        num_control_points: at least 3, the ends included: a number, or a pair (fewest, most). Fewer points allow larger shifts.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for numbers that are not whole, fewer than 3 points, a pair the wrong way round, or a `p` outside 0 to 1.
    """

    trusted = True

    def __init__(
        self,
        num_control_points: int | Sequence[int] = 10,
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        self.num_control_points = whole_range(num_control_points, "num_control_points", least=3)

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        points = np.linspace(0, 1, draw_count(self.num_control_points, rng))
        for n in range(1, len(points) - 1):
            points[n] = points[n - 1] + (points[n + 1] - points[n - 1]) * rng.random()
        return {"points": points.tolist()}

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        low, high = float(context.statistics.minimum), float(context.statistics.maximum)
        if high <= low:
            return patch
        heights = [low + (high - low) * point for point in parameters["points"]]
        if suits_kernels(patch):
            apply_segments(patch.numpy(), low, high, heights)
            return patch
        return plain_segments(patch, low, high, heights)


def _checked_statistics(value: str) -> str:
    if value not in ("volume", "patch"):
        raise ArgumentError(f'statistics must be "volume" or "patch", not {value!r}')
    return value
