"""Whole volumes through a model, window by window."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from patchflow.augment.base import SpatialTransform
from patchflow.augment.recipe import Recipe
from patchflow.errors import ArgumentError
from patchflow.geometry.location import Outside
from patchflow.geometry.windows import OverlapMode
from patchflow.images.slabs import check_slab_path
from patchflow.inference.engine import IsEmpty
from patchflow.inference.masks import Mask
from patchflow.inference.memory import describe_needs
from patchflow.inference.outputs import Activation, Average, Output
from patchflow.inference.plan import Plan
from patchflow.inference.settings import values_of
from patchflow.inference.sidecar import write_sidecar
from patchflow.inference.sources import SourceLike
from patchflow.inference.stitching import Results, Stitching
from patchflow.inference.targets import WantedGrid, wanted_grid
from patchflow.inference.views import Model
from patchflow.notices import say
from patchflow.types import ScaleLike, SizeLike

PathLike = str | Path


def predict(
    model: Model | Sequence[Model],
    source: SourceLike,
    *,
    patch_size: SizeLike,
    patch_overlap: SizeLike | None = None,
    overlap_mode: OverlapMode = "gaussian",
    output: Output | Mapping[str, Output] = "labels",
    activation: Activation | Mapping[str, Activation] = "auto",
    scale: ScaleLike | Mapping[str, ScaleLike] = 1,
    images: Sequence[str] = ("image",),
    fill: float | Mapping[str, float] = 0,
    outside: Outside = "constant",
    mask: Mask | None = None,
    skip_empty: IsEmpty | None = None,
    mirror_axes: Sequence[int] = (),
    views: Sequence[Recipe | SpatialTransform] = (),
    average: Average = "logits",
    grid: WantedGrid = None,
    batch_size: int = 1,
    device: torch.device | str | None = None,
    path: PathLike | Mapping[str, PathLike] | None = None,
    label_names: Mapping[int, str] | None = None,
    memory_budget: int | str | None = None,
    scratch_dir: PathLike | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Results:
    """Predict a whole volume by a sliding window, slab by slab.

    Windows are visited along I; slices that no later window reaches are finished (probabilities, labels), brought to the grid asked for and
    written at once, and their memory is used again. So what is held is, for each channel of the model's output, `patch_size[0] x J x K`
    float32 and two batches of predictions, whatever I is; the sum is printed first where `progress` is shown. Windows are read, and
    predictions stitched, by threads of their own while the model runs.

    The model's outputs are stitched as they are (logits, say) and only then made probabilities or labels. A `torch.nn.Module` runs in
    evaluation mode, and each of its modules gets its own mode back afterwards, also after an error. Nothing records gradients.

    Args:
        model: called with float32 (B, C, i, j, k); returns (B, C', i, j, k), or several such tensors in a dict, or in a tuple or list (they
            are then named "0", "1", ...). A list of models is an ensemble: their predictions are averaged.
        source: an entry of a cache, a `Subject`, or an array or tensor (C, I, J, K).
        patch_size: voxels of a window, an int or three ints (I, J, K).
        patch_overlap: voxels that neighbouring windows share at least; None for half the patch.
        overlap_mode: "crop", "average", "hann", "gaussian" or a function of a size; one for all axes or three; see `GridAggregator`.
        output: "labels": the channel of the greatest value, (1, I, J, K) in the smallest integer dtype, or for one channel, or with the
            "sigmoid", a mask per channel; "probabilities": float32 (C', I, J, K); "logits": what the model returned, stitched; or a
            function that is called with slabs (C', i, J, K) of the stitched logits, of any thickness i, and returns (C'', i, J, K);
            voxels that no window covers are 0 in them.
        activation: how probabilities come of the model's output: "auto" is the softmax over the channels, or the sigmoid for one channel;
            "softmax"; "sigmoid"; "none" if they are probabilities already.
        scale: voxels of the output per voxel of the input, a rational number or three: 1/2 for a model that predicts at half the
            resolution. The result has shape x scale voxels, rounded up.
        images: the images that are given to the model, concatenated along the channels in this order.
        fill, outside: what lies outside the volume, where a window hangs over it; see `GridSampler`.
        mask: only windows that touch it are predicted; see `GridSampler`. Voxels that no window covers are background: label 0.
        skip_empty: windows (C, i, j, k) for which it is true are not predicted, such as `lambda window: window.max() < 0.1`; the first one
            always is.
        mirror_axes: test-time augmentation: each window is predicted for all combinations of mirrored axes, and the mean is taken.
        views: recipes of spatial transforms, or such transforms: each shows the windows once more, its prediction is brought back, and the
            mean is taken. Elastic ones are slow to bring back: minutes for a window of 128^3.
        average: "logits" or "probabilities": of what the mean is taken, over views, models and windows that overlap.
        grid: the voxel grid of the results. None: that of the source as it is read, on which patchflow's own images and labels lie.
            "native": that of the source before its preprocessing (an entry's files, as they came), for a result that lies on the original
            in any viewer. Or that of an image (its file, a `ScalarImage` or `LabelMap`), a `Subject`, an entry, or a `VoxelGrid`.
            Probabilities are interpolated linearly, and labels made of them afterwards; voxels outside the source are background.
        batch_size: windows per call of the model.
        device: where windows are sent; the model must be there. None for the device of the model's first parameter, else the CPU.
        path: a file to write, .nii, .nii.gz or .h5, with the affine of the results' grid; it appears under this name only when it is whole.
            For a model of several outputs a dict of paths by output name.
        label_names: label value to its name, kept beside the file, in JSON: out.json for out.nii.gz.
        memory_budget: bytes, or text such as "2GiB", for slices in work and predictions in flight. Where they exceed it, what is done of
            a slice leaves before the rest (labels and probabilities on the source's own grid), which takes less memory and more time; and
            where that is not enough, a scratch file holds the slices in work. Of probabilities, the last bit may change with it. None for a
            quarter of the machine's memory.
        scratch_dir: where that file lies, on a disk; None for the folder of `path`, or the system's for temporary files.
        seed: of the parameters of `views`.
        progress: whether to show a progress bar, and say before how much memory it takes.

    For a model of several outputs, `output`, `activation` and `scale` may be dicts by output name.

    Returns:
        A tensor on the CPU, or where `path` is given the path of the file; a dict of these for a model that returns several.

    Raises:
        ArgumentError: for an argument that cannot be used; before the model is called where that is possible.
        UnknownNameError: if the source lacks one of `images`.
        InferenceError: if the model returns something that cannot be stitched: no tensor, another spatial size, another number of channels
            than before, NaN. It names the subject and the window, and no file is written. An error of the model itself passes through,
            with a note that names them.
        ImageFileError: if a file cannot be written.
    """
    plan = Plan(
        patch_size=patch_size,
        patch_overlap=patch_overlap,
        overlap_mode=overlap_mode,
        output=output,
        activation=activation,
        scale=scale,
        images=images,
        fill=fill,
        outside=outside,
        skip_empty=skip_empty,
        mirror_axes=mirror_axes,
        views=views,
        average=average,
        batch_size=batch_size,
        device=device,
        label_names=label_names or {},
        memory_budget=memory_budget,
        scratch_dir=scratch_dir,
        seed=seed,
        progress=progress,
    )
    paths, engine = _check_paths(path), plan.engine(model)
    windows = plan.grid(source, mask)
    target = wanted_grid(grid, windows.source)
    stitching = Stitching(windows, plan.settings, target, paths, path, plan.budget)
    if progress:
        say(describe_needs(windows, plan.settings, plan.work, plan.budget, target, in_memory=path is None))
    ((_, results),) = engine.run([stitching], len(windows))
    for file in values_of(results):
        if isinstance(file, Path) and plan.label_names:
            write_sidecar(file, {"labels": {str(value): name for value, name in plan.label_names.items()}})
    return results


def _check_paths(path: PathLike | Mapping[str, PathLike] | None) -> Callable[[str], Path | None]:
    """Where an output is written, by its name."""
    if path is None:
        return lambda name: None
    if not isinstance(path, (str, Path, Mapping)):
        raise ArgumentError(f"path must be a file, or a dict of files by output name, not {path!r}")
    if not isinstance(path, Mapping):
        checked = check_slab_path(path)
        return lambda name: checked
    files = {name: check_slab_path(file) for name, file in path.items()}
    if len({file.resolve() for file in files.values()}) < len(files):
        raise ArgumentError(f"path names one file for two outputs, {', '.join(map(str, files.values()))}: give each its own")
    return files.get
