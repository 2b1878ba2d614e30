"""A folder of predictions, one subject after the other: what is there already, what is to be called how, what it was made with."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchflow.errors import ArgumentError, InferenceError
from patchflow.images.slabs import check_slab_path
from patchflow.inference.settings import is_single
from patchflow.inference.sidecar import read_sidecar, sidecar_path, write_sidecar
from patchflow.inference.stitching import Results


class PredictionFolder:
    """Where the predictions of many subjects go: NAME.nii.gz, or NAME_OUTPUT.nii.gz for each output of a model of several.

    When all files of a subject are whole, NAME.json is written: the names of its labels, its files, and what they were made with. A subject
    that has it is finished and need not be predicted again.

    Args:
        folder: made if it is not there.
        suffix: ".nii.gz", ".nii" or ".h5".
        made_with: plain JSON values that tell predictions apart; a folder that holds others is refused.
        label_names: label value to its name.

    Raises:
        ArgumentError: for another suffix, or a folder that cannot be made.
    """

    def __init__(
        self,
        folder: str | Path,
        suffix: str = ".nii.gz",
        made_with: Mapping[str, Any] | None = None,
        label_names: Mapping[int, str] | None = None,
    ) -> None:
        self.folder, self._suffix = Path(folder), suffix
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArgumentError(f"{folder} cannot be made a folder of predictions ({error.strerror}): name another") from error
        if not suffix.startswith("."):
            raise ArgumentError(f'suffix must be ".nii.gz", ".nii" or ".h5", not {suffix!r}')
        check_slab_path(self.folder / f"name{suffix}")
        self._made_with: dict[str, Any] = json.loads(json.dumps(made_with or {}))
        self._labels = {str(value): name for value, name in (label_names or {}).items()}

    def path(self, subject: str, output: str) -> Path:
        """The file of an output of a subject; "" for the lone output of a model."""
        name = f"{subject}_{output}" if output else subject
        if "/" in name or "\\" in name or name.startswith("."):
            raise ArgumentError(f"{name!r} cannot be the name of a file: rename the subject or the output")
        return self.folder / f"{name}{self._suffix}"

    def is_done(self, subject: str, own: Mapping[str, Any] | None = None) -> bool:
        """Whether all files of a subject are whole.

        Args:
            subject: its name.
            own: more that its predictions are made with, and those of other subjects are not.

        Raises:
            InferenceError: if they were made with something else.
        """
        first = self.path(subject, "")
        record = read_sidecar(first)
        if record is None or "files" not in record or not all((self.folder / name).exists() for name in record["files"]):
            return False
        before, now = record.get("made_with") or {}, self._all(own)
        if before != now:
            differing = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
            raise InferenceError(
                f'{sidecar_path(first)}: subject "{subject}" was predicted with other settings ({", ".join(differing)}): '
                "name another folder, or delete the files of this one"
            )
        return True

    def done(self, subject: str, results: Results, own: Mapping[str, Any] | None = None) -> None:
        """Note that the files of a subject are whole: `results` are their paths by output name; `own` as in `is_done`."""
        named: Mapping[str, Any] = results if isinstance(results, dict) else {"": results}
        content: dict[str, Any] = {"subject": subject, "files": [path.name for path in named.values()], "made_with": self._all(own)}
        write_sidecar(self.path(subject, ""), content | ({"labels": self._labels} if self._labels else {}))

    def _all(self, own: Mapping[str, Any] | None) -> dict[str, Any]:
        plain: dict[str, Any] = json.loads(json.dumps(own or {}))
        return self._made_with | plain

    def results(self, subject: str) -> Results:
        """The paths of a subject that is done, as `Stitching.finish` gives them."""
        record = read_sidecar(self.path(subject, "")) or {"files": []}
        paths: dict[str, Any] = {self._output(subject, name): self.folder / name for name in record["files"]}
        return next(iter(paths.values())) if is_single(paths) else paths

    def _output(self, subject: str, file: str) -> str:
        return file.removesuffix(self._suffix).removeprefix(subject).removeprefix("_")


def digest_of(path: str | Path) -> str:
    """sha256 of a file, hexadecimal: what tells one checkpoint from another."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
