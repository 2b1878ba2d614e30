"""Configuration files, looked at before they are parsed, so that an error names the file, the key and what was meant."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from patchflow.commands.settings import Settings
from patchflow.errors import ArgumentError


def check_configs(arguments: Sequence[str]) -> None:
    """Read every file that `--config` names.

    Raises:
        ArgumentError: for one that is not there, is no YAML, or has a section or key that does not exist.
    """
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if word == "--config" or word.startswith("--config="):
            _check(Path(word.partition("=")[2] or following))


def _check(path: Path) -> None:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read ({error.strerror}): give the path of a YAML file as configs/brain.yaml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise ArgumentError(f"{path} must hold sections, such as data: and patches:, not {content!r:.80}")
    sections: dict[str, Any] = {field.name: field.default_factory for field in dataclasses.fields(Settings)}
    _check_keys(path, "", content, sections)
    for name, kind in sections.items():
        known = [field.name for field in dataclasses.fields(kind)] if isinstance(kind, type) and dataclasses.is_dataclass(kind) else []
        if known and isinstance(content.get(name), Mapping):
            _check_keys(path, f"{name}.", content[name], known)


def _check_keys(path: Path, above: str, content: Mapping[Any, Any], known: Iterable[str]) -> None:
    known = list(known)
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            meant = f"did you mean {above}{near[0]}?" if near else f"there are {', '.join(known)}"
            raise ArgumentError(f"{path}: no key {above}{key}: {meant}")
