"""Dice of a whole volume, slab by slab while it is predicted: nothing of the volume is kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torchmetrics.segmentation import DiceScore

from patchflow.errors import ArgumentError, ImageError
from patchflow.geometry.location import PatchLocation
from patchflow.inference.checks import channels_of_prediction
from patchflow.inference.grid import GridSampler
from patchflow.inference.memory import Budget
from patchflow.inference.outputs import labels
from patchflow.inference.settings import Settings, listed, setting_of
from patchflow.inference.sources import find_image
from patchflow.inference.stitching import Stitching


class ScoredSubject(Stitching):
    """Stitches the predictions of one subject, holds each slab against the truth, and lets it go.

    Dice of a class is twice the voxels that have it in both over the sum of those that have it in either (Dice, Ecology 26, 1945), counted
    over the whole subject; NaN for a class that is absent from both.

    Args:
        grid: the subject's windows; its source has the truth too.
        settings: how predictions are stitched, and what makes labels of them.
        budget: what may be held in memory.
        label: the image that holds the truth. For labels one channel with the values 0 to `num_classes` - 1; for regions a channel for
            each, in which what is not 0 belongs to it.
        num_classes: of labels, with the background; or of regions.
        output: which output of a model of several is scored, by name.
    """

    def __init__(
        self, grid: GridSampler, settings: Settings, budget: Budget, label: str, num_classes: int, output: str | None = None
    ) -> None:
        super().__init__(grid, settings, None, lambda name: None, None, budget)
        self._activation = setting_of(settings.activation, "")
        self._label, self._number, self._output = label, num_classes, "" if output is None else output
        self._regions = self._activation == "sigmoid"
        self._score: DiceScore | None = None

    def add(self, outputs: Mapping[str, Any], windows: Sequence[PatchLocation]) -> None:
        """Add the predictions of some windows; see `Stitching.add`.

        Raises:
            InferenceError: for predictions that cannot be stitched; names the subject and the window.
            ArgumentError: for a model of other classes or other outputs than were named.
            ImageError: for a truth that holds other labels.
        """
        if self._output not in outputs:
            wanted = f'output="{self._output}" is none of them' if self._output else "name the one to score by output="
            raise ArgumentError(f"the model returns {listed(outputs)}: {wanted}")
        super().add({"": outputs[self._output]}, windows)

    def finish(self) -> torch.Tensor:
        """Dice of each class, float32: classes 1 to num_classes - 1, or regions 0 to num_classes - 1.

        Raises:
            InferenceError: if windows are missing.
        """
        for aggregator in self._aggregators.values():
            aggregator.check_complete()
        assert self._score is not None  # a grid has a window
        scores: torch.Tensor = self._score.compute().reshape(-1)  # torchmetrics makes one class a scalar
        self._aggregators = {}
        return scores

    def _begin(self, outputs: Mapping[str, Any]) -> None:
        """Check the classes, now that the model has shown how many it has."""
        output = outputs[""]
        if isinstance(output, torch.Tensor) and output.dtype.is_floating_point:
            self._check_classes(channels_of_prediction(output))
        info = find_image(self.grid.source, self._label)
        wanted = self._number if self._regions else 1
        if info.kind != "label" or info.shape[0] != wanted:
            raise ArgumentError(
                f'subject "{self.grid.name}": the truth "{self._label}" must be a label map of {wanted} channels, not a {info.kind} image '
                f"of {info.shape[0]}"
            )
        scored = self._number if self._regions else self._number - 1
        self._score = DiceScore(scored, average="none", aggregation_level="global", sync_on_compute=False)
        self._aggregators[""] = self._aggregator(output, self._compare)

    def _check_classes(self, channels: int) -> None:
        expected = 2 if channels == 1 and not self._regions else channels
        if self._number != expected:
            what = (
                "returns one channel, which has 2 classes, with the background" if expected > channels else f"returns {channels} channels"
            )
            raise ArgumentError(f"num_classes is {self._number}, but the model {what}: give num_classes={expected}")

    def _compare(self, first: int, slab: torch.Tensor, covered: torch.Tensor | None) -> None:
        """Count what a slab of logits (C, i, J, K) and the truth have in common."""
        assert self._score is not None
        predicted = labels(slab, self._activation)
        place = PatchLocation((first, 0, 0), (slab.shape[1], *slab.shape[2:]))
        truth = torch.from_numpy(self.grid.source.read(self._label, place))
        if self._regions:
            self._score.update((predicted != 0)[None], (truth != 0)[None])
            return
        for what, values in ((f'the truth "{self._label}"', truth), ("the prediction", predicted)):
            low, high = int(values.min()), int(values.max())
            if low < 0 or high >= self._number:
                wrong = low if low < 0 else high
                raise ImageError(f'subject "{self.grid.name}": {what} holds the label {wrong}, but num_classes is {self._number}')
        classes = torch.arange(1, self._number)[:, None, None, None]
        self._score.update((predicted == classes)[None], (truth == classes)[None])
