"""On which voxel grid the results of each subject are wanted."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from patchflow.errors import ArgumentError
from patchflow.geometry.space import VoxelGrid
from patchflow.inference.sources import GridLike, as_voxel_grid
from patchflow.preprocess.pipeline import ProcessedSubject
from patchflow.subjects import Subject

WantedGrid = GridLike | Literal["native"] | None
"""Something that has a voxel grid; "native" for that of the source before preprocessing; None for that of the source as it is read."""

Grids = Mapping[str, WantedGrid] | Callable[[str], WantedGrid] | Literal["native"]
"""Of each subject, by its name; or "native" for all."""


def native_of(source: Any) -> VoxelGrid:
    """The grid that a source had before any preprocessing: an entry and a processed subject remember it, and a `Subject` has it still.

    Raises:
        ArgumentError: for a source that does not know it.
    """
    if isinstance(source, Subject) and not isinstance(source, ProcessedSubject):
        return VoxelGrid(source.shape, source.affine)
    native = getattr(source, "native", None)
    if not isinstance(native, VoxelGrid):
        raise ArgumentError(
            f'grid="native": "{getattr(source, "name", "array")}" does not know the grid that it came from: give an image or its file as '
            "the grid, or predict a Subject or an entry of a cache, which know it (your own source by an attribute native, a VoxelGrid)"
        )
    return native


def wanted_grid(wanted: WantedGrid, source: Any) -> VoxelGrid | None:
    """The voxel grid of a source's results; None for that of the source as it is read.

    Raises:
        ArgumentError: for something without a voxel grid, or "native" of a source that does not know it.
        ImageFileError: for a file that cannot be read.
    """
    read = _read(wanted)
    return native_of(source) if isinstance(read, str) else read


class Targets:
    """The voxel grid of each subject's results, among many.

    Args:
        grids: by the subject's name, a dict or a function; "native" for all; None, and where there is none for a subject, for its own.

    Raises:
        ArgumentError: for something else.
    """

    def __init__(self, grids: Grids | None = None) -> None:
        if grids is not None and grids != "native" and not isinstance(grids, Mapping) and not callable(grids):
            raise ArgumentError(
                f'grids must be "native", or a dict or a function of a subject\'s name to what has a voxel grid, not {grids!r:.80}'
            )
        if isinstance(grids, Mapping):  # what has no voxel grid is refused now
            grids = {name: _read(wanted) for name, wanted in grids.items()}
        self._grids = grids

    def of(self, source: Any) -> VoxelGrid | None:
        """The grid for a source, whose name and native grid are asked; raises what `wanted_grid` does."""
        if self._grids is None or isinstance(self._grids, str):
            return wanted_grid(self._grids, source)
        return wanted_grid(self._grids(source.name) if callable(self._grids) else self._grids.get(source.name), source)

    def record(self, source: Any) -> dict[str, Any]:
        """The grid for a source, as plain JSON values."""
        target = self.of(source)
        return {"grid": None if target is None else [list(target.shape), target.affine.tolist()]}


def _read(wanted: WantedGrid) -> VoxelGrid | Literal["native"] | None:
    if wanted is None:
        return None
    return "native" if isinstance(wanted, str) and wanted == "native" else as_voxel_grid(wanted)
