"""How volumes are predicted: every setting that does not depend on the subject, checked before a model is called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchflow.augment.base import SpatialTransform
from patchflow.augment.recipe import Recipe
from patchflow.errors import ArgumentError
from patchflow.geometry.grid import tile
from patchflow.geometry.location import Outside
from patchflow.geometry.windows import OverlapMode
from patchflow.inference.engine import Engine, IsEmpty
from patchflow.inference.grid import GridSampler
from patchflow.inference.masks import Mask
from patchflow.inference.memory import Budget, Work
from patchflow.inference.outputs import Activation, Average, Output
from patchflow.inference.settings import Settings, plain, values_of
from patchflow.inference.sources import SourceLike, check_images
from patchflow.inference.views import Model, Views
from patchflow.types import Int3, ScaleLike, SizeLike, count, fraction3, int3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of `patchflow.predict`, where they are explained."""

    patch_size: SizeLike
    patch_overlap: SizeLike | None = None
    overlap_mode: OverlapMode = "gaussian"
    output: Output | Mapping[str, Output] = "labels"
    activation: Activation | Mapping[str, Activation] = "auto"
    scale: ScaleLike | Mapping[str, ScaleLike] = 1
    images: Sequence[str] = ("image",)
    fill: float | Mapping[str, float] = 0
    outside: Outside = "constant"
    skip_empty: IsEmpty | None = None
    mirror_axes: Sequence[int] = ()
    views: Sequence[Recipe | SpatialTransform] = ()
    average: Average = "logits"
    batch_size: int = 1
    device: torch.device | str | None = None
    label_names: Mapping[int, str] = field(default_factory=dict)
    memory_budget: int | str | None = None
    scratch_dir: str | Path | None = None
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        int3(self.patch_size, "patch_size")
        count(self.batch_size, "batch_size", 1)
        if isinstance(self.images, str) or not self.images or len(set(self.images)) != len(self.images):
            raise ArgumentError(f'images must be a list of image names, each once, such as ("image",), not {self.images!r}')
        if self.skip_empty is not None and not callable(self.skip_empty):
            raise ArgumentError(f"skip_empty must be a function of a window (C, i, j, k), not {self.skip_empty!r}")
        if self.views and any(set(fraction3(scale, "scale")) != {1} for scale in values_of(self.settings.scale)):
            raise ArgumentError("views need predictions of the windows' size: leave scale at 1, or mirror instead")
        _ = self.settings, self.budget  # made here, so that what they refuse is refused now

    @cached_property
    def settings(self) -> Settings:
        """How predictions are stitched and finished."""
        return Settings(self.overlap_mode, self.output, self.activation, self.scale, self.average, self.label_names)

    @cached_property
    def budget(self) -> Budget:
        """What may be held in memory."""
        return Budget.of(self.memory_budget, self.scratch_dir)

    @property
    def overlap(self) -> SizeLike:
        """Voxels that neighbouring windows share at least: half the patch unless told otherwise."""
        if self.patch_overlap is not None:
            return self.patch_overlap
        size, multiple = int3(self.patch_size, "patch_size"), self.settings.multiple
        return [n // 2 // step * step for n, step in zip(size, multiple, strict=True)]

    def window_count(self, shape: Int3) -> int:
        """Windows of a volume of this shape."""
        return len(tile(shape, self.patch_size, self.overlap, self.settings.multiple))

    def grid(self, source: SourceLike, mask: Mask | None = None) -> GridSampler:
        """The windows of one subject."""
        check_images(source, self.images)
        return GridSampler(
            source,
            self.patch_size,
            self.overlap,
            keys=list(self.images),
            fill=self.fill,
            outside=self.outside,
            mask=mask,
            multiple=self.settings.multiple,
        )

    def engine(self, model: Model | Sequence[Model]) -> Engine:
        """What carries the plan out with a model, or an ensemble of several."""
        views = Views(model, self.mirror_axes, self.views, self.settings, self.images, self.seed, self.fill, self.outside)
        return Engine(views, self.batch_size, _device(views.models[0], self.device), self.skip_empty, self.progress)

    @property
    def work(self) -> Work:
        """What is in work at a time; of an ensemble of models, one is counted."""
        return Work(self.batch_size, len(self.views), bool(self.mirror_axes or self.views))

    def record(self) -> dict[str, Any]:
        """What tells predictions apart, as plain JSON values."""
        own = ("patch_size", "patch_overlap", "images", "fill", "outside", "skip_empty", "mirror_axes", "views", "seed")
        return self.settings.record() | {name: plain(getattr(self, name)) for name in own}


def _device(model: Any, device: torch.device | str | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
