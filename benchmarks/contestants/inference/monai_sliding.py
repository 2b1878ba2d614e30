"""MONAI: `sliding_window_inference` on a tensor in memory, and `AsDiscrete(argmax=True)` after it, as in its tutorials.

Of sw_batch_size 1, 2 and 4 (its tutorials' value) the fastest is taken; everything else is the default.
"""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.contestants.inference.material import Material

NEEDS = ("monai",)
SETTINGS = ({"sw_batch_size": 1}, {"sw_batch_size": 2}, {"sw_batch_size": 4})


def build(material: Material, variant: str, setting: dict[str, Any]) -> Callable[[torch.nn.Module, str], torch.Tensor]:
    from monai.inferers import sliding_window_inference
    from monai.transforms import AsDiscrete

    size, as_labels = (material.patch,) * 3, AsDiscrete(argmax=True)
    material.tensor  # noqa: B018  (loaded before anything is measured)

    @torch.inference_mode()
    def run(model: torch.nn.Module, product: str) -> torch.Tensor:
        logits = sliding_window_inference(material.tensor[None], size, predictor=model, overlap=0.5, mode="gaussian", **setting)[0]
        return logits if product == "logits" else as_labels(logits)

    return run
