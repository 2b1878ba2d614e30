"""A list of random transforms, drawn once per patch and then applied exactly as drawn."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch

from patchflow.augment.base import Context, IntensityTransform, Interpolation, Parameters, Source, SpatialTransform, Transform
from patchflow.augment.foreign import Foreign, put_back, where
from patchflow.augment.reading import Clock, Maps, Stages, composed_map, read_through
from patchflow.errors import ArgumentError, TransformError, UnknownNameError
from patchflow.geometry.location import PatchLocation

Sample = dict[str, torch.Tensor]


class Recipe:
    """Random transforms of patches.

    `draw` turns a generator into parameters: plain JSON values that can be printed, saved and replayed. `apply` reads and changes the
    patch as they say. All spatial transforms compose, in list order, into one map, through which each image is read once, straight from
    the stored voxels; where the map only mirrors or shifts by whole voxels, they are copied. Then intensity transforms change each
    `ScalarImage`, in list order, and last come the callables. The parameters are anchored at the centre of the location for which they
    were drawn: at another location, or for the whole volume, they give the same augmented space.

    Args:
        transforms: transforms, and callables f(sample) or f(sample, rng) that return the sample. A sample is a dict of the images as
            tensors (C, i, j, k), with "subject" (name) and "location" (int64 (6,), start then stop). A callable may change the values of
            images, not their shape or dtype, nor add images. It is made deterministic: rng is a generator of the patch's own, and for
            f(sample) the global generators of Python, NumPy and PyTorch are seeded, and put back afterwards.
        fill: what lies outside the volume, in units of the values as read: a number, or a number for each image by name (others get 0).

    Raises:
        ArgumentError: for something that is neither a transform nor callable, a fill that is not finite, or spatial transforms that ask for
            different interpolations.
    """

    def __init__(self, transforms: Iterable[Transform | Callable[..., Any]] = (), fill: float | Mapping[str, float] = 0) -> None:
        self.transforms: list[Transform | Foreign] = [_step(transform) for transform in transforms]
        fills: list[Any] = list(fill.values()) if isinstance(fill, Mapping) else [fill]
        if any(isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) for value in fills):
            raise ArgumentError(f"fill must be a finite number, or one for each image by name, not {fill!r}")
        self.fill: float | dict[str, float] = dict(fill) if isinstance(fill, Mapping) else fill
        self._interpolation = _agreed_interpolation(self.transforms)

    @property
    def uses_global_random(self) -> bool:
        """Whether some callable takes no generator, so that global generators are seeded for it: one patch at a time in a process."""
        return any(isinstance(step, Foreign) and not step.takes_rng for step in self.transforms)

    def check(self, images: Mapping[str, Any]) -> None:
        """Raise what would go wrong with subjects of these images (name to record), before any patch is made.

        Raises:
            UnknownNameError: for a key of a transform, or a name in `fill`, that is no image.
            TransformError: for an intensity transform of a label map, or a fill that a label map cannot hold.
        """
        for step in self.transforms:
            if isinstance(step, Transform):
                step.check(images)
        for name in self.fill if isinstance(self.fill, Mapping) else ():
            if name not in images:
                raise UnknownNameError(f"the recipe has a fill for {name!r}, but the images are {sorted(images)}: mend its `fill`")
        for name, info in images.items():
            self._fill(name, info)

    def draw(self, rng: np.random.Generator, entry: Source, location: PatchLocation) -> Parameters:
        """Draw the parameters of one patch.

        Args:
            rng: the only source of randomness; it is advanced.
            entry: the subject.
            location: the patch; its centre is the anchor of what is drawn.

        Returns:
            {"anchor": [i, j, k], "steps": [{"transform": name, "parameters": ...}, ...]}, plain JSON values. Parameters of intensity
            transforms are by image name; None means that the patch is left as it is.
        """
        anchor = [start + (size - 1) / 2 for start, size in zip(location.start, location.size, strict=True)]
        context = _context(entry, location, anchor)
        steps = [{"transform": step.name, "parameters": _drawn(step, rng, context)} for step in self.transforms]
        return {"anchor": anchor, "steps": steps}

    def apply(
        self,
        entry: Source,
        location: PatchLocation,
        parameters: Parameters,
        out: Mapping[str, torch.Tensor] | None = None,
        keys: Sequence[str] | None = None,
        stages: Stages | None = None,
    ) -> Sample:
        """Make a patch as the parameters say; the same arguments give the same patch bit for bit.

        Args:
            entry: the subject.
            location: the patch; need not be the one for which the parameters were drawn.
            parameters: what `draw` returned, as it is or after a round trip through JSON.
            out: tensors on the CPU to fill, by image name: float32 (C, i, j, k) for scalars, for labels integers that hold those of the
                stored dtype (a batch's, where subjects differ); made when None.
            keys: names of the images wanted; None for all.
            stages: nanoseconds are added to it by stage.

        Returns:
            The images by name: the tensors of `out`, filled.

        Raises:
            TransformError: for parameters of another recipe, or a transform that returns something unusable: the message names the
                transform, the subject and the location.
            UnknownNameError: for a key that is no image.
        """
        drawn = self._matched(parameters)
        context = _context(entry, location, parameters["anchor"])
        clock = Clock(stages)
        sample: Sample = {}
        maps: Maps = {}
        for name in context.images if keys is None else keys:
            if name not in context.images:
                raise UnknownNameError(f"subject {entry.name} has no image {name!r}; it has {sorted(context.images)}")
            sample[name] = _target(name, context, out)
            of_image = context.of(name)
            fill, interpolation = self._fill(name, of_image.info), self._interpolation[of_image.info.kind]
            target = sample[name].numpy()
            read_through(composed_map(drawn, of_image, maps), entry, target, of_image, fill, interpolation, clock)
        self.apply_intensity(sample, context, parameters, stages)
        clock = Clock(stages)
        for step, values in drawn:
            if isinstance(step, Foreign):
                step.apply(sample, values, context)
                clock.lap(step.name)
        return sample

    def apply_intensity(self, sample: Sample, context: Context, parameters: Parameters, stages: Stages | None = None) -> None:
        """Change the images of `sample` in place as the drawn intensity transforms say; tensors may be on any device."""
        clock = Clock(stages)
        for step, values in self._matched(parameters):
            if not isinstance(step, IntensityTransform) or values is None:
                continue
            for name in sample:
                if values.get(name) is not None:
                    _changed(step, sample[name], values[name], context.of(name))
            clock.lap(step.name)

    def __repr__(self) -> str:
        return f"Recipe({self.transforms!r}, fill={self.fill!r})"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values that tell recipes apart: each transform's class and settings, and the fill."""
        return {"transforms": [_described(step) for step in self.transforms], "fill": self.fill}

    def _matched(self, parameters: Parameters) -> list[tuple["Transform | Foreign", Any]]:
        """Each transform with its drawn parameters."""
        steps = parameters["steps"]
        if [step["transform"] for step in steps] != [step.name for step in self.transforms]:
            raise TransformError(
                f"the parameters were drawn by another recipe: they are of {[step['transform'] for step in steps]}, "
                f"this recipe has {[step.name for step in self.transforms]}"
            )
        return [(step, drawn["parameters"]) for step, drawn in zip(self.transforms, steps, strict=True)]

    def _fill(self, name: str, info: Any) -> float:
        fill = self.fill.get(name, 0) if isinstance(self.fill, Mapping) else self.fill
        if info.kind == "label" and (fill != int(fill) or not np.iinfo(info.dtype).min <= fill <= np.iinfo(info.dtype).max):
            raise TransformError(
                f"a fill of {fill!r} does not fit the label map {name!r} ({info.dtype}): give fill by image, as fill={{{name!r}: 0}}"
            )
        return fill


def _step(transform: Any) -> Transform | Foreign:
    if isinstance(transform, (SpatialTransform, IntensityTransform)):
        return transform
    if isinstance(transform, (type, Transform)) or not callable(transform):
        raise ArgumentError(
            f"a recipe takes instances of SpatialTransform and IntensityTransform, and functions of a sample dict, not {transform!r}"
        )
    return Foreign(transform)


def _agreed_interpolation(steps: Sequence[Any]) -> dict[str, Interpolation]:
    """Interpolation by kind of image: each image is interpolated once, so the transforms have to agree."""
    agreed: dict[str, Interpolation] = {}
    for step in steps:
        for kind, wanted in (getattr(step, "interpolation", None) or {}).items():
            if agreed.setdefault(kind, wanted) != wanted:
                raise ArgumentError(
                    f"{step.name} asks for {wanted} interpolation of {kind} images, another transform for {agreed[kind]}: all spatial "
                    "transforms of a recipe are one interpolation; make them agree"
                )
    return {"scalar": "linear", "label": "nearest", **agreed}


def _context(entry: Source, location: PatchLocation, anchor: Sequence[float]) -> Context:
    i, j, k = entry.spacing
    return Context(entry.name, location, entry.shape, (float(i), float(j), float(k)), entry.images, (anchor[0], anchor[1], anchor[2]))


def _drawn(step: Transform | Foreign, rng: np.random.Generator, context: Context) -> Parameters | None:
    """Parameters of one step; those of intensity transforms by image."""
    if isinstance(step, Foreign):
        return step.draw(rng)
    if not step.happens(rng):
        return None
    if isinstance(step, SpatialTransform):
        return step.draw(rng, context)
    return {name: step.draw(rng, context.of(name)) for name, info in context.images.items() if step.takes(name, info)}


def _target(name: str, context: Context, out: Mapping[str, torch.Tensor] | None) -> torch.Tensor:
    """The tensor to fill for an image: of `out`, checked, or a new one."""
    info = context.images[name]
    shape, dtype = (info.channels, *context.location.size), np.dtype(np.float32 if info.kind == "scalar" else info.dtype)
    if out is None:
        return torch.from_numpy(np.empty(shape, dtype))
    given = out[name]
    if given.device.type == "cpu" and tuple(given.shape) == shape:
        found = given.numpy().dtype
        if found == dtype or (info.kind == "label" and found.kind in "iu" and np.can_cast(dtype, found, "safe")):
            return given
    raise ArgumentError(
        f"out[{name!r}] must be a {dtype} tensor of shape {shape} on the CPU, not {given.dtype} of shape {tuple(given.shape)} "
        f"on {given.device}"
    )


def _changed(step: IntensityTransform, patch: torch.Tensor, values: Parameters, context: Context) -> None:
    """Change a patch in place; what a transform of the user's own returns is checked."""
    try:
        result = step.apply(patch, values, context)
    except Exception as error:
        error.add_note(f"raised in {where(step.name, context)}, image {context.image!r}")
        raise
    if not type(step).__dict__.get("trusted", False):  # a subclass is not trusted for its parent's sake
        put_back(patch, result, f"{where(step.name, context)}, image {context.image!r}")
    elif result is not patch:
        patch.copy_(result)


def _described(step: Transform | Foreign) -> dict[str, Any]:
    if isinstance(step, Foreign):
        function = step.function
        kind = function if hasattr(function, "__qualname__") else type(function)
        return {"function": f"{kind.__module__}.{kind.__qualname__}"}
    settings = {name: value if _is_plain(value) else repr(value) for name, value in vars(step).items()}
    return {"transform": f"{type(step).__module__}.{type(step).__qualname__}", **settings}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    return all(map(_is_plain, value)) if isinstance(value, (list, tuple)) else value is None or isinstance(value, (bool, int, float, str))
