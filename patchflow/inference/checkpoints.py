"""Weights from checkpoints: they alone are read, no code is run."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchflow.errors import ArgumentError, ImageFileError

_SHOWN = 3


def load_weights(model: nn.Module, checkpoint: str | Path) -> None:
    """Load the weights of a checkpoint into a model.

    A checkpoint is a state dict, or a dict that holds one under "state_dict", as Lightning's do. Where the model is a part of the module
    that was saved (its `net`, say), the common beginning of the names is left away.

    Args:
        model: of the architecture that was saved.
        checkpoint: a file of `torch.save`; read with `weights_only=True`.

    Raises:
        ArgumentError: for weights of another architecture: names some that are missing, unexpected or of another shape.
        ImageFileError: for a file that cannot be read, or that holds more than tensors and plain values.
    """
    _load(model, read_checkpoint(checkpoint), str(checkpoint))


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU; see `load_weights`."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ImageFileError(f"{path} cannot be read ({error.strerror or error}): give the path of a checkpoint") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ImageFileError(
            f"{path} is no checkpoint of weights ({reason:.200}): only tensors and plain values are read, as others could run code; "
            "save the model's state_dict() by torch.save"
        ) from error
    if not isinstance(content, dict):
        raise ImageFileError(f"{path} holds a {type(content).__name__}, not a state dict: save the model's state_dict() by torch.save")
    return content


def _load(model: nn.Module, content: Mapping[str, Any], what: str) -> None:
    state: Mapping[str, Any] = content.get("state_dict", content)
    wanted = model.state_dict()
    state = {str(name): value for name, value in state.items()}
    first = next(iter(state), "").split(".")[0] + "."
    if state.keys() != wanted.keys() and all(name.startswith(first) for name in state):
        shorter = {name.removeprefix(first): value for name, value in state.items()}
        state = shorter if shorter.keys() == wanted.keys() else state
    missing, unexpected = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted.keys() & state.keys()
        if isinstance(state[name], torch.Tensor) and state[name].shape != wanted[name].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": sorted(shapes)}
    if any(found.values()):
        told = "; ".join(f"{len(names)} {how}: {', '.join(names[:_SHOWN])}" for how, names in found.items() if names)
        raise ArgumentError(f"{what} is of another architecture than {type(model).__name__} ({told}): give the class and arguments it had")
    model.load_state_dict(state)
