"""A list of random transforms, drawn once per patch and then applied exactly as drawn."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch

from patchflow.augment.base import Context, IntensityTransform, Parameters, Source, SpatialTransform, Transform
from patchflow.augment.choice import Choice, Leaf, leaves_of, node_of
from patchflow.augment.foreign import Foreign
from patchflow.augment.inverse import bring_back
from patchflow.augment.ranges import Uniform
from patchflow.augment.reading import Clock, Maps, Reading, Stages, composed_map
from patchflow.augment.work import Work
from patchflow.errors import ArgumentError, TransformError, UnknownNameError
from patchflow.geometry.location import Outside, PatchLocation
from patchflow.kernels.resample import Interpolation

Sample = dict[str, torch.Tensor]


class Recipe:
    """Random transforms of patches.

    `draw` turns a generator into parameters: plain JSON values that can be printed, saved and replayed. `apply` reads and changes the
    patch as they say. All spatial transforms compose, in list order, into one map, through which each image is read once, straight from
    the stored voxels; where the map only mirrors or shifts by whole voxels, they are copied. Then intensity transforms change each
    `ScalarImage`, in list order, and last come the callables. The parameters are anchored at the centre of the location for which they
    were drawn: at another location, or for the whole volume, they give the same augmented space.

    Args:
        transforms: transforms, `OneOf`, `SomeOf`, lists of them, and callables f(sample) or f(sample, rng) that return the sample. A sample
            is a dict of the images as tensors (C, i, j, k), with "subject" (name) and "location" (int64 (6,), start then stop). A callable
            may change the values of images, not their shape or dtype, nor add images. It is made deterministic: rng is a generator of the
            patch's own, and for f(sample) the global generators of Python, NumPy and PyTorch are seeded, and put back afterwards.
        fill: the value outside the volume, in units of the values as read: a number, or one for each image by name (others get 0).
        outside: what lies outside the volume: "constant" (`fill`), "border" (the nearest voxel inside) or "reflect" (d c b | a b c d |
            c b a).
        image_interpolation: of `ScalarImage`s: "linear", "nearest" or "cubic" (cubic B-spline).
        label_interpolation: of `LabelMap`s: "nearest", or "linear": the label of the greatest weight among the eight voxels around, which
            is the arg-max of linearly interpolated one-hot labels, as nnU-Net does it.

    Raises:
        ArgumentError: for something that is neither a transform nor callable, a fill that is not finite, or an unknown interpolation.
    """

    def __init__(
        self,
        transforms: Iterable[Any] = (),
        fill: float | Mapping[str, float] = 0,
        outside: Outside = "constant",
        image_interpolation: Interpolation = "linear",
        label_interpolation: Literal["nearest", "linear"] = "nearest",
    ) -> None:
        self.transforms: list[Leaf | Choice | list[Any]] = [node_of(transform) for transform in transforms]
        self.leaves: list[Leaf] = leaves_of(self.transforms)
        fills: list[Any] = list(fill.values()) if isinstance(fill, Mapping) else [fill]
        if any(isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) for value in fills):
            raise ArgumentError(f"fill must be a finite number, or one for each image by name, not {fill!r}")
        self.fill: float | dict[str, float] = dict(fill) if isinstance(fill, Mapping) else fill
        self.outside = _one_of(outside, "outside", ("constant", "border", "reflect"))
        self.image_interpolation = _one_of(image_interpolation, "image_interpolation", ("linear", "nearest", "cubic"))
        self.label_interpolation = _one_of(label_interpolation, "label_interpolation", ("nearest", "linear"))

    @property
    def uses_global_random(self) -> bool:
        """Whether some callable takes no generator, so that global generators are seeded for it: one patch at a time in a process."""
        return any(isinstance(step, Foreign) and not step.takes_rng for step in self.leaves)

    @property
    def exact(self) -> bool:
        """Whether the patch of an augmented volume is the augmented patch: no transform says otherwise, and there are no callables."""
        return all(isinstance(step, Transform) and step.exact for step in self.leaves)

    def check(self, images: Mapping[str, Any]) -> None:
        """Raise what would go wrong with subjects of these images (name to record), before any patch is made.

        Raises:
            UnknownNameError: for a key of a transform, or a name in `fill`, that is no image.
            TransformError: for an intensity transform of a label map, or a fill that a label map cannot hold.
        """
        for step in self.leaves:
            step.check(images)
        for name in self.fill if isinstance(self.fill, Mapping) else ():
            if name not in images:
                raise UnknownNameError(f"the recipe has a fill for {name!r}, but the images are {sorted(images)}: mend its `fill`")
        for name, info in images.items():
            self._reading(name, info)

    def draw(self, rng: np.random.Generator, entry: Source, location: PatchLocation) -> Parameters:
        """Draw the parameters of one patch.

        Args:
            rng: the only source of randomness; it is advanced.
            entry: the subject.
            location: the patch; its centre is the anchor of what is drawn.

        Returns:
            {"anchor": [i, j, k], "steps": [{"transform": name, "parameters": ...}, ...]}, plain JSON values, a step for every transform,
            those of `OneOf` and `SomeOf` one after the other. Parameters of intensity transforms are by image name, and a list where
            channels have their own; None means that the patch is left as it is.
        """
        anchor = [start + (size - 1) / 2 for start, size in zip(location.start, location.size, strict=True)]
        drawn = _drawn(self.transforms, rng, _context(entry, location, anchor))
        return {
            "anchor": anchor,
            "steps": [{"transform": step.name, "parameters": values} for step, values in zip(self.leaves, drawn, strict=True)],
        }

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
        sample: Sample = {}
        clock = Clock(stages)
        for work in self.works(entry, location, parameters, keys):
            sample[work.name] = _target(work, out)
            work.make(entry, sample[work.name], clock)
        context = _context(entry, location, parameters["anchor"])
        self.apply_callables(sample, context, parameters, clock)
        return sample

    def works(self, entry: Source, location: PatchLocation, parameters: Parameters, keys: Sequence[str] | None = None) -> Iterator[Work]:
        """What is to be done for each image; arguments and errors are those of `apply`."""
        drawn = self._matched(parameters)
        context = _context(entry, location, parameters["anchor"])
        maps: Maps = {}
        for name in context.images if keys is None else keys:
            if name not in context.images:
                raise UnknownNameError(f"subject {entry.name} has no image {name!r}; it has {sorted(context.images)}")
            of_image = context.of(name)
            links = [
                (step, values[name])
                for step, values in drawn
                if isinstance(step, IntensityTransform) and values is not None and values.get(name) is not None
            ]
            yield Work(of_image, composed_map(drawn, of_image, maps), self._reading(name, of_image.info), links)

    def invert(
        self,
        prediction: torch.Tensor,
        entry: Source,
        location: PatchLocation,
        parameters: Parameters,
        image: str | None = None,
        interpolation: Literal["linear", "nearest"] = "linear",
        fill: float = 0,
    ) -> torch.Tensor:
        """Bring what was predicted for an augmented patch back to where it lies in the volume.

        Args:
            prediction: (C, i, j, k) of the patch that `apply(entry, location, parameters)` gave, on any device.
            entry, location, parameters: as given to `apply`.
            image: the image whose spatial transforms are undone; None for the entry's first.
            interpolation: "linear", or "nearest" for labels.
            fill: for voxels that the augmented patch does not show.

        Returns:
            (C, i, j, k) of `location` in the volume, in the prediction's dtype.

        Raises:
            TransformError: for a map that cannot be inverted.
            ArgumentError: for a prediction that is not of the location's size.
        """
        if prediction.shape[1:] != location.size:
            raise ArgumentError(f"the prediction must be (C, {', '.join(map(str, location.size))}), not of shape {tuple(prediction.shape)}")
        (work,) = self.works(entry, location, parameters, [next(iter(entry.images)) if image is None else image])
        return prediction if work.map is None else bring_back(prediction, work.map, location, interpolation, fill)

    def apply_callables(self, sample: Sample, context: Context, parameters: Parameters, clock: Clock) -> None:
        """Run the callables, the last steps, on a sample in place."""
        for step, values in self._matched(parameters):
            if isinstance(step, Foreign) and values is not None:
                step.apply(sample, values, context)
                clock.lap(step.name)

    def __repr__(self) -> str:
        return f"Recipe({self.transforms!r}, fill={self.fill!r}, outside={self.outside!r})"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values that tell recipes apart: each transform's class and settings, and how images are read."""
        read = {name: getattr(self, name) for name in ("fill", "outside", "image_interpolation", "label_interpolation")}
        return {"transforms": _described(self.transforms), **read}

    def _matched(self, parameters: Parameters) -> list[tuple[Leaf, Any]]:
        """Each transform with its drawn parameters."""
        steps = parameters["steps"]
        if [step["transform"] for step in steps] != [step.name for step in self.leaves]:
            raise TransformError(
                f"the parameters were drawn by another recipe: they are of {[step['transform'] for step in steps]}, "
                f"this recipe has {[step.name for step in self.leaves]}"
            )
        return [(step, drawn["parameters"]) for step, drawn in zip(self.leaves, steps, strict=True)]

    def _reading(self, name: str, info: Any) -> Reading:
        """How an image is read."""
        fill = self.fill.get(name, 0) if isinstance(self.fill, Mapping) else self.fill
        if info.kind == "scalar":
            return Reading(fill, self.outside, self.image_interpolation)
        if fill != int(fill) or not np.iinfo(info.dtype).min <= fill <= np.iinfo(info.dtype).max:
            raise TransformError(
                f"a fill of {fill!r} does not fit the label map {name!r} ({info.dtype}): give fill by image, as fill={{{name!r}: 0}}"
            )
        return Reading(fill, self.outside, self.label_interpolation)


