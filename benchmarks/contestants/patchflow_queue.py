"""patchflow: its Queue with a LabelSampler, z-score folded into the read. Variants: worker kind and layout of the cache.

Augmented, its recipe is `pf.augment.nnunet`, as it stands.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

import patchflow as pf
from benchmarks.data import CLASSES, Settings

NEEDS = ("patchflow",)
CYCLE = 1
WARM = 400  # each block's checksum is verified once per process, on first touch: warm is after that
LAYOUTS = ("contiguous", "compressed")


def subjects(pairs: list[tuple[Path, Path]]) -> list[pf.Subject]:
    return [pf.Subject(f"case{n}", image=pf.ScalarImage(image), label=pf.LabelMap(label)) for n, (image, label) in enumerate(pairs)]


def prepare(pairs: list[tuple[Path, Path]], folder: Path, settings: Settings) -> None:
    for layout in LAYOUTS:
        preprocess = pf.Pipeline([pf.preprocess.ZNormalize()])
        pf.build_cache(subjects(pairs), folder / layout, preprocess=preprocess, layout=layout, progress=False)
        next(iter(queue(folder, settings, f"thread {layout}")))  # kernels are compiled once per machine


def queue(folder: Path, settings: Settings, variant: str, every: bool = False) -> pf.Queue:
    """The queue; `every`: augmented, each transform happens to each patch, which no one would train with."""
    kind, layout = variant.split()
    recipe = pf.augment.nnunet(settings.patch) if settings.augment else None
    for step in recipe.transforms if recipe and every else ():
        step.p = 1.0
        if hasattr(step, "p_per_channel"):
            step.p_per_channel = 1.0
    sampler = pf.LabelSampler(settings.patch, label="label", probabilities={0: len(CLASSES), **dict.fromkeys(CLASSES, 1)})
    return pf.Queue(
        pf.open_cache(folder / layout),
        sampler,
        samples_per_volume=1000,
        batch_size=settings.batch,
        transform=recipe,
        num_workers=settings.workers,
        worker_kind="process" if kind == "process" else "thread",
        persistent_workers=True,
    )


def batches(folder: Path, settings: Settings, variant: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    stream = queue(folder, settings, variant)
    while True:
        for batch in stream:
            yield batch["image"], batch["label"]
