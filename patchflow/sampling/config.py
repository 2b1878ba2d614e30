"""Samplers from plain values, as they come from YAML: a class's name, or its name: {arguments}.

LabelSampler: {label: label, probabilities: {0: 1, 1: 2}}
MixedSampler: {parts: [[0.67, UniformSampler], [0.33, {LabelSampler: {probabilities: {1: 1}}}]]}
"""

from collections.abc import Callable, Mapping
from typing import Any

from patchflow.errors import ArgumentError
from patchflow.sampling.base import Sampler
from patchflow.sampling.label import LabelSampler
from patchflow.sampling.mixed import MixedSampler
from patchflow.sampling.uniform import UniformSampler
from patchflow.sampling.weighted import WeightedSampler
from patchflow.types import SizeLike

_SAMPLERS: dict[str, Callable[..., Sampler]] = {
    kind.__name__: kind for kind in (UniformSampler, WeightedSampler, LabelSampler, MixedSampler)
}


def sampler_from(config: Any, patch_size: SizeLike) -> Sampler:
    """The sampler that plain values describe.

    Args:
        config: see above.
        patch_size: voxels (I, J, K), of all samplers in it.

    Raises:
        ArgumentError: for a sampler or an argument that does not exist, or has another value than it may.
    """
    name, arguments = next(iter(config.items())) if isinstance(config, Mapping) and len(config) == 1 else (config, {})
    if not isinstance(name, str) or name not in _SAMPLERS:
        raise ArgumentError(f"no sampler {config!r}: write its name, or its name: {{arguments}}; there are {', '.join(_SAMPLERS)}")
    if not isinstance(arguments or {}, Mapping):
        raise ArgumentError(f"the arguments of {name} must be a mapping of names to values, not {arguments!r}")
    values = dict(arguments or {})
    try:
        if name == "MixedSampler":
            parts = [(weight, sampler_from(part, patch_size)) for weight, part in values.pop("parts")]
            return MixedSampler(parts, **values)
        return _SAMPLERS[name](patch_size, **values)
    except (TypeError, ValueError, KeyError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"{name} cannot be made of {dict(arguments or {})!r}: {error}") from error
