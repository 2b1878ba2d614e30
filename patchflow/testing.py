"""Contract suites for samplers, transforms, sources and models of your own: call one in a test.

    def test_my_sampler(cache):
        patchflow.testing.check_sampler(MySampler(64), cache[0])

Each raises an `AssertionError` that says which promise was broken, and how it was tried.
"""

import json
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from patchflow.augment.base import Transform
from patchflow.augment.plain import check_plain
from patchflow.augment.recipe import Recipe
from patchflow.errors import TransformError, UnknownNameError
from patchflow.geometry.location import PatchLocation, clamped, whole
from patchflow.inference.checks import check_prediction
from patchflow.inference.modes import evaluating
from patchflow.inference.settings import named_outputs
from patchflow.inference.sources import PatchSource
from patchflow.inference.views import Model
from patchflow.sampling.base import Sampler
from patchflow.seeding import foreign_generators, generator
from patchflow.types import SizeLike, int3


def check_sampler(sampler: Sampler, entry: Any, draws: int = 50) -> None:
    """Check that a sampler draws as it should from one entry of a cache, which it must suit.

    Locations are of the sampler's patch size and hang over the border only where the patch is larger than the volume; they depend on
    nothing but the generator given (not on global generators, nor on draws before); and a pickled copy draws the same.

    Args:
        sampler: yours.
        entry: a subject that it suits.
        draws: locations to try.

    Raises:
        AssertionError: for a broken promise.
    """
    sampler.check(entry)
    with foreign_generators(1):
        drawn = [sampler.draw(entry, generator(seed)) for seed in range(draws)]
    for seed, location in enumerate(drawn):
        _expect(isinstance(location, PatchLocation), f"draw must return a PatchLocation, not {location!r} (seed {seed})")
        _expect(location.size == sampler.patch_size, f"{location} is not of the patch size {sampler.patch_size} (seed {seed})")
        _expect(
            location == clamped(location.start, location.size, entry.shape),
            f"{location} hangs over the border of a volume of {entry.shape}, along an axis where it would fit (seed {seed})",
        )
    copy = pickle.loads(pickle.dumps(sampler))
    with foreign_generators(2):
        again = [sampler.draw(entry, generator(seed)) for seed in reversed(range(draws))][::-1]
        copied = [copy.draw(entry, generator(seed)) for seed in range(draws)]
    _expect(again == drawn, "the same generators gave other locations the second time: draw from `rng` alone, and keep no state")
    _expect(copied == drawn, "a pickled copy of the sampler draws other locations: process workers would disagree with threads")


def check_transform(transform: Transform, entry: Any, patch_size: SizeLike = 8, draws: int = 5) -> None:
    """Check that a transform keeps what a recipe promises, on one entry of a cache.

    Parameters are plain JSON values that depend on the generator alone; the same parameters give the same patch bit for bit, also after a
    round trip through JSON, and for a pickled copy; images keep shape, dtype and finite values; and if the transform says that it is
    `exact`, a patch equals the crop of the augmented whole volume, to 1e-4 of the intensity range, and labels are equal.

    Args:
        transform: yours.
        entry: a subject that it suits.
        patch_size: voxels of the patches to try.
        draws: parameters to try.

    Raises:
        AssertionError: for a broken promise.
    """
    recipe, size = Recipe([transform]), int3(patch_size, "patch_size")
    recipe.check(entry.images)
    copy = pickle.loads(pickle.dumps(recipe))
    for seed in range(draws):
        location = clamped(_corner(entry.shape, seed), size, entry.shape)
        with foreign_generators(1):
            parameters = recipe.draw(generator(seed), entry, location)
            sample = recipe.apply(entry, location, parameters)
        try:
            check_plain(parameters)
        except TransformError as error:
            raise AssertionError(str(error)) from error
        with foreign_generators(2):
            again = recipe.draw(generator(seed), entry, location)
            _expect(again == parameters, f"the same generator drew {again}, and before that {parameters}: draw from `rng` alone")
            restored = json.loads(json.dumps(parameters, allow_nan=False))
            for what, other in (("the same recipe", recipe), ("a pickled copy", copy)):
                _expect_same(
                    sample, other.apply(entry, location, restored), f"{what} made another patch of the same parameters {parameters}"
                )
        for name, patch in sample.items():
            _expect(bool(torch.isfinite(patch).all()), f'values of image "{name}" are not finite, with the parameters {parameters}')
        if transform.exact:
            _check_exact(transform, recipe, entry, location, parameters)


