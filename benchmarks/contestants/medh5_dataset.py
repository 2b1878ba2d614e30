"""medh5: its PatchDataset on its own files, written with its codec profile "training" and a sampling index, grid hinted at the patch size.

The sampler is "balanced": half of the patches on a class, half anywhere. Labels are read as a label map, its cheapest form for classes
that do not overlap.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.data import CLASSES, SPACING, Settings, read

NEEDS = ("medh5",)
CYCLE = 1
WARM = 8


def prepare(pairs: list[tuple[Path, Path]], folder: Path, settings: Settings) -> None:
    import medh5

    names = {value: f"class{value}" for value in CLASSES}
    classes = medh5.LabelSet("organs", version="1.0.0", classes=[medh5.LabelClass(v, n, n, category="organ") for v, n in names.items()])
    for number, (image_path, label_path) in enumerate(pairs):
        image = read(image_path)
        with medh5.create(
            folder / f"case{number}.medh5", sample_id=f"case{number}", subject_id=f"case{number}", codec="training"
        ) as writer:
            writer.label_set(classes)
            writer.add_timepoint("tp0", label="baseline", days_from_baseline=0)
            writer.add_grid("ct", shape=image.shape, spacing=SPACING, timepoint="tp0", patch_hint=(settings.patch,) * 3)
            writer.add_image("CT", image, grid="ct", modality="CT", value_type="quantitative", value_units="HU")
            writer.add_segmentation("organs", grid="ct", labelmap=read(label_path), annotated_classes=list(names.values()))
            writer.build_index()


def batches(folder: Path, settings: Settings, variant: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    from medh5.sampling import PatchSampler
    from medh5.torch import PatchDataset, collate, worker_init_fn

    dataset = PatchDataset(
        sorted(folder.glob("*.medh5")),
        PatchSampler((settings.patch,) * 3, strategy="balanced"),
        images=["CT"],
        annotations={"organs": []},
        label_format="labelmap",
        samples_per_volume=10**6,  # an epoch that does not end while being measured
    )
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=settings.batch, num_workers=settings.workers, shuffle=True, worker_init_fn=worker_init_fn, collate_fn=collate
    )
    for batch in loader:
        yield batch["images"]["CT"], batch["label"]["organs"]
