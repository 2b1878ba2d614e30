"""From stitched slabs to what the user asked for: labels, probabilities, logits or a function of their own."""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch

from patchflow.errors import ArgumentError, InferenceError
from patchflow.kernels.argmax import argmax_channels

Output = Literal["labels", "probabilities", "logits"] | Callable[[torch.Tensor], torch.Tensor]
"""What becomes of the stitched volume; a function is called with slabs (C, i, J, K) and returns (C', i, J, K)."""

Activation = Literal["auto", "softmax", "sigmoid", "none"]
"""What turns the model's output into probabilities. "auto": softmax over the channels, or the sigmoid if there is one channel."""

Average = Literal["logits", "probabilities"]
"""What is averaged where several predictions of one voxel meet: of models, of mirrored windows, and of windows that overlap."""


def check_output(output: object) -> None:
    """Raise `ArgumentError` unless `output` is one of the three words or a function."""
    if not callable(output) and output not in ("labels", "probabilities", "logits"):
        raise ArgumentError(f'output must be "labels", "probabilities", "logits" or a function of a slab (C, i, J, K), not {output!r}')


def check_activation(activation: object) -> None:
    """Raise `ArgumentError` unless `activation` is one of the four words."""
    if activation not in get_args(Activation):
        raise ArgumentError(f"activation must be one of {', '.join(get_args(Activation))}, not {activation!r}")


def are_regions(channels: int, activation: Activation) -> bool:
    """Whether each channel is a region of its own, rather than one of several classes that exclude each other."""
    return channels == 1 or activation == "sigmoid"


def probabilities(logits: torch.Tensor, activation: Activation, dim: int = 0) -> torch.Tensor:
    """Probabilities of logits whose channels lie along `dim`: softmax over the channels or the sigmoid of each, as `Activation` says."""
    if activation == "none":
        return logits
    if activation == "sigmoid" or (activation == "auto" and logits.shape[dim] == 1):
        return torch.sigmoid(logits)
    return torch.softmax(logits, dim=dim)


def labels(values: torch.Tensor, activation: Activation, ready: bool = False) -> torch.Tensor:
    """Labels of a slab (C, i, J, K), in the smallest of uint8, int16 and int32 that holds them.

    The channel of the greatest value, (1, i, J, K); ties go to the lower channel. With one channel, or with "sigmoid", each channel is a
    region of its own instead: 1 where its probability exceeds 0.5, (C, i, J, K). Integers are labels already and stay as they are.

    Args:
        values: logits, or probabilities if `ready` or if the activation is "none".
        activation: what makes probabilities of logits.
        ready: whether it was applied before.
    """
    if not values.dtype.is_floating_point:
        return values
    if are_regions(len(values), activation):
        threshold = 0.5 if ready or activation == "none" else 0.0  # the sigmoid exceeds 0.5 where its argument exceeds 0
        return (values > threshold).to(torch.uint8)
    dtype = np.uint8 if len(values) <= 2**8 else np.int16 if len(values) <= 2**15 else np.int32
    array = values.numpy()
    if array[0].flags.c_contiguous:
        return torch.from_numpy(argmax_channels(array, dtype))
    slices = [argmax_channels(array[:, i : i + 1], dtype) for i in range(array.shape[1])]  # each of these is, in a brick
    return torch.from_numpy(np.concatenate(slices, axis=1))


def background(channels: int, activation: Activation) -> list[float]:
    """The probabilities of a voxel that was not predicted: the first class is certain, or none of the regions is there."""
    return [0.0] * channels if are_regions(channels, activation) else [1.0] + [0.0] * (channels - 1)


def finish(
    slab: torch.Tensor, covered: torch.Tensor | None, output: Output, activation: Activation, ready: bool, name: str, first: int
) -> torch.Tensor:
    """Turn a stitched slab into the output asked for.

    Args:
        slab: (C, i, J, K) float32, or integers; left as it is.
        covered: which voxels (i, J, K) were predicted; None for all of them.
        output: "logits" is the slab itself; "probabilities" float32 (C, i, J, K); "labels" as `labels` says; a function gets the slab.
        activation: what makes probabilities of logits.
        ready: whether it was applied before stitching.
        name: the subject, for errors.
        first: the slab's first slice along I, for errors.

    Raises:
        InferenceError: if the user's function returns something else than a tensor (C', i, J, K), or integers were to become probabilities.
    """
    if output == "logits":
        return slab
    if output == "labels":
        return labels(slab, activation, ready)
    if output == "probabilities":
        return _probabilities(slab, covered, activation, ready, name)
    assert callable(output)
    try:
        done: object = output(slab)
    except Exception as error:
        error.add_note(f'in the output function, for subject "{name}", the slab of slices {first} to {first + slab.shape[1]} along I')
        raise
    if not isinstance(done, torch.Tensor) or done.ndim != 4 or done.shape[1:] != slab.shape[1:] or not len(done) or done.is_complex():
        what = f"shape {tuple(done.shape)}" if isinstance(done, torch.Tensor) else f"a {type(done).__name__}"
        raise InferenceError(
            f'subject "{name}": the output function must return a tensor (C, i, J, K) of {tuple(slab.shape[1:])}, not {what} '
            f"(for the slab at I={first})"
        )
    return done.detach().to("cpu")


def _probabilities(slab: torch.Tensor, covered: torch.Tensor | None, activation: Activation, ready: bool, name: str) -> torch.Tensor:
    if not slab.dtype.is_floating_point:
        raise InferenceError(f'subject "{name}": the model returned {slab.dtype}, which has no probabilities: ask for output="logits"')
    values = slab if ready else probabilities(slab, activation)
    if covered is None:
        return values
    outside = torch.tensor(background(len(values), activation), dtype=values.dtype)[:, None, None, None]
    return torch.where(covered, values, outside)
