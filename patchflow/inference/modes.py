"""Models in evaluation mode while they predict, and in their own afterwards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

_LOCK = Lock()
_RUNNING: WeakKeyDictionary[nn.Module, tuple[int, bool]] = WeakKeyDictionary()
"""Modules that predict: how many predictions use each, in threads side by side, and the mode that it had before the first of them."""


@contextmanager
def evaluating(models: Sequence[Any]) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each module has its own mode again (a frozen one in a training model stays frozen).

    Where several predictions use a module at a time, it gets its mode back after the last of them.
    """
    modules = [module for model in models if isinstance(model, nn.Module) for module in model.modules()]
    with _LOCK:
        for module in modules:
            users, training = _RUNNING.get(module, (0, module.training))
            _RUNNING[module] = users + 1, training
    try:
        for model in models:
            if isinstance(model, nn.Module):
                model.eval()
        with torch.inference_mode():
            yield
    finally:
        with _LOCK:
            for module in modules:
                users, training = _RUNNING.pop(module)
                if users > 1:
                    _RUNNING[module] = users - 1, training
                else:
                    module.training = training
