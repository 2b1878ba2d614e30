"""What is to become of predictions, as the user says it, checked before a model is called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm
from pathlib import Path
from typing import Any, get_args

import torch

from patchflow.errors import ArgumentError, InferenceError
from patchflow.geometry.location import PatchLocation
from patchflow.geometry.windows import OverlapMode, check_overlap_mode
from patchflow.inference.checks import describe
from patchflow.inference.outputs import Activation, Average, Output, check_activation, check_output
from patchflow.preprocess.function import identity
from patchflow.types import Int3, ScaleLike, fraction3


@dataclass(frozen=True)
class Settings:
    """How predictions are stitched and finished. `output`, `activation` and `scale` may be dicts by output name.

    Attributes:
        overlap_mode, scale: see `GridAggregator`.
        output, activation: see `patchflow.inference.outputs`.
        average: whether predictions of one voxel are averaged as logits or as probabilities.
        label_names: label value to its name.

    Raises:
        ArgumentError: for anything that cannot be used.
    """

    overlap_mode: OverlapMode = "gaussian"
    output: Output | Mapping[str, Output] = "labels"
    activation: Activation | Mapping[str, Activation] = "auto"
    scale: ScaleLike | Mapping[str, ScaleLike] = 1
    average: Average = "logits"
    label_names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_overlap_mode(self.overlap_mode)
        for output in values_of(self.output):
            check_output(output)
        for activation in values_of(self.activation):
            check_activation(activation)
        for scale in values_of(self.scale):
            fraction3(scale, "scale")
        if self.average not in get_args(Average):
            raise ArgumentError(f'average must be "logits" or "probabilities", not {self.average!r}')
        if self.ready and "logits" in values_of(self.output):
            raise ArgumentError('output="logits" has nothing to average as probabilities: leave average="logits", or ask for probabilities')
        if not isinstance(self.label_names, Mapping) or not all(type(value) is int for value in self.label_names):
            raise ArgumentError(f'label_names must give each label value its name, such as {{1: "liver"}}, not {self.label_names!r}')

    @property
    def ready(self) -> bool:
        """Whether predictions are made probabilities before they are averaged."""
        return self.average == "probabilities"

    @property
    def multiple(self) -> Int3:
        """What windows must start at multiples of, so that all outputs have whole voxels."""
        scales = [fraction3(scale, "scale") for scale in values_of(self.scale)]
        i, j, k = (lcm(*(scale[axis].denominator for scale in scales)) for axis in range(3))
        return i, j, k

    def record(self) -> dict[str, Any]:
        """What tells predictions apart, as plain JSON values: functions by their code."""
        parts = {name: getattr(self, name) for name in ("overlap_mode", "output", "activation", "scale", "average")}
        return {name: plain(value) for name, value in parts.items()}

    def check_names(self, outputs: Mapping[str, Any], path: Any, windows: Sequence[PatchLocation], subject: str) -> None:
        """Hold the settings against what the model returned first, so that a wrong name does not cost a whole prediction."""
        given = {"output": self.output, "activation": self.activation, "scale": self.scale, "path": path}
        for what, value in given.items():
            if not isinstance(value, Mapping):
                continue
            if is_single(outputs):
                raise ArgumentError(f"{what} names {listed(value)}, but the model returns one tensor, which has no name")
            unknown = [name for name in value if name not in outputs]
            missing = [name for name in outputs if name not in value] if what != "path" else []
            if unknown or missing:
                raise ArgumentError(f"{what} names {listed(value)}, but the model returns {listed(outputs)}")
        if not is_single(outputs) and isinstance(path, (str, Path)):
            raise ArgumentError(f"the model returns several outputs, {listed(outputs)}: give a path for each, as a dict, not {path}")
        for name, output in outputs.items():
            one = isinstance(output, torch.Tensor) and output.ndim == 5 and output.shape[1] == 1
            if one and setting_of(self.activation, name) == "softmax" and setting_of(self.output, name) != "logits":
                raise ArgumentError('the softmax of one channel is 1 everywhere: let activation be "auto" or "sigmoid"')
            if self.ready and isinstance(output, torch.Tensor) and not output.dtype.is_floating_point:
                raise InferenceError(f"{describe(subject, windows[0])}: the model returned {output.dtype} for {name!r}: no probabilities")


def named_outputs(returned: Any, name: str, windows: Sequence[PatchLocation]) -> dict[str, Any]:
    """What a model returned, by output name; "" for a lone tensor."""
    if not isinstance(returned, (Mapping, tuple, list)):
        return {"": returned}
    pairs = returned.items() if isinstance(returned, Mapping) else enumerate(returned)
    outputs = {str(key): value for key, value in pairs}
    if not outputs:
        raise InferenceError(f"{describe(name, windows[0])}: the model returned an empty {type(returned).__name__}")
    return outputs


def is_single(outputs: Mapping[str, Any]) -> bool:
    """Whether a model returns a lone tensor."""
    return list(outputs) == [""]


def listed(names: Mapping[str, Any]) -> str:
    """Output names, for messages."""
    return "one tensor" if is_single(names) else ", ".join(f'"{name}"' for name in names)


def setting_of(value: Any, name: str) -> Any:
    """The setting of one output."""
    return value[name] if isinstance(value, Mapping) else value


def values_of(value: Any) -> list[Any]:
    """The settings of all outputs."""
    return list(value.values()) if isinstance(value, Mapping) else [value]


def plain(value: Any) -> Any:
    """A setting as plain JSON values: functions by their code, recipes by what they do."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if callable(value):
        return identity(value)
    return value if value is None or isinstance(value, (str, int, float)) else str(value)
