"""A network to begin with, and how it is trained: a small U-Net, cross-entropy plus soft Dice. What `patchflow demo` and configs/ use.

patchflow feeds any `LightningModule`; this one is here so that the first run needs no code.
"""

import math
from collections.abc import Sequence
from typing import Any

import lightning
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from patchflow.errors import ArgumentError


class UNet(nn.Module):
    """A small U-Net (Çiçek et al., MICCAI 2016): two poolings, batch normalisation.

    Args:
        inputs: channels of the image.
        outputs: number of classes, background included.
        width: channels at full resolution; doubled at each pooling.
        flat_axis: 0, 1 or 2 for a network of slices: along this axis of I, J, K it neither looks at neighbours nor pools. None: 3D.
    """

    def __init__(self, inputs: int = 1, outputs: int = 3, width: int = 8, flat_axis: int | None = None) -> None:
        super().__init__()
        if flat_axis not in (None, 0, 1, 2):
            raise ArgumentError(f"flat_axis must be 0, 1, 2 or None, not {flat_axis!r}")
        kernel = tuple(1 if axis == flat_axis else 3 for axis in range(3))
        self.pooling = tuple(1 if axis == flat_axis else 2 for axis in range(3))
        self.down = nn.ModuleList([_block(inputs, width, kernel), _block(width, 2 * width, kernel), _block(2 * width, 4 * width, kernel)])
        self.up = nn.ModuleList([_block(6 * width, 2 * width, kernel), _block(3 * width, width, kernel)])
        self.head = nn.Conv3d(width, outputs, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Images (B, inputs, i, j, k), sizes divisible by 4 (but along `flat_axis`), to logits (B, outputs, i, j, k)."""
        skips = [self.down[0](image)]
        for block in list(self.down)[1:]:
            skips.append(block(F.max_pool3d(skips[-1], self.pooling)))
        result = skips.pop()
        for block in self.up:
            skip = skips.pop()
            result = block(torch.cat([F.interpolate(result, skip.shape[2:], mode="nearest"), skip], dim=1))
        logits: torch.Tensor = self.head(result)
        return logits


def _block(inputs: int, outputs: int, kernel: Sequence[int]) -> nn.Sequential:
    padding = tuple(size // 2 for size in kernel)
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        convolution = nn.Conv3d(channels, outputs, tuple(kernel), padding=padding, bias=False)  # type: ignore[arg-type]
        layers += [convolution, nn.BatchNorm3d(outputs), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers)


def one_cycle(step: int, steps: int) -> float:
    """The share of the highest learning rate at a step: up from 4 % in the first 30 % of `steps`, then down to 0, along half cosines."""
    peak = 0.3 * steps
    if step < peak:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * step / peak)) / 2
    return (1 + math.cos(math.pi * min((step - peak) / (steps - peak), 1))) / 2


class Segmentation(lightning.LightningModule):
    """Trains a network on batches of an image and a label map with cross-entropy plus soft Dice; one-cycle learning rate.

    Args:
        network: images (B, C, i, j, k) to logits (B, classes, i, j, k).
        learning_rate: the highest of the cycle (Smith and Topin, "Super-convergence", 2018), which lasts the whole run: the Trainer's
            `max_steps` or `max_epochs`.
        image, label: their names in a batch.
        ignore_label: the label of voxels that count for nothing, or None.
    """

    def __init__(
        self, network: nn.Module, learning_rate: float = 1e-2, image: str = "image", label: str = "label", ignore_label: int | None = None
    ) -> None:
        super().__init__()
        self.network, self.learning_rate = network, learning_rate
        self.image, self.label, self.ignore_label = image, label, ignore_label

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Images (B, C, i, j, k) to logits (B, classes, i, j, k)."""
        logits: torch.Tensor = self.network(image)
        return logits

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        """The loss of a batch."""
        loss = self._loss(batch)
        self.log("loss", loss, prog_bar=True, batch_size=len(batch[self.image]))
        return loss

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        """Log the loss of a batch as `val_loss`."""
        self.log("val_loss", self._loss(batch), prog_bar=True, batch_size=len(batch[self.image]), sync_dist=True)

    def predict_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        """The logits of a batch, for `PredictionWriter`."""
        return self(batch[self.image])  # type: ignore[no-any-return]

    def configure_optimizers(self) -> Any:
        """AdamW, and one cycle of the learning rate over all steps of this run."""
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate)
        # A function of the step, so that a run that was resumed may be longer than the one before.
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _loss(self, batch: dict[str, Any]) -> torch.Tensor:
        logits, label = self.network(batch[self.image]), batch[self.label][:, 0].long()
        counts = torch.ones_like(label, dtype=torch.bool) if self.ignore_label is None else label != self.ignore_label
        label = label * counts
        one_hot = F.one_hot(label, logits.shape[1]).movedim(-1, 1) * counts[:, None]
        probabilities = logits.softmax(1) * counts[:, None]
        both = (probabilities * one_hot).sum((0, 2, 3, 4))
        soft_dice = (2 * both + 1) / (probabilities.sum((0, 2, 3, 4)) + one_hot.sum((0, 2, 3, 4)) + 1)
        entropy = (F.cross_entropy(logits, label, reduction="none") * counts).sum() / counts.sum().clamp(min=1)
        loss: torch.Tensor = entropy + 1 - soft_dice.mean()
        return loss
