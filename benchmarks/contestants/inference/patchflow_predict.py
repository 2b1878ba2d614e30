"""patchflow: `predict` with its defaults. Variants: from a cache or from a tensor in memory, the window function, and a memory budget."""

from collections.abc import Callable
from typing import Any, Literal

import torch

import patchflow as pf
from benchmarks.contestants.inference.material import Material

NEEDS = ("patchflow",)
SETTINGS = ({},)


def build(material: Material, variant: str, setting: dict[str, Any]) -> Callable[[torch.nn.Module, str], torch.Tensor]:
    source, mode, *budget = variant.split()
    given = material.entry if source == "cache" else material.tensor
    sizes: dict[str, Any] = {"patch_size": material.patch, "patch_overlap": material.patch // 2, "overlap_mode": mode}
    if budget:
        sizes |= {"memory_budget": budget[0], "scratch_dir": material.folder}

    def run(model: torch.nn.Module, product: str) -> torch.Tensor:
        output: Literal["labels", "logits"] = "logits" if product == "logits" else "labels"
        path = material.folder / "prediction.nii.gz" if product == "file" else None
        return pf.predict(model, given, output=output, path=path, progress=False, **sizes, **setting)

    return run
