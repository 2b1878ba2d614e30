"""nnU-Net v2: its predictor's sliding window on a preprocessed tensor in memory, without mirroring, results on the CPU.

What plans and checkpoint would tell it is set by hand: the patch, the number of heads, the network. Its sums are float16. Labels are the
arg-max of the logits, which is less than it does itself (a softmax before it).
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.contestants.inference.material import Material

NEEDS = ("nnunetv2",)
SETTINGS = ({},)


def build(material: Material, variant: str, setting: dict[str, Any]) -> Callable[[torch.nn.Module, str], torch.Tensor]:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.configuration_manager = SimpleNamespace(patch_size=[material.patch] * 3)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=material.classes)
    material.tensor  # noqa: B018  (loaded before anything is measured)

    @torch.inference_mode()
    def run(model: torch.nn.Module, product: str) -> torch.Tensor:
        predictor.network = model
        logits = predictor.predict_sliding_window_return_logits(material.tensor)
        return logits if product == "logits" else logits.argmax(0)

    return run
