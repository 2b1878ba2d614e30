"""Predictions that others make, batch by batch, on their way to files: stitched in a thread of their own, subject after subject."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch

from patchflow.errors import InferenceError
from patchflow.geometry.location import PatchLocation
from patchflow.inference.checks import rows_of
from patchflow.inference.flight import Flight
from patchflow.inference.folder import PredictionFolder
from patchflow.inference.grid import GridSampler
from patchflow.inference.memory import Budget
from patchflow.inference.outputs import probabilities
from patchflow.inference.settings import Settings, named_outputs, setting_of
from patchflow.inference.stitching import Stitching
from patchflow.inference.targets import Targets


class SubjectWriter:
    """Takes what a model returned for batches of windows, and writes a subject's files when its last window has come.

    While one batch is stitched another one may be predicted, and no more: `add` waits until the batch before is done. So what is held are
    the slices in work of a subject or two, and two batches.

    Args:
        grids: the windows of each subject, by name.
        settings: what becomes of predictions.
        kept: the folder that they go to.
        targets: the voxel grids of the results.
        budget: what may be held in memory.
        done: subjects that are not to be written again.
    """

    def __init__(
        self,
        grids: Mapping[str, GridSampler],
        settings: Settings,
        kept: PredictionFolder,
        targets: Targets,
        budget: Budget,
        done: Sequence[str] = (),
    ) -> None:
        self._grids, self._settings, self._kept, self._targets, self._budget = grids, settings, kept, targets, budget
        self._finished = set(done)
        self._begun: dict[str, Stitching] = {}
        self._flight: Flight[None] = Flight()

    def add(self, returned: Any, subjects: Sequence[str], locations: torch.Tensor) -> None:
        """Take the predictions of some windows.

        Args:
            returned: a tensor (B, C, i, j, k) of any device, or several in a dict, or in a tuple or list.
            subjects: the subject of each row.
            locations: int64 (B, 6), start then stop.

        Raises:
            InferenceError: for predictions of this batch or the one before that cannot be stitched; names the subject and the window.
            ImageFileError: if a file cannot be written.
        """
        if isinstance(returned, Mapping):
            returned = {str(name): self._ready(output, str(name)) for name, output in returned.items()}
        elif isinstance(returned, (tuple, list)):
            returned = {str(number): self._ready(output, str(number)) for number, output in enumerate(returned)}
        else:
            returned = self._ready(returned, "")
        self._flight.add(partial(self._stitch, list(subjects), locations), returned, self._budget)

    def close(self) -> list[str]:
        """Wait until all that came is stitched; gives the subjects of which windows are missing, and leaves no file of theirs.

        Raises:
            InferenceError, ImageFileError: see `add`.
        """
        self._flight.land()
        unfinished = list(self._begun)
        self.abort()
        return unfinished

    def abort(self) -> None:
        """Give up; no file is left of subjects that are not whole."""
        self._flight.stop()  # waits for the batch in work, which writes to what is aborted
        while self._begun:
            self._begun.popitem()[1].abort()

    def _ready(self, output: Any, name: str) -> Any:
        """Probabilities, if those are what is averaged, made where the prediction is; what is no prediction is refused when stitched."""
        if not self._settings.ready or not isinstance(output, torch.Tensor) or output.ndim != 5 or not output.dtype.is_floating_point:
            return output
        activation = self._settings.activation
        if isinstance(activation, Mapping) and name not in activation:
            return output
        return probabilities(output.float(), setting_of(activation, name), dim=1)

    def _stitch(self, subjects: list[str], locations: torch.Tensor, returned: Any) -> None:
        places = [PatchLocation.from_array(row) for row in locations.detach().cpu().numpy()]
        if len(places) != len(subjects):
            raise InferenceError(f"a batch names {len(subjects)} subjects and {len(places)} locations: leave both as the batch came")
        outputs, row = named_outputs(returned, subjects[0], places), 0
        for subject, members in groupby(subjects):
            number = len(list(members))
            if subject not in self._finished:
                rows = {name: rows_of(value, row, row + number, len(places)) for name, value in outputs.items()}
                self._add(subject, rows, places[row : row + number])
            row += number

    def _add(self, subject: str, outputs: Mapping[str, Any], places: Sequence[PatchLocation]) -> None:
        if subject not in self._grids:
            raise InferenceError(f'a batch holds subject "{subject}", which is none of those that are to be predicted')
        if subject not in self._begun:
            grid = self._grids[subject]
            target = self._targets.of(grid.source)
            self._begun[subject] = Stitching(grid, self._settings, target, partial(self._kept.path, subject), None, self._budget)
        stitching = self._begun[subject]
        stitching.add(outputs, places)
        if stitching.complete:
            self._kept.done(subject, stitching.finish(), self._targets.record(stitching.grid.source))
            self._finished.add(subject)
            del self._begun[subject]