def _one_of(value: Any, name: str, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise ArgumentError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
    return value


def _context(entry: Source, location: PatchLocation, anchor: Sequence[float]) -> Context:
    i, j, k = (float(millimetres) for millimetres in entry.spacing)
    centre = anchor[0], anchor[1], anchor[2]
    return Context(entry.name, location, entry.shape, (i, j, k), entry.images, centre, affine=entry.affine, patch=location)


def _drawn(node: Any, rng: np.random.Generator, context: Context) -> list[Parameters | None]:
    """Parameters of every transform below a node, in order; None for those that are not to be applied."""
    if isinstance(node, list):
        return [values for part in node for values in _drawn(part, rng, context)]
    if isinstance(node, Choice):
        chosen = node.choose(rng)
        return [
            values
            for part, taken in zip(node.transforms, chosen, strict=True)
            for values in (_drawn(part, rng, context) if taken else [None] * len(leaves_of(part)))
        ]
    if isinstance(node, Foreign):
        return [node.draw(rng)]
    if not node.happens(rng):
        return [None]
    if isinstance(node, SpatialTransform):
        return [node.draw(rng, context)]
    return [{name: node.draw_image(rng, context.of(name)) for name, info in context.images.items() if node.takes(name, info)}]


def _target(work: Work, out: Mapping[str, torch.Tensor] | None) -> torch.Tensor:
    """The tensor to fill for an image: of `out`, checked, or a new one."""
    info, dtype = work.context.info, work.dtype
    shape = (info.channels, *work.context.location.size)
    if out is None:
        return torch.from_numpy(np.empty(shape, dtype))
    given = out[work.name]
    if given.device.type == "cpu" and tuple(given.shape) == shape:
        found = given.numpy().dtype
        if found == dtype or (info.kind == "label" and found.kind in "iu" and np.can_cast(dtype, found, "safe")):
            return given
    raise ArgumentError(
        f"out[{work.name!r}] must be a {dtype} tensor of shape {shape} on the CPU, not {given.dtype} of shape {tuple(given.shape)} "
        f"on {given.device}"
    )


def _described(node: Any) -> Any:
    if isinstance(node, list):
        return [_described(part) for part in node]
    if isinstance(node, Foreign):
        return node.to_dict()
    settings = {name: value if _is_plain(value) else repr(value) for name, value in vars(node).items() if name != "transforms"}
    inner = {"transforms": _described(node.transforms)} if isinstance(node, Choice) else {}
    return {"transform": f"{type(node).__module__}.{type(node).__qualname__}", **settings, **inner}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields") and not isinstance(value, Uniform):
        return False  # another distribution of the same ends must not look the same
    return all(map(_is_plain, value)) if isinstance(value, (list, tuple)) else value is None or isinstance(value, (bool, int, float, str))
