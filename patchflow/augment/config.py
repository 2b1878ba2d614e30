"""Recipes from YAML, or by name.

A file holds the arguments of `Recipe`; each transform is its class's name and its arguments:

    transforms:
      - RandomFlip: {axes: [0, 1]}
      - RandomContrast: {factor: {Balanced: [0.75, 1.25]}, p: 0.15}
      - OneOf:
          transforms:
            - RandomBlur: {std: [0.3, 1.5]}
            - RandomLowResolution
          p: 0.2
    outside: border
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from patchflow.augment import artefacts, choice, intensity, kspace, noise, presets, ranges, regions, sharpness, spatial
from patchflow.augment.base import IntensityTransform, SpatialTransform
from patchflow.augment.choice import Choice
from patchflow.augment.recipe import Recipe
from patchflow.errors import ArgumentError
from patchflow.types import SizeLike

_MODULES = (spatial, intensity, noise, sharpness, regions, artefacts, kspace, choice)
_TRANSFORMS = {
    name: kind
    for module in _MODULES
    for name, kind in vars(module).items()
    if isinstance(kind, type) and kind.__module__ == module.__name__ and issubclass(kind, (SpatialTransform, IntensityTransform, Choice))
}
_TRANSFORMS.pop("Choice")
_RANGES: dict[str, Callable[..., Any]] = {kind.__name__: kind for kind in (ranges.Uniform, ranges.Balanced, ranges.Reciprocal)}
PRESETS = ("nnunet", "mri", "ct")


def load_recipe(source: str | Path, patch_size: SizeLike) -> Recipe:
    """A preset by its name ("nnunet", "mri", "ct"), or the recipe in a YAML file.

    Args:
        source: a name, or the path of a file.
        patch_size: voxels (I, J, K), on which the preset "nnunet" depends.

    Raises:
        ArgumentError: for neither, a file that is no YAML, or arguments that transforms do not take.
    """
    if source == "nnunet":
        return presets.nnunet(patch_size)
    if source in PRESETS:
        return presets.mri() if source == "mri" else presets.ct()
    path = Path(source)
    if not path.is_file():
        raise ArgumentError(f"no recipe {str(source)!r}: give {', '.join(PRESETS)}, or the path of a YAML file")
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path} is no YAML: {error}") from error
    try:
        return recipe_from(config)
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from error


def recipe_from(config: Any) -> Recipe:
    """The recipe that plain values describe, as they come from YAML or JSON.

    Raises:
        ArgumentError: for a transform or an argument that does not exist, or has another value than it may.
    """
    if not isinstance(config, Mapping) or "transforms" not in config:
        raise ArgumentError("a recipe is a mapping with `transforms`, a list, and the other arguments of Recipe")
    recipe: Recipe = _called("Recipe", Recipe, {**config, "transforms": _transforms(config["transforms"], "Recipe")})
    return recipe


def _transforms(given: Any, where: str) -> list[Any]:
    if not isinstance(given, list):
        raise ArgumentError(f"the transforms of {where} must be a list, not {given!r}")
    return [_transform(part) for part in given]


def _transform(given: Any) -> Any:
    if isinstance(given, list):
        return _transforms(given, "a list")
    name, arguments = next(iter(given.items())) if isinstance(given, Mapping) and len(given) == 1 else (given, {})
    if not isinstance(name, str) or name not in _TRANSFORMS:
        raise ArgumentError(
            f"no transform {given!r}: write its name, or its name: {{arguments}}; there are {', '.join(sorted(_TRANSFORMS))}"
        )
    if not isinstance(arguments or {}, Mapping):
        raise ArgumentError(f"the arguments of {name} must be a mapping of names to values, not {arguments!r}")
    values = {key: _value(value) for key, value in (arguments or {}).items()}
    if "transforms" in values:
        values["transforms"] = _transforms(values["transforms"], name)
    return _called(name, _TRANSFORMS[name], values)


def _value(given: Any) -> Any:
    """A value of an argument: a mapping of one distribution's name to its numbers is the distribution."""
    if isinstance(given, Mapping) and len(given) == 1 and (name := next(iter(given))) in _RANGES:
        numbers = given[name]
        return _called(name, _RANGES[name], numbers) if isinstance(numbers, Mapping) else _called(name, _RANGES[name], {}, numbers)
    return [_value(part) for part in given] if isinstance(given, list) and any(isinstance(part, Mapping) for part in given) else given


def _called(name: str, kind: Callable[..., Any], arguments: Mapping[str, Any], numbers: Sequence[Any] = ()) -> Any:
    try:
        return kind(*numbers, **arguments)
    except TypeError as error:
        raise ArgumentError(f"{name} cannot be made of {numbers or dict(arguments)!r}: {error}") from error
