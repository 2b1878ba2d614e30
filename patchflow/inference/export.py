"""From stitched logits to what the user asked for: labels, probabilities, a function of their own, a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from patchflow.errors import ArgumentError, InferenceError
from patchflow.images.write import write_nifti
from patchflow.kernels.argmax import argmax_channels
from patchflow.types import Affine

Output = Literal["labels", "probabilities", "logits"] | Callable[[torch.Tensor], torch.Tensor]
"""What becomes of the stitched volume; a function is called with slabs (C, i, J, K) and returns (C', i, J, K)."""

Activation = Literal["auto", "softmax", "sigmoid", "none"]
"""What turns the model's output into probabilities. "auto": softmax over the channels, or the sigmoid if there is one channel."""

_SLAB_VALUES = 2**22
"""Values worked on at a time, which bounds the memory taken beside input and result."""


def check_output(output: object) -> None:
    """Raise `ArgumentError` unless `output` is one of the three words or a function."""
    if not callable(output) and output not in ("labels", "probabilities", "logits"):
        raise ArgumentError(f'output must be "labels", "probabilities", "logits" or a function of a slab (C, i, J, K), not {output!r}')


def check_activation(activation: object) -> None:
    """Raise `ArgumentError` unless `activation` is one of the four words."""
    if activation not in get_args(Activation):
        raise ArgumentError(f"activation must be one of {', '.join(get_args(Activation))}, not {activation!r}")


def check_path(path: str | Path) -> Path:
    """The path if a NIfTI file can be written there: raised before the prediction, not after it.

    Raises:
        ArgumentError: if its name ends neither in .nii nor in .nii.gz, or its folder does not exist.
    """
    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise ArgumentError(f"{path}: predictions are written as NIfTI: let the name end in .nii or .nii.gz")
    if not path.parent.is_dir():
        raise ArgumentError(f"{path}: there is no folder {path.parent} to write to: make it first")
    return path


def finish(logits: torch.Tensor, output: Output, activation: Activation, name: str) -> torch.Tensor:
    """Turn a stitched volume into the output asked for, slab by slab along I.

    Args:
        logits: (C, I, J, K) float32, or integers.
        output: "logits" is the volume itself; "probabilities" float32 (C, I, J, K); "labels" as `labels` says; a function gets slabs.
        activation: what makes probabilities of the volume.
        name: the subject, for errors.

    Raises:
        InferenceError: if the user's function returns something else than a tensor (C', i, J, K), or integers were to become probabilities.
    """
    if isinstance(output, str) and output == "logits":
        return logits
    if not logits.dtype.is_floating_point and output == "probabilities":
        raise InferenceError(f'subject "{name}": the model returned {logits.dtype}, which has no probabilities: ask for output="logits"')
    slices = logits.shape[1]
    step = max(1, _SLAB_VALUES // max(1, logits[:, 0].numel()))
    result: torch.Tensor | None = None
    for first in range(0, slices, step):
        slab = logits[:, first : first + step]
        done = _finish_slab(slab, output, activation, name)
        if result is None:
            result = torch.empty((done.shape[0], *logits.shape[1:]), dtype=done.dtype)
        if len(done) != len(result) or done.dtype != result.dtype:
            raise InferenceError(
                f'subject "{name}": the output function returned {len(done)} channels of {done.dtype} for the slab at I={first}, '
                f"and {len(result)} of {result.dtype} for the one before"
            )
        result[:, first : first + step] = done
    assert result is not None  # no volume is without voxels
    return result


def probabilities(logits: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Probabilities of a slab of logits (C, i, J, K): softmax over the channels or the sigmoid of each, as `Activation` says."""
    if activation == "none":
        return logits
    if activation == "sigmoid" or (activation == "auto" and len(logits) == 1):
        return torch.sigmoid(logits)
    return torch.softmax(logits, dim=0)


def labels(logits: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Labels of a slab of logits (C, i, J, K), in the smallest of uint8, int16 and int32 that holds them.

    The channel of the greatest value, (1, i, J, K); ties go to the lower channel. With one channel, or with "sigmoid", each channel is a
    region of its own instead: 1 where its probability exceeds 0.5, (C, i, J, K). Integers are labels already and stay as they are.
    """
    if not logits.dtype.is_floating_point:
        return logits
    if len(logits) == 1 or activation == "sigmoid":
        return (logits > (0.5 if activation == "none" else 0.0)).to(torch.uint8)  # the sigmoid exceeds 0.5 where its argument exceeds 0
    dtype = np.uint8 if len(logits) <= 2**8 else np.int16 if len(logits) <= 2**15 else np.int32
    return torch.from_numpy(argmax_channels(logits.contiguous().numpy(), dtype))


def write(path: Path, volume: torch.Tensor, affine: Affine) -> None:
    """Write a volume (C, I, J, K) as NIfTI: three axes if it has one channel, else the channels as the fourth axis."""
    write_nifti(path, volume.numpy(), affine)


def _finish_slab(slab: torch.Tensor, output: Output, activation: Activation, name: str) -> torch.Tensor:
    if output == "labels":
        return labels(slab, activation)
    if output == "probabilities":
        return probabilities(slab, activation)
    assert callable(output)
    done: object = output(slab)
    if not isinstance(done, torch.Tensor) or done.ndim != 4 or done.shape[1:] != slab.shape[1:]:
        what = f"shape {tuple(done.shape)}" if isinstance(done, torch.Tensor) else f"a {type(done).__name__}"
        raise InferenceError(
            f'subject "{name}": the output function must return a tensor (C, i, J, K) of {tuple(slab.shape[1:])}, not {what}'
        )
    return done
