"""TorchIO: its Queue with a LabelSampler, as its documentation shows: workers load volumes, the loader that pops patches has none.

Volumes are uncompressed NIfTI, which it reads fastest, and are not normalised, which would cost it time for each volume read. It hands
over int16, and is not charged for the conversion to float32. samples_per_volume is the documentation's 10; the queue is filled with four
volumes' patches, so a cycle of work is one filling.

Augmented, the transforms are the dataset's, as its documentation shows: each volume is changed when it is loaded, and its patches share
that. They have nnU-Net's probabilities and ranges for one channel; noise is scaled to the volumes, which are not normalised. It has no
brightness, no contrast, and no way to keep statistics; anisotropy stands for low resolution.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import CLASSES, Settings

NEEDS = ("torchio",)
SAMPLES_PER_VOLUME, VOLUMES = 10, 4
CYCLE = SAMPLES_PER_VOLUME * VOLUMES // 2
WARM = CYCLE
SPREAD = 500  # HU: the standard deviation of the volumes


def prepare(pairs: list[tuple[Path, Path]], folder: Path, settings: Settings) -> None:
    for number, paths in enumerate(pairs):
        for path in paths:
            (folder / f"{number}_{path.name}").symlink_to(path.resolve())


def batches(folder: Path, settings: Settings, variant: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    import torchio

    images = sorted(folder.glob("*_image.nii"))
    subjects = [
        torchio.Subject(image=torchio.ScalarImage(path), label=torchio.LabelMap(path.with_name(path.name.replace("image", "label"))))
        for path in images
    ]
    # An epoch is many rounds over the subjects, so that it does not end, and start its workers anew, while being measured.
    dataset = torchio.SubjectsDataset(subjects * 1000, transform=_augmentation() if settings.augment else None)
    weights = {0: len(CLASSES), **dict.fromkeys(CLASSES, 1)}
    sampler = torchio.data.LabelSampler(settings.patch, label_name="label", label_probabilities=weights)
    queue = torchio.Queue(dataset, SAMPLES_PER_VOLUME * VOLUMES, SAMPLES_PER_VOLUME, sampler, num_workers=settings.workers)
    loader = torchio.SubjectsLoader(queue, batch_size=settings.batch, num_workers=0)
    while True:
        for batch in loader:
            yield batch["image"][torchio.DATA], batch["label"][torchio.DATA]


def _augmentation() -> Any:
    """The nearest to nnU-Net's transforms, in their order."""
    import torchio

    gamma = (math.log(0.7), math.log(1.5))
    return torchio.Compose(
        [
            torchio.RandomAffine(scales=0, degrees=30, p=0.2),
            torchio.RandomAffine(scales=(0.7, 1.4), degrees=0, isotropic=True, p=0.2),
            torchio.RandomNoise(std=(0, 0.1 * SPREAD), p=0.1),
            torchio.RandomBlur(std=(0.5, 1.0), p=0.2 * 0.5),
            torchio.RandomAnisotropy(downsampling=(1, 2), p=0.25 * 0.5),
            torchio.RandomGamma(log_gamma=gamma, p=0.1),
            torchio.RandomGamma(log_gamma=gamma, p=0.3),
            torchio.RandomFlip(axes=(0, 1, 2), flip_probability=0.5),
        ]
    )
