"""nnU-Net v2: its nnUNetDataLoader on its own Blosc2 data, wrapped as nnUNetTrainer.get_dataloaders does.

The data are what DefaultPreprocessor leaves for a CT: axes K, J, I, clipped to the foreground's percentiles 0.5 and 99.5 and z-scored,
float32; label int16; class_locations from its own sampling function; blocks and chunks from its own comp_blosc2_params. Oversampling is
its default, 0.33: of two patches, one is drawn anywhere and one on a class. num_cached and wait_time are the trainer's. Augmented,
transforms and the larger patch that they start from are what the trainer's own methods give for this size, without deep supervision.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.data import CLASSES, Settings, read

NEEDS = ("nnunetv2", "batchgenerators", "blosc2")
CYCLE = 1
WARM = 8


def prepare(pairs: list[tuple[Path, Path]], folder: Path, settings: Settings) -> None:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

    for number, (image_path, label_path) in enumerate(pairs):
        image, label = (read(path).transpose(2, 1, 0)[None] for path in (image_path, label_path))
        data, seg = _ct_normalised(image, label), label.astype(np.int16)
        properties = {"class_locations": DefaultPreprocessor._sample_foreground_locations(seg, list(CLASSES))}
        patch = (settings.patch,) * 3
        blocks, chunks = comp_blosc2_params(data.shape, patch, data.itemsize)
        blocks_seg, chunks_seg = comp_blosc2_params(seg.shape, patch, seg.itemsize)
        nnUNetDatasetBlosc2.save_case(
            data, seg, properties, str(folder / f"case{number}"), chunks=chunks, blocks=blocks, chunks_seg=chunks_seg, blocks_seg=blocks_seg
        )


def _ct_normalised(image: np.ndarray, label: np.ndarray) -> np.ndarray:
    foreground = image[label > 0]
    low, high = np.percentile(foreground, (0.5, 99.5))
    return ((np.clip(image.astype(np.float32), low, high) - foreground.mean()) / foreground.std()).astype(np.float32)


def batches(folder: Path, settings: Settings, variant: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    warnings.simplefilter("ignore")
    patch = (settings.patch,) * 3
    labels = LabelManager({"background": 0, **{f"class{value}": value for value in CLASSES}}, regions_class_order=None)
    transforms, initial = _training(patch, labels) if settings.augment else (None, patch)
    loader = nnUNetDataLoader(
        nnUNetDatasetBlosc2(str(folder)), settings.batch, initial, patch, labels, oversample_foreground_percent=0.33, transforms=transforms
    )
    augmenter = NonDetMultiThreadedAugmenter(
        loader, None, settings.workers, num_cached=max(6, settings.workers // 2), seeds=None, pin_memory=False, wait_time=0.002
    )
    for batch in augmenter:
        yield batch["data"], batch["target"]


def _training(patch: tuple[int, int, int], labels: Any) -> tuple[Any, Any]:
    """The trainer's transforms, and the size of the patches that they are given: larger, so that a rotation leaves no empty corners."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    trainer = SimpleNamespace(configuration_manager=SimpleNamespace(patch_size=list(patch)), print_to_log_file=lambda *_: None)
    rotation, dummy_2d, initial, mirror_axes = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)
    transforms = nnUNetTrainer.get_training_transforms(
        patch,
        rotation,
        None,
        mirror_axes,
        dummy_2d,
        use_mask_for_norm=[False],
        is_cascaded=False,
        foreground_labels=labels.foreground_labels,
        regions=None,
        ignore_label=labels.ignore_label,
    )
    return transforms, initial
