"""A whole volume through a model, window by window."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from patchflow.errors import ArgumentError, InferenceError
from patchflow.geometry.location import PatchLocation
from patchflow.geometry.windows import check_overlap_mode
from patchflow.inference.aggregator import GridAggregator, describe
from patchflow.inference.export import Activation, Output, check_activation, check_output, check_path, finish, write
from patchflow.inference.grid import GridSampler, SourceLike, find_image
from patchflow.types import SizeLike, count, int3

Predictions = torch.Tensor | Mapping[str, torch.Tensor] | Sequence[torch.Tensor]


class _Settings(NamedTuple):
    mode: str
    output: Output | Mapping[str, Output]
    activation: Activation | Mapping[str, Activation]
    path: str | Path | Mapping[str, str | Path] | None


def predict(
    model: Callable[[torch.Tensor], Predictions],
    source: SourceLike,
    *,
    patch_size: SizeLike,
    patch_overlap: SizeLike | None = None,
    overlap_mode: str = "gaussian",
    output: Output | Mapping[str, Output] = "labels",
    activation: Activation | Mapping[str, Activation] = "auto",
    images: Sequence[str] = ("image",),
    fill: float | Mapping[str, float] = 0,
    batch_size: int = 1,
    device: torch.device | str | None = None,
    path: str | Path | Mapping[str, str | Path] | None = None,
    progress: bool = True,
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Predict a whole volume by a sliding window.

    The model's outputs are stitched as they are (logits, say) and only then made probabilities or labels. A `torch.nn.Module` runs in
    evaluation mode, and each of its modules gets its own mode back afterwards, also after an error. Nothing records gradients.

    Args:
        model: called with float32 (B, C, i, j, k); returns (B, C', i, j, k), or several such tensors in a dict, or in a tuple or list (they
            are then named "0", "1", ...).
        source: an entry of a cache, a `Subject`, or an array or tensor (C, I, J, K).
        patch_size: voxels of a window, an int or three ints (I, J, K).
        patch_overlap: voxels that neighbouring windows share at least; None for half the patch.
        overlap_mode: "crop", "average", "hann" or "gaussian"; see `GridAggregator`.
        output: "labels": the channel of the greatest value, (1, I, J, K) in the smallest integer dtype, or for one channel, or with the
            "sigmoid", a mask per channel; "probabilities": float32 (C', I, J, K); "logits": what the model returned, stitched; or a
            function that is called with slabs (C', i, J, K) of the stitched logits, of any thickness i, and returns (C'', i, J, K).
        activation: how probabilities come of the model's output: "auto" is the softmax over the channels, or the sigmoid for one channel;
            "softmax"; "sigmoid"; "none" if they are probabilities already.
        images: the images that are given to the model, concatenated along the channels in this order.
        fill: the value of voxels outside the volume, where a window is larger than it; see `GridSampler`.
        batch_size: windows per call of the model.
        device: where windows are sent; the model must be there. None for the device of the model's first parameter, else the CPU.
        path: a NIfTI file to write, with the affine of the source; it appears under this name only when it is whole. For a model of
            several outputs a dict of paths by output name.
        progress: whether to show a progress bar.

    For a model of several outputs, `output` and `activation` may be dicts by output name.

    Returns:
        A tensor on the CPU, or a dict of tensors for a model that returns several.

    Raises:
        ArgumentError: for an argument that cannot be used; before the model is called where that is possible.
        UnknownNameError: if the source lacks one of `images`.
        InferenceError: if the model returns something that cannot be stitched: no tensor, another spatial size, another number of channels
            than before, NaN. It names the subject and the window, and no file is written. An error of the model itself passes through,
            with a note that names them.
    """
    settings = _Settings(check_overlap_mode(overlap_mode), output, activation, path)
    _check_arguments(settings, batch_size, images)
    size = int3(patch_size, "patch_size")
    overlap: SizeLike = (size[0] // 2, size[1] // 2, size[2] // 2) if patch_overlap is None else patch_overlap
    grid = GridSampler(source, size, overlap, keys=list(images), fill=fill)
    stitched, single = _stitch(model, grid, settings, batch_size, _device(model, device), progress)
    results = {}
    for name, aggregator in stitched.items():
        results[name] = finish(aggregator.get_output_tensor(), _of(output, name), _of(activation, name), grid.name)
    for name, file in _paths(path, list(results)).items():
        write(file, results[name], grid.source.affine)
    return next(iter(results.values())) if single else results


def _stitch(
    model: Callable[[torch.Tensor], Predictions],
    grid: GridSampler,
    settings: _Settings,
    batch_size: int,
    device: torch.device,
    progress: bool,
) -> tuple[dict[str, GridAggregator], bool]:
    aggregators: dict[str, GridAggregator] = {}
    single = True
    with evaluating(model), tqdm(total=len(grid), desc=grid.name, unit="window", disable=not progress) as bar:
        for first in range(0, len(grid), batch_size):
            locations = grid.locations[first : first + batch_size]
            windows = [PatchLocation.from_array(row) for row in locations]
            returned = _call(model, read_batch(grid, windows).to(device), grid, windows)
            predictions, is_single = named_outputs(returned, grid.name, windows)
            if not aggregators:
                single = is_single
                _check_outputs(settings, predictions, single)
                aggregators = {name: GridAggregator(grid, settings.mode) for name in predictions}
            elif predictions.keys() != aggregators.keys():
                raise InferenceError(
                    f"{describe(grid.name, windows[0])}: the model returned {_list(predictions)}, but {_list(aggregators)} before"
                )
            for name, prediction in predictions.items():
                aggregators[name].add_batch(prediction, locations)
            bar.update(len(windows))
    return aggregators, single


def read_batch(grid: GridSampler, windows: Sequence[PatchLocation]) -> torch.Tensor:
    """Some windows of a grid, its images along the channels: float32 (B, C, i, j, k), each patch read straight into its place."""
    channels = [find_image(grid.source, name).shape[0] for name in grid.keys]
    batch = torch.empty((len(windows), sum(channels), *grid.patch_size))
    array = batch.numpy()
    for patch, window in zip(array, windows, strict=True):
        first = 0
        for name, width in zip(grid.keys, channels, strict=True):
            if find_image(grid.source, name).kind == "scalar":
                grid.read(name, window, out=patch[first : first + width])
            else:
                patch[first : first + width] = grid.read(name, window)
            first += width
    return batch


def _call(model: Callable[[torch.Tensor], Predictions], batch: torch.Tensor, grid: GridSampler, windows: Sequence[PatchLocation]) -> Any:
    try:
        return model(batch)
    except Exception as error:
        more = f" and {len(windows) - 1} more of its batch" if len(windows) > 1 else ""
        error.add_note(f"while predicting {describe(grid.name, windows[0])}{more}")
        raise


def named_outputs(returned: Any, name: str, windows: Sequence[PatchLocation]) -> tuple[dict[str, torch.Tensor], bool]:
    """What a model returned, by output name ("" for a lone tensor), and whether it is a lone tensor."""
    single = not isinstance(returned, (Mapping, tuple, list))
    if single:
        outputs = {"": returned}
    elif isinstance(returned, Mapping):
        outputs = {str(key): value for key, value in returned.items()}
    else:
        outputs = {str(rank): value for rank, value in enumerate(returned)}
    if not outputs:
        raise InferenceError(f"{describe(name, windows[0])}: the model returned an empty {type(returned).__name__}")
    return outputs, single


def _check_arguments(settings: _Settings, batch_size: int, images: Sequence[str]) -> None:
    count(batch_size, "batch_size", 1)
    if isinstance(images, str) or not images or len(set(images)) != len(images):
        raise ArgumentError(f'images must be a list of image names, each once, such as ("image",), not {images!r}')
    for output in _values(settings.output):
        check_output(output)
    for activation in _values(settings.activation):
        check_activation(activation)
    for path in _values(settings.path):
        if path is not None:
            check_path(path)


def _check_outputs(settings: _Settings, outputs: Mapping[str, Any], single: bool) -> None:
    """Hold the settings against what the model returned first, so that a wrong name does not cost a whole prediction."""
    for what, value in (("output", settings.output), ("activation", settings.activation), ("path", settings.path)):
        if isinstance(value, Mapping):
            if single:
                raise ArgumentError(f"{what} names {_list(value)}, but the model returns one tensor, which has no name")
            unknown = [name for name in value if name not in outputs]
            missing = [name for name in outputs if name not in value] if what != "path" else []
            if unknown or missing:
                raise ArgumentError(f"{what} names {_list(value)}, but the model returns {_list(outputs)}")
    if not single and isinstance(settings.path, (str, Path)):
        raise ArgumentError(f"the model returns several outputs, {_list(outputs)}: give a path for each, as a dict, not {settings.path}")


def _paths(path: str | Path | Mapping[str, str | Path] | None, names: Sequence[str]) -> dict[str, Path]:
    if path is None:
        return {}
    return {name: check_path(file) for name, file in path.items()} if isinstance(path, Mapping) else {names[0]: check_path(path)}


def _of(value: Any, name: str) -> Any:
    return value[name] if isinstance(value, Mapping) else value


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else [value]


def _list(names: Mapping[str, Any]) -> str:
    return ", ".join(f'"{name}"' for name in names) if "" not in names else "one tensor"


def _device(model: Any, device: torch.device | str | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each module has its own mode again (a frozen one in a training model stays frozen)."""
    modes = [(module, module.training) for module in model.modules()] if isinstance(model, nn.Module) else []
    try:
        if isinstance(model, nn.Module):
            model.eval()
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training
