"""Artefacts of MRI with a closed form: bias field, spikes, ghosts."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from patchflow.augment.base import Context, IntensityTransform, Parameters, suits_kernels
from patchflow.augment.counts import draw_count, voxel_axes, whole_range
from patchflow.augment.lines import Weights, add_to_lines, encoding_axis, even_gains, frequencies, lines_through
from patchflow.augment.ranges import NOT_NEGATIVE, Limits, RangeLike, one_range
from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation
from patchflow.kernels.polynomial import apply_field, plain_field
from patchflow.kernels.waves import Wave, add_waves, plain_add_waves
from patchflow.types import count

STEEPEST = 80.0
"""Greatest exponent of a bias field; float32 ends at e^88."""


class RandomBiasField(IntensityTransform):
    """Multiply by a smooth field, the exponential of a polynomial in voxel coordinates: a coil that is not equally sensitive everywhere.

    The polynomial is a sum of c x^a y^b z^c over all powers with a + b + c <= order, each with a coefficient of its own, as in TorchIO's
    `RandomBiasField` (Van Leemput et al., IEEE TMI 18, 1999; Sudre et al., Medical Image Analysis, 2017). x, y and z go from -1 to 1 over
    the volume, so a patch gets its part of the volume's field. Beyond the volume the field goes on as at its border.

    A coil multiplies the signal, whose zero in a normalised image is not 0 but the value of the background. That is taken to be the
    volume's minimum m: v becomes m + (v - m) field. So background stays background, where TorchIO, which multiplies values as they are,
    would turn the dark half of a z-scored image upside down. For an image with minimum 0 both are the same.

    Args:
        coefficients: of the polynomial: c for (-c, c), or a pair (low, high).
        order: degree of the polynomial.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for a range the wrong way round, coefficients for which the field may leave float32, a negative order, or a `p`
            outside 0 to 1.
    """

    trusted = True

    def __init__(
        self,
        coefficients: RangeLike = 0.5,
        order: int = 3,
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        self.coefficients, self.order = one_range(coefficients, "coefficients"), count(order, "order", 0)
        steepest = len(_powers(self.order)) * max(abs(self.coefficients.low), abs(self.coefficients.high))
        if steepest > STEEPEST:
            raise ArgumentError(
                f"coefficients {coefficients!r} of order {order} may multiply by e^{steepest:.3g}, beyond float32: "
                f"keep them within {STEEPEST / len(_powers(self.order)):.3g}"
            )

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        return {"order": self.order, "coefficients": [self.coefficients.draw(rng) for _ in _powers(self.order)]}

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        order = parameters["order"]
        coefficients = np.zeros((order + 1,) * 3)
        for powers, coefficient in zip(_powers(order), parameters["coefficients"], strict=True):
            coefficients[powers] = coefficient
        where = context.location.start, context.shape
        if suits_kernels(patch):
            apply_field(patch.numpy(), *where, coefficients, float(context.statistics.minimum))
            return patch
        return plain_field(patch, *where, coefficients, float(context.statistics.minimum))


class RandomSpike(IntensityTransform):
    """Add stripes: one point of k-space is far too bright, as a spark makes it (herringbone or corduroy artefact).

    A spike at a point of k-space is a plane wave in the image, amplitude * cos(2 pi (fi i / I + fj j / J + fk k / K) + phase), so a patch
    gets its part of the volume's wave exactly. Frequencies are drawn from the volume's k-space, each point as likely, and phases uniformly.

    TorchIO's `RandomSpike`, which this imitates, gives the strength as a ratio to the greatest magnitude of the spectrum, and has phase 0.
    In an image without negative values that magnitude is at the centre, which makes the wave's amplitude the ratio times the image's mean.
    Here the amplitude is the ratio times (mean - minimum) of the volume: the same where the background is 0, and the same stripes when the
    image is z-scored.

    Args:
        num_spikes: a whole number, or a pair (fewest, most).
        intensity: the ratio: x for (-x, x), or a pair (low, high); each spike draws its own.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for numbers of spikes that are not whole or negative, a range the wrong way round, or a `p` outside 0 to 1.
    """

    trusted = True

    def __init__(
        self,
        num_spikes: int | Sequence[int] = 1,
        intensity: RangeLike = (1, 3),
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        self.num_spikes, self.intensity = whole_range(num_spikes, "num_spikes"), one_range(intensity, "intensity")

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters:
        return {"spikes": [self._spike(rng, context) for _ in range(draw_count(self.num_spikes, rng))]}

    def _spike(self, rng: np.random.Generator, context: Context) -> Parameters:
        frequency = [int(rng.integers(n)) - n // 2 for n in context.shape]
        return {"frequency": frequency, "intensity": self.intensity.draw(rng), "phase": 2 * math.pi * float(rng.random())}

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        unit = float(context.statistics.mean) - float(context.statistics.minimum)
        waves = [Wave(tuple(spike["frequency"]), spike["intensity"] * unit, spike["phase"]) for spike in parameters["spikes"]]
        if suits_kernels(patch):
            add_waves(patch.numpy(), context.location.start, context.shape, waves)
            return patch
        return plain_add_waves(patch, context.location.start, context.shape, waves)


class RandomGhosting(IntensityTransform):
    """Add ghosts: weak copies of the anatomy along one axis, as breathing and pulsating vessels make them along the phase-encoding axis.

    Every n-th line of k-space along the axis is weakened, counted from its edge, and the centre kept, as in TorchIO's `RandomGhosting`
    (Wood and Henkelman, Medical Physics 12, 1985, explain why periodic motion gives such copies). For an axis of N voxels the ghosts lie
    N / n voxels apart and wrap around the volume's ends. A patch is changed exactly as the volume would be, for any N and n: it reads the
    whole lines of the volume through it. As in TorchIO, the real part of the image is taken.

    Args:
        num_ghosts: n: a whole number from 2, or a pair (fewest, most).
        axes: voxel axes of which one is drawn: 0 (I), 1 (J), 2 (K), or several. An axis of one voxel is never drawn.
        intensity: what a line is weakened by, from 0 (not at all) to 1 (to nothing), or more: x for (0, x), or a pair (low, high).
        restore: the share of lines around the centre that keep their weight, 0 to 1: x for (0, x), or a pair. The central one always does,
            so the mean of every line of voxels is kept.
        p: probability.
        keys: names of the images to change; None for every `ScalarImage`.
        per_channel, p_per_channel: see `IntensityTransform`.

    Raises:
        ArgumentError: for a number of ghosts that is not whole or below 2, an axis other than 0, 1 and 2, a range the wrong way round, a
            negative intensity, a `restore` or `p` outside 0 to 1.
    """

    trusted = True

    def __init__(
        self,
        num_ghosts: int | Sequence[int] = (4, 10),
        axes: int | Sequence[int] = (0, 1, 2),
        intensity: RangeLike = (0.5, 1),
        restore: RangeLike = 0.02,
        *,
        p: float = 1.0,
        keys: Sequence[str] | None = None,
        per_channel: bool = False,
        p_per_channel: float = 1.0,
    ) -> None:
        super().__init__(p=p, keys=keys, per_channel=per_channel, p_per_channel=p_per_channel)
        self.num_ghosts, self.axes = whole_range(num_ghosts, "num_ghosts", least=2), voxel_axes(axes)
        self.intensity = one_range(intensity, "intensity", NOT_NEGATIVE)
        self.restore = one_range(restore, "restore", Limits(one_sided=True, least=0.0, most=1.0))

    def draw(self, rng: np.random.Generator, context: Context) -> Parameters | None:
        axis = encoding_axis(self.axes, rng, context.shape)
        if axis is None:
            return None
        number, intensity = draw_count(self.num_ghosts, rng), self.intensity.draw(rng)
        return {"axis": axis, "num_ghosts": number, "intensity": intensity, "restore": self.restore.draw(rng)}

    def windows(self, parameters: Parameters, context: Context) -> Sequence[PatchLocation]:
        lines = lines_through(context.location, context.shape, parameters["axis"])
        return () if lines is None else (lines,)

    def apply(self, patch: torch.Tensor, parameters: Parameters, context: Context) -> torch.Tensor:
        for lines in context.windows:
            add_to_lines(patch, lines, context, parameters["axis"], _weakened(parameters, context.shape[parameters["axis"]]))
        return patch


def _powers(order: int) -> list[tuple[int, int, int]]:
    """The powers of x, y and z of each coefficient, in TorchIO's order."""
    return [(a, b, c) for a in range(order + 1) for b in range(order + 1 - a) for c in range(order + 1 - a - b)]


def _weakened(parameters: Parameters, n: int) -> Weights:
    """What is added to each frequency of an axis of n voxels."""
    weights = np.zeros(n)
    weights[:: parameters["num_ghosts"]] = -parameters["intensity"]
    weights[np.abs(frequencies(n)) <= parameters["restore"] * n / 2] = 0
    return even_gains(weights)