def check_source(source: PatchSource) -> None:
    """Check that windows can be read from a source of your own as from an entry of a cache.

    Any window equals the same part of the whole volume; voxels outside the volume hold the fill; `out` may be a view of any strides; an
    unknown name is an `UnknownNameError`.

    Raises:
        AssertionError: for a broken promise.
    """
    _expect(np.asarray(source.affine).shape == (4, 4), f"the affine must be 4x4, not of shape {np.asarray(source.affine).shape}")
    i, j, k = source.shape
    boxes = [PatchLocation((-1, 0, -2), (i + 2, j, k + 3)), PatchLocation((i // 2, j // 3, 0), (i - i // 2, j - j // 3, k))]
    for name, info in source.images.items():
        volume = source.read(name, whole(source.shape))
        _expect(volume.shape == info.shape, f'the whole of image "{name}" has shape {volume.shape}, but its record says {info.shape}')
        if info.kind == "scalar":
            _expect(volume.dtype == np.float32, f'image "{name}" is read as {volume.dtype}; intensities are float32')
        for box in boxes:
            expected = np.full((len(volume), *box.size), 7, volume.dtype)
            inside = box.overlap(source.shape)
            assert inside is not None  # both boxes reach the volume
            expected[(slice(None), *inside.patch)] = volume[(slice(None), *inside.volume)]
            _expect_equal(source.read(name, box, fill=7), expected, f'image "{name}" at {box}')
            room = np.zeros((*expected.shape[::-1], 2), volume.dtype)
            out = room[::-1, :, :, :, 1].transpose(3, 2, 1, 0)
            _expect_equal(source.read(name, box, out=out, fill=7), expected, f'image "{name}" at {box}, read into a view')
            _expect_equal(out, expected, f'the view given for image "{name}" at {box}')
    try:
        source.read("no image has this name", whole(source.shape))
    except UnknownNameError:
        return
    raise AssertionError("reading an image of an unknown name must raise an UnknownNameError")


def check_model(model: Model, patch_size: SizeLike, channels: int = 1, seed: int = 0) -> None:
    """Check that a model suits `predict`.

    In evaluation mode it returns finite tensors (B, C, i, j, k) of the windows' size, or several by name; calling it again gives the same
    to 1e-3 of the largest value, and so does giving it each window alone.

    Args:
        model: yours, on the CPU.
        patch_size: voxels of the windows.
        channels: of its input.
        seed: of the windows tried.

    Raises:
        AssertionError: for a broken promise.
        InferenceError: for outputs that cannot be stitched.
    """
    size = int3(patch_size, "patch_size")
    windows = [whole(size), whole(size)]
    batch = torch.from_numpy(generator(seed).standard_normal((2, channels, *size), dtype=np.float32))
    with evaluating([model]):
        together = _outputs(model, batch, windows)
        again = _outputs(model, batch, windows)
        alone = [_outputs(model, window[None], windows[:1]) for window in batch]
    for name, prediction in together.items():
        what = f'output "{name}"' if name else "the prediction"
        _expect(bool(torch.isfinite(prediction).all()), f"{what} of random windows is not finite")
        scale = max(float(prediction.abs().max()), 1e-30)
        _expect(
            _close(again[name], prediction, scale),
            f"{what} differs from call to call in evaluation mode: is there randomness in the model?",
        )
        single = torch.cat([outputs[name] for outputs in alone])
        _expect(_close(single, prediction, scale), f"{what} of a window depends on the other windows of its batch")


def _outputs(model: Model, batch: torch.Tensor, windows: Sequence[PatchLocation]) -> dict[str, torch.Tensor]:
    outputs = named_outputs(model(batch), "random windows", windows)
    for prediction in outputs.values():
        check_prediction(prediction, "random windows", windows, windows[0].size)
    return {name: prediction.double() for name, prediction in outputs.items()}


def _close(one: torch.Tensor, other: torch.Tensor, scale: float) -> bool:
    return one.shape == other.shape and float((one - other).abs().max()) <= 1e-3 * scale


def _check_exact(transform: Transform, recipe: Recipe, entry: Any, location: PatchLocation, parameters: dict[str, Any]) -> None:
    patch, volume = recipe.apply(entry, location, parameters), recipe.apply(entry, whole(entry.shape), parameters)
    inside = location.overlap(entry.shape)
    assert inside is not None  # the location was moved into the volume
    for name, augmented in volume.items():
        crop, part = augmented[(slice(None), *inside.volume)], patch[name][(slice(None), *inside.patch)]
        told = f'{transform.name} says that it is exact, but a patch of image "{name}" differs from the crop of the augmented volume'
        if entry.images[name].kind == "label":
            _expect(torch.equal(crop, part), f"{told} in {int((crop != part).sum())} voxels: {parameters}")
        else:
            scale = max(float(augmented.max() - augmented.min()), 1e-30)
            error = float((crop - part).abs().max()) / scale
            _expect(error <= 1e-4, f"{told} by {error:.2g} of the range: {parameters}")


def _corner(shape: Sequence[int], seed: int) -> tuple[int, int, int]:
    i, j, k = (int(generator(seed).integers(n)) for n in shape)
    return i, j, k


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _expect_equal(found: Any, expected: Any, what: str) -> None:
    _expect(found.shape == expected.shape, f"{what} has shape {found.shape}, not {expected.shape}")
    _expect(found.dtype == expected.dtype, f"{what} is {found.dtype}, not {expected.dtype}")
    _expect(bool((found == expected).all()), f"{what}: {int((found != expected).sum())} voxels differ from the whole volume or the fill")


def _expect_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], message: str) -> None:
    same = found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    _expect(same, message)
