"""MONAI: CacheDataset with everything that is not random cached, class indices included, and RandCropByLabelClassesd.

As its documentation advises: indices are computed once (ClassesToIndicesd), the cache is not copied (`copy_cache=False`, as cropping does
not change it), and the cached tensors are contiguous. Variants: "process" is its DataLoader with persistent workers, "thread" is its
ThreadDataLoader, which it advises for light work on cached data, and "threads" the same with thread workers.

Augmented, its dictionary transforms follow the crop as in its tutorials, with nnU-Net's probabilities and ranges for one channel: what
nnU-Net does to half of the channels has half the probability, and scales differ between axes, as RandAffined has it. The crop is as large
as the patch (corners that turn in are empty), which is less work than nnU-Net's larger one. Lazy resampling took 1.5 times as long.
"""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.data import CLASSES, Settings

NEEDS = ("monai",)
CYCLE = 1
WARM = 8


def prepare(pairs: list[tuple[Path, Path]], folder: Path, settings: Settings) -> None:
    for number, paths in enumerate(pairs):
        for path in paths:
            (folder / f"{number}_{path.name}").symlink_to(path.resolve())


def batches(folder: Path, settings: Settings, variant: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    from monai.data import CacheDataset, DataLoader, ThreadDataLoader
    from monai.transforms import (
        ClassesToIndicesd,
        Compose,
        EnsureChannelFirstd,
        EnsureTyped,
        LoadImaged,
        NormalizeIntensityd,
        RandCropByLabelClassesd,
    )

    warnings.simplefilter("ignore")
    keys, classes = ["image", "label"], len(CLASSES) + 1
    transform = Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys),
            NormalizeIntensityd("image"),
            EnsureTyped(keys, dtype=[np.float32, np.uint8]),
            ClassesToIndicesd("label", num_classes=classes),
            RandCropByLabelClassesd(
                keys,
                "label",
                (settings.patch,) * 3,
                ratios=[classes - 1, *[1] * (classes - 1)],
                num_classes=classes,
                indices_key="label_cls_indices",
            ),
            *(_augmentation(settings.patch) if settings.augment else []),
        ]
    )
    images = sorted(folder.glob("*_image.nii"))
    files = [{"image": str(path), "label": str(path).replace("_image", "_label")} for path in images]
    dataset = CacheDataset(files, transform, copy_cache=False, progress=False)
    # Drawing with replacement makes an epoch that does not end, so that no worker starts anew while being measured.
    sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=10**7)
    if variant == "process":
        loader = DataLoader(dataset, num_workers=settings.workers, batch_size=settings.batch, sampler=sampler, persistent_workers=True)
    elif variant == "thread":
        loader = ThreadDataLoader(dataset, num_workers=0, batch_size=settings.batch, sampler=sampler)
    else:
        loader = ThreadDataLoader(
            dataset, num_workers=settings.workers, batch_size=settings.batch, sampler=sampler, use_thread_workers=True
        )
    for batch in loader:
        yield batch["image"], batch["label"]


def _augmentation(size: int) -> list[Any]:
    """The nearest to nnU-Net's transforms, in their order."""
    import monai.transforms as mt

    both, angle = ["image", "label"], math.radians(30)
    grid: dict[str, Any] = {"spatial_size": (size,) * 3, "mode": ("bilinear", "nearest"), "padding_mode": "zeros", "cache_grid": True}
    return [
        mt.RandAffined(both, prob=0.2, rotate_range=(angle,) * 3, **grid),
        mt.RandAffined(both, prob=0.2, scale_range=((-0.3, 0.4),) * 3, **grid),
        mt.RandGaussianNoised("image", prob=0.1, std=0.1),
        mt.RandGaussianSmoothd("image", prob=0.2 * 0.5, **{f"sigma_{axis}": (0.5, 1.0) for axis in "xyz"}),
        mt.RandScaleIntensityd("image", prob=0.15, factors=0.25),
        mt.RandScaleIntensityFixedMeand("image", prob=0.15, factors=0.25, preserve_range=True),
        mt.RandSimulateLowResolutiond("image", prob=0.25 * 0.5, zoom_range=(0.5, 1.0)),
        mt.RandAdjustContrastd("image", prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
        mt.RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
        *(mt.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)),
    ]
