"""TorchIO: its Queue with a LabelSampler, as its documentation shows: workers load volumes, the loader that pops patches has none.

Volumes are uncompressed NIfTI, which it reads fastest, and are not normalised, which would cost it time for each volume read. It hands
over int16, and is not charged for the conversion to float32. samples_per_volume is the documentation's 10; the queue is filled with four
volumes' patches, so a cycle of work is one filling.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.data import CLASSES, Settings

NEEDS = ("torchio",)
SAMPLES_PER_VOLUME, VOLUMES = 10, 4
CYCLE = SAMPLES_PER_VOLUME * VOLUMES // 2
WARM = CYCLE


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
    dataset = torchio.SubjectsDataset(subjects * 1000)
    weights = {0: len(CLASSES), **dict.fromkeys(CLASSES, 1)}
    sampler = torchio.data.LabelSampler(settings.patch, label_name="label", label_probabilities=weights)
    queue = torchio.Queue(dataset, SAMPLES_PER_VOLUME * VOLUMES, SAMPLES_PER_VOLUME, sampler, num_workers=settings.workers)
    loader = torchio.SubjectsLoader(queue, batch_size=settings.batch, num_workers=0)
    while True:
        for batch in loader:
            yield batch["image"][torchio.DATA], batch["label"][torchio.DATA]
