"""Several looks at each window: mirrored, transformed, or by several models; what is averaged, and how it is brought back."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch

from patchflow.augment.base import SpatialTransform
from patchflow.augment.recipe import Recipe
from patchflow.errors import ArgumentError, InferenceError
from patchflow.geometry.location import Outside, PatchLocation
from patchflow.inference.checks import check_prediction, describe
from patchflow.inference.outputs import probabilities
from patchflow.inference.settings import Settings, named_outputs, setting_of
from patchflow.seeding import patch_generator

Model = Callable[[torch.Tensor], Any]
Outputs = dict[str, Any]
Window = tuple[Any, PatchLocation]
"""What is predicted (a source), and where."""


class Views:
    """Calls models on a batch of windows, mirrored and transformed as asked, and averages what they return.

    Mirroring is done window by window: each model sees every combination of mirrored axes, 2^n for n axes. A recipe of spatial transforms
    draws its parameters once, and each window is seen through them, about its own centre; a prediction is brought back by
    `Recipe.invert`, and where it shows nothing of the window the other views count alone.

    Args:
        models: one model or several, which return the same outputs.
        mirror_axes: 0, 1, 2 for I, J, K: axes to mirror.
        recipes: spatial transforms, each one more view; a transform alone reads with `fill` and `outside`, a recipe as it says.
        settings: whether logits or probabilities are averaged.
        images: what the model is given.
        seed: of the recipes' parameters.

    Raises:
        ArgumentError: for no model, axes that are none, or a recipe that holds more than spatial transforms.
    """

    def __init__(
        self,
        models: Model | Sequence[Model],
        mirror_axes: Sequence[int],
        recipes: Sequence[Recipe | SpatialTransform],
        settings: Settings,
        images: Sequence[str],
        seed: int = 0,
        fill: float | Mapping[str, float] = 0,
        outside: Outside = "constant",
    ) -> None:
        listed_models: list[Any] = list(models) if isinstance(models, (list, tuple)) else [models]
        if not listed_models or not all(callable(model) for model in listed_models):
            raise ArgumentError(f"model must be a model or a list of models, each of which can be called, not {models!r:.80}")
        self.models: list[Model] = listed_models
        axes = tuple(mirror_axes) if isinstance(mirror_axes, Sequence) else (None,)
        if len(set(axes)) < len(axes) or not all(type(axis) is int and 0 <= axis <= 2 for axis in axes):
            raise ArgumentError(f"mirror_axes must be some of 0, 1 and 2, for I, J and K, each once, not {mirror_axes!r}")
        self.mirrors = [chosen for count in range(len(axes) + 1) for chosen in combinations(axes, count)]
        if not isinstance(recipes, Sequence):
            raise ArgumentError(f"views must be a list of recipes or spatial transforms, not {recipes!r:.80}")
        self.recipes = [
            _spatial(recipe if isinstance(recipe, Recipe) else Recipe([recipe], fill=fill, outside=outside)) for recipe in recipes
        ]
        self._settings, self._images, self._seed = settings, list(images), seed

    @property
    def each(self) -> int:
        """How often a window is predicted."""
        return len(self.models) * (len(self.mirrors) + len(self.recipes))

    def see(self, windows: Sequence[Window]) -> list[torch.Tensor]:
        """What each recipe shows of some windows: a batch (B, C, i, j, k) for each recipe."""
        return [
            torch.stack([self._shown(recipe, number, *window) for window in windows])
            for number, recipe in enumerate(self.recipes)
        ]  # fmt: skip

    def __call__(self, batch: torch.Tensor, seen: Sequence[torch.Tensor], windows: Sequence[Window]) -> Outputs:
        """The averaged prediction of each output, (B, C, i, j, k).

        Args:
            batch: windows as they lie, (B, C, i, j, k).
            seen: what `see` gave, on the same device.
            windows: which they are.
        """
        if self.each == 1:
            outputs = self._call(self.models[0], batch, windows)
            return {name: self._ready(output, name) for name, output in outputs.items()} if self._settings.ready else outputs
        total = _Mean()
        for model in self.models:
            for axes in self.mirrors:
                turned = [axis + 2 for axis in axes]
                outputs = self._call(model, batch.flip(turned), windows)  # a copy: the model may work in place
                total.add({name: self._ready(output, name).flip(turned) for name, output in outputs.items()}, windows)
            for number, (recipe, values) in enumerate(zip(self.recipes, seen, strict=True)):
                outputs = self._call(model, values.clone() if len(self.models) > 1 else values, windows)
                back = {name: self._brought_back(recipe, number, self._ready(output, name), windows) for name, output in outputs.items()}
                total.add(back, windows, hides=True)
        return total.means()

    def _call(self, model: Model, batch: torch.Tensor, windows: Sequence[Window]) -> Outputs:
        name, places = windows[0][0].name, [place for _, place in windows]
        try:
            returned = model(batch)
        except Exception as error:
            more = f" and {len(windows) - 1} more of its batch" if len(windows) > 1 else ""
            error.add_note(f"while predicting {describe(name, places[0])}{more}")
            raise
        outputs = named_outputs(returned, name, places)
        if self.each > 1 or self._settings.ready:
            for key, output in outputs.items():
                size = tuple(output.shape[2:]) if isinstance(output, torch.Tensor) and output.ndim == 5 else places[0].size
                check_prediction(output, name, places, (size[0], size[1], size[2]))
                if not output.dtype.is_floating_point:
                    raise InferenceError(f"{describe(name, places[0])}: predictions of {output.dtype} cannot be averaged ({key!r})")
                _check_finite(output, name, places)
        return outputs

    def _ready(self, output: torch.Tensor, name: str) -> torch.Tensor:
        values = output.float()
        return probabilities(values, setting_of(self._settings.activation, name), dim=1) if self._settings.ready else values

    def _parameters(self, recipe: Recipe, number: int, source: Any, place: PatchLocation) -> Any:
        return recipe.draw(patch_generator(self._seed, number, 0), source, place)

    def _shown(self, recipe: Recipe, number: int, source: Any, place: PatchLocation) -> torch.Tensor:
        sample = recipe.apply(source, place, self._parameters(recipe, number, source, place), keys=self._images)
        return torch.cat([sample[name].float() for name in self._images])

    def _brought_back(self, recipe: Recipe, number: int, output: torch.Tensor, windows: Sequence[Window]) -> torch.Tensor:
        if output.shape[2:] != windows[0][1].size:
            raise ArgumentError("views by recipes need predictions of the windows' size: leave scale at 1, or mirror instead")
        back = [
            recipe.invert(values, source, place, self._parameters(recipe, number, source, place), self._images[0], fill=float("nan"))
            for values, (source, place) in zip(output, windows, strict=True)
        ]
        return torch.stack(back)


class _Mean:
    """The mean of what views and models predict, by output name."""

    def __init__(self) -> None:
        self._sums: Outputs = {}
        self._counts: dict[str, Any] = {}

    def add(self, outputs: Mapping[str, torch.Tensor], windows: Sequence[Window], hides: bool = False) -> None:
        """Add what one view of one model gave; where it `hides` voxels, they are NaN in all channels."""
        if not self._sums:
            self._sums = {name: values.clone() for name, values in outputs.items()}  # the model may keep its own
            self._counts = dict.fromkeys(outputs, 1)
            return
        self._check(outputs, windows)
        for name, values in outputs.items():
            hidden = values[:, :1].isnan() if hides else None
            self._sums[name] += values if hidden is None else torch.where(hidden, 0, values)
            self._counts[name] = self._counts[name] + (1 if hidden is None else (~hidden).to(values.dtype))

    def means(self) -> Outputs:
        return {name: total.div_(self._counts[name]) for name, total in self._sums.items()}

    def _check(self, outputs: Mapping[str, torch.Tensor], windows: Sequence[Window]) -> None:
        one, other = ({name: tuple(values.shape) for name, values in given.items()} for given in (self._sums, outputs))
        if one != other:
            source, place = windows[0]
            raise InferenceError(f"{describe(source.name, place)}: one view or model gave {_shapes(one)}, another {_shapes(other)}")


def _shapes(outputs: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f'"{name}" {shape}' if name else str(shape) for name, shape in outputs.items())


def _check_finite(output: torch.Tensor, name: str, places: Sequence[PatchLocation]) -> None:
    """Refuse NaN before averaging: it would pass for a voxel that a view hides, and the sigmoid makes numbers of infinities."""
    for values, place in zip(output, places, strict=True):
        if not all(end.isfinite() for end in values.aminmax()):
            raise InferenceError(
                f"{describe(name, place)}: predicted values are NaN or infinite: check the model's weights and the image's voxels"
            )


def _spatial(recipe: Recipe) -> Recipe:
    if not all(isinstance(step, SpatialTransform) for step in recipe.leaves):
        raise ArgumentError(f"a view must be a recipe of spatial transforms alone, which can be taken back, not {recipe!r}")
    return recipe
