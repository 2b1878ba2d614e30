"""TorchIO: GridSampler, SubjectsLoader and GridAggregator with a Hann window, as its documentation shows, then `torch.argmax`.

Of some batch sizes and numbers of workers (its documentation has 4 and none) the fastest is taken. The subject is made of a
tensor in memory.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.contestants.inference.material import Material

NEEDS = ("torchio",)
SETTINGS = tuple({"batch_size": batch, "num_workers": workers} for batch, workers in ((1, 0), (4, 0), (1, 2), (4, 2)))


def build(material: Material, variant: str, setting: dict[str, Any]) -> Callable[[torch.nn.Module, str], torch.Tensor]:
    import torchio

    warnings.simplefilter("ignore")
    subject = torchio.Subject(image=torchio.ScalarImage(tensor=material.tensor))

    @torch.inference_mode()
    def run(model: torch.nn.Module, product: str) -> torch.Tensor:
        sampler = torchio.GridSampler(subject, material.patch, material.patch // 2)
        loader = torchio.SubjectsLoader(sampler, **setting)
        aggregator = torchio.GridAggregator(sampler, overlap_mode="hann")
        for batch in loader:
            aggregator.add_batch(model(batch["image"][torchio.DATA]), batch[torchio.LOCATION])
        logits = aggregator.get_output_tensor()
        return logits if product == "logits" else logits.argmax(0, keepdim=True)

    return run
