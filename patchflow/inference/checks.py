"""What a model may return for windows, and how errors name them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from patchflow.errors import InferenceError
from patchflow.geometry.location import PatchLocation
from patchflow.kernels.blend import count_nonfinite
from patchflow.types import Array, Int3


def check_prediction(prediction: Any, name: str, windows: Sequence[PatchLocation], size: Int3) -> None:
    """Raise `InferenceError`, naming the subject and a window, unless `prediction` is a tensor (B, C, i, j, k) for these windows."""
    if not isinstance(prediction, torch.Tensor):
        what = "None" if prediction is None else f"a {type(prediction).__name__}"
        where = describe(name, windows[0]) if windows else f'subject "{name}"'
        raise InferenceError(f"{where}: the prediction must be a tensor (B, C, i, j, k), not {what}")
    expected = f"({len(windows)}, C, {size[0]}, {size[1]}, {size[2]})"
    shape = tuple(prediction.shape)
    where = describe(name, windows[0]) if windows else f'subject "{name}"'
    if len(shape) != 5 or shape[0] != len(windows) or shape[2:] != size or (shape[1] == 0 and windows):
        raise InferenceError(f"{where}: the prediction must be {expected}, one for each window and of the windows' size, not {shape}")
    if prediction.dtype.is_complex:
        raise InferenceError(f"{where}: the prediction must hold real numbers, not {prediction.dtype}")


def describe(name: str, window: PatchLocation) -> str:
    """The subject and the window, for errors."""
    return f'subject "{name}", window {box(window)}'


def box(window: PatchLocation) -> str:
    """A window as slices: [i0:i1, j0:j1, k0:k1]."""
    return "[" + ", ".join(f"{start}:{stop}" for start, stop in zip(window.start, window.stop, strict=True)) + "]"


def check_finite(values: torch.Tensor, name: str, windows: Sequence[PatchLocation]) -> None:
    """Raise `InferenceError`, naming the subject and the window, if a value is NaN or infinite, or is so as float32."""
    for patch, window in zip(values, windows, strict=True):
        if bad := sum(count_nonfinite(channel) for channel in float_channels(patch)):
            raise InferenceError(
                f"{describe(name, window)}: {bad} of {patch.numel()} predicted values are NaN or infinite: "
                "check the model's weights and the image's voxels"
            )


def float_channels(patch: torch.Tensor) -> Iterator[Array]:
    """The channels of a patch (C, i, j, k) one by one, float32 and C-contiguous, so that no copy of the whole is made."""
    for channel in patch:
        array: Array = channel.to(torch.float32).contiguous().numpy()
        yield array


def rows_of(value: Any, first: int, last: int, number: int) -> Any:
    """Some rows of a prediction of `number` windows; what is no batch is left for the aggregator to refuse."""
    return value[first:last] if isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == number else value


def channels_of_prediction(value: Any) -> int:
    """Channels of a prediction (B, C, i, j, k); 1 for what is none, which the aggregator refuses."""
    return int(value.shape[1]) if isinstance(value, torch.Tensor) and value.ndim == 5 else 1
