"""What is kept beside a prediction, as JSON: the names of labels, and what the prediction was made with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchflow.errors import ImageFileError
from patchflow.files import whole_file
from patchflow.images.slabs import HDF5_ENDINGS
from patchflow.images.write import NIFTI_ENDINGS


def sidecar_path(path: Path) -> Path:
    """out.json for out.nii.gz."""
    for ending in (*NIFTI_ENDINGS, *HDF5_ENDINGS):
        if path.name.lower().endswith(ending):
            return path.with_name(path.name[: -len(ending)] + ".json")
    return path.with_name(path.name + ".json")


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """What is kept beside the volume at `path`; None where there is nothing, or nothing of ours."""
    try:
        content = json.loads(sidecar_path(path).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_sidecar(path: Path, content: Mapping[str, Any]) -> None:
    """Write what belongs to the volume at `path`, whole or not at all; what a sidecar there holds beside it (as BIDS's do) is kept.

    Raises:
        ImageFileError: if it cannot be written.
    """
    file = sidecar_path(path)
    before = read_sidecar(path)
    if before is None and file.exists():
        raise ImageFileError(f"{file} holds something else than what belongs to {path.name}: move it away")
    content = (before or {}) | dict(content)
    try:
        with whole_file(file) as beside:
            beside.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        raise ImageFileError(f"{file} cannot be written ({error.strerror or error}): check that its folder has room") from error
