"""Test-time augmentation and ensembles against the explicit mean, written in NumPy."""

from itertools import combinations

import numpy as np
import pytest
import torch
from plain_stitching import softmax, stitched, windows_of
from scipy.ndimage import gaussian_filter
from torch import nn

import patchflow as pf
from patchflow.errors import ArgumentError, InferenceError

RNG = np.random.default_rng(7)
IMAGE = RNG.normal(size=(1, 13, 11, 9)).astype(np.float32)
SIZE, OVERLAP = (6, 5, 4), (3, 2, 2)
OPTIONS = {"patch_size": SIZE, "patch_overlap": OVERLAP, "progress": False}
RAMP = RNG.normal(size=(1, *SIZE))
AXES = [(), (0,), (2,), (0, 1), (1, 2), (0, 1, 2)]


def lopsided(x, sign: float = 1.0):
    """Two classes that depend on the place in the window, of an array (C, i, j, k) or a tensor (B, C, i, j, k)."""
    ramp = torch.from_numpy(RAMP).to(x.dtype) if isinstance(x, torch.Tensor) else RAMP
    cat = (lambda parts: torch.cat(parts, 1)) if isinstance(x, torch.Tensor) else np.concatenate
    return cat([sign * x * ramp + ramp, x - ramp])


def mirrored(model, axes):
    """The mean of a model over all mirrors of a window, an array (C, i, j, k)."""
    chosen = [tuple(1 + axis for axis in some) for count in range(len(axes) + 1) for some in combinations(axes, count)]
    return lambda window: np.mean([np.flip(model(np.flip(window, flip)), flip) for flip in chosen], axis=0)


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2e-6 * max(np.ptp(expected), 1))


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("mode", ["crop", "gaussian"])
def test_mirrors_are_the_mean_over_flips_of_each_window(axes, mode: str) -> None:
    expected, _, starts = stitched(IMAGE, mirrored(lopsided, axes), SIZE, OVERLAP, mode)
    calls = []
    found = pf.predict(
        lambda x: calls.append(len(x)) or lopsided(x), IMAGE, output="logits", mirror_axes=axes, overlap_mode=mode, batch_size=4, **OPTIONS
    )
    close(found, expected)
    assert sum(calls) == len(starts) * 2 ** len(axes)
    assert not np.allclose(found, stitched(IMAGE, lopsided, SIZE, OVERLAP, mode)[0], atol=1e-2) or not axes


@pytest.mark.parametrize("axes", [(), (0, 2)])
def test_probabilities_are_averaged_over_windows_mirrors_and_models(axes) -> None:
    models = [lopsided, lambda x: lopsided(x, -1)]
    ensemble = [mirrored(lambda window, model=model: softmax(model(window)), axes) for model in models]
    mean = stitched(IMAGE, lambda window: np.mean([model(window) for model in ensemble], axis=0), SIZE, OVERLAP)[0]
    options = {"average": "probabilities", "mirror_axes": axes, **OPTIONS}
    close(pf.predict(models, IMAGE, output="probabilities", **options), mean)
    labels = pf.predict(models, IMAGE, **options).numpy()
    clear = np.abs(mean[0] - mean[1]) > 1e-5
    np.testing.assert_array_equal(labels[0][clear], mean.argmax(0)[clear])
    logits = stitched(IMAGE, lambda w: np.mean([mirrored(model, axes)(w) for model in models], axis=0), SIZE, OVERLAP)[0]
    close(pf.predict(models, IMAGE, output="probabilities", mirror_axes=axes, **OPTIONS), softmax(logits))
    assert np.abs(softmax(logits) - mean).max() > 0.01  # the two are not the same


def test_averaged_sigmoids_are_thresholded_at_one_half() -> None:
    models = [lambda x: 6 * x, lambda x: -x + 0.1]
    mean = np.mean([1 / (1 + np.exp(-6 * IMAGE)), 1 / (1 + np.exp(IMAGE - 0.1))], axis=0)
    close(pf.predict(models, IMAGE, output="probabilities", average="probabilities", **OPTIONS), mean)
    found = pf.predict(models, IMAGE, average="probabilities", **OPTIONS).numpy()
    clear = np.abs(mean - 0.5) > 1e-5
    np.testing.assert_array_equal(found[clear], mean[clear] > 0.5)


@pytest.mark.parametrize("axes", [(0,), (1, 2)])
def test_a_flip_as_a_view_is_one_more_mirror(axes) -> None:
    flip = [1 + axis for axis in axes]
    expected = stitched(IMAGE, lambda w: (lopsided(w) + np.flip(lopsided(np.flip(w, flip)), flip)) / 2, SIZE, OVERLAP)[0]
    close(pf.predict(lopsided, IMAGE, output="logits", views=[pf.augment.RandomFlip(axes=axes, p=1)], **OPTIONS), expected)


def test_voxels_that_a_view_hides_are_those_of_the_others() -> None:
    """A shift of two voxels: seen[i] is the volume's i - 2, and what the model said of seen[i + 2] belongs to voxel i."""
    padded = np.pad(IMAGE, [(0, 0)] + [(8, 8)] * 3)

    def shifted(start: tuple[int, ...]) -> np.ndarray:
        i, j, k = (a + 8 for a in start)
        seen = padded[:, i - 2 : i + 4, j : j + 5, k : k + 4]
        plain, back = lopsided(padded[:, i : i + 6, j : j + 5, k : k + 4]), lopsided(seen)
        mean = plain.copy()
        mean[:, :4] = (plain[:, :4] + back[:, 2:]) / 2
        return mean

    in_order = iter(windows_of(IMAGE.shape[1:], SIZE, OVERLAP))
    expected = stitched(IMAGE, lambda _: shifted(next(in_order)), SIZE, OVERLAP)[0]
    shift = pf.augment.RandomAffine(scales=0, degrees=0, translation=(2, 2, 0, 0, 0, 0))
    found = pf.predict(lopsided, IMAGE, output="logits", views=[shift], batch_size=5, **OPTIONS)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)


VIEWS = [
    pf.augment.RandomAffine(scales=0.1, degrees=12, translation=1.5),
    pf.Recipe([pf.augment.RandomFlip(p=1), pf.augment.RandomAffine(scales=0, degrees=(20, 20))], outside="border"),
]


@pytest.mark.parametrize("views", [VIEWS, [pf.augment.RandomElastic(control_spacing=8, max_displacement=1.2)]])
def test_spatial_views_give_an_image_back_and_a_constant_exactly(views) -> None:
    shape, size = ((32, 30, 28), 20) if views is VIEWS else ((12, 11, 10), 12)  # elastic maps take long to invert
    smooth = gaussian_filter(RNG.normal(size=shape), 3)[None].astype(np.float32)
    smooth /= np.ptp(smooth)
    options = {"patch_size": size, "patch_overlap": 6, "output": "logits", "views": views, "progress": False}
    found = pf.predict(nn.Identity(), smooth, outside="border", **options).numpy()
    assert np.abs(found - smooth)[:, 3:-3, 3:-3, 3:-3].max() < 0.02  # a voxel's change is up to 0.1 of the range
    assert np.abs(found - smooth).max() > 1e-5  # they did something
    constant = pf.predict(lambda x: torch.full_like(x, 3.25), smooth, **options)
    np.testing.assert_allclose(constant.numpy(), np.full_like(smooth, 3.25), rtol=1e-6)


def test_views_are_the_same_for_the_same_seed_and_batch_size_changes_nothing() -> None:
    options = {"output": "logits", "views": VIEWS[:1], "overlap_mode": "crop", **OPTIONS}
    first = pf.predict(lopsided, IMAGE, seed=3, **options)
    assert torch.equal(first, pf.predict(lopsided, IMAGE, seed=3, batch_size=7, **options))
    assert not torch.equal(first, pf.predict(lopsided, IMAGE, seed=4, **options))


def test_several_images_are_shown_alike() -> None:
    subject = pf.Subject("s", a=pf.ScalarImage(IMAGE), b=pf.ScalarImage(2 * IMAGE))
    found = pf.predict(lambda x: x[:, 1:] - 2 * x[:, :1], subject, images=("a", "b"), output="logits", views=VIEWS[:1], **OPTIONS)
    assert found.abs().max() < 1e-5


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float64, 2e-6)])
@pytest.mark.parametrize("axes", [(), (0, 1, 2)])
def test_models_of_other_precisions_are_averaged_in_float32(dtype: torch.dtype, error: float, axes) -> None:
    found = pf.predict(lambda x: lopsided(x).to(dtype), IMAGE, output="logits", mirror_axes=axes, **OPTIONS)
    expected = stitched(IMAGE, mirrored(lopsided, axes), SIZE, OVERLAP)[0]
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=error * np.ptp(expected))
    exact = pf.predict(lambda x: (x * 0 + 1 + 2**-7).to(dtype), IMAGE, output="logits", mirror_axes=axes, **OPTIONS)
    np.testing.assert_allclose(exact.numpy(), np.full_like(IMAGE, 1 + 2**-7), rtol=2e-7)  # many roundings of a half would show


def test_models_that_work_in_place_do_not_see_each_other() -> None:
    def doubling(x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2)

    for options in ({"mirror_axes": (0, 1)}, {"views": [pf.augment.RandomFlip(axes=0, p=1)]}, {}):
        close(pf.predict([doubling, doubling], IMAGE, output="logits", **options, **OPTIONS), 2 * IMAGE)
    buffer = torch.empty(1, 1, *SIZE)
    close(pf.predict([lambda x: buffer.copy_(x), lambda x: 3 * x], IMAGE, output="logits", **OPTIONS), 2 * IMAGE)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", [{}, {"average": "probabilities", "output": "probabilities"}, {"views": VIEWS[:1]}])
def test_a_model_of_an_ensemble_that_predicts_nan_is_an_error(bad: float, options) -> None:
    calls = []

    def model(x: torch.Tensor) -> torch.Tensor:
        calls.append(0)
        return x * bad if len(calls) >= 9 else x

    with pytest.raises(InferenceError, match=r'subject "array", window \[.*NaN or infinite'):
        pf.predict([nn.Identity(), model], IMAGE, **options, **OPTIONS)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (lambda x: {"b": x}, r'gave "a" \(1, 1, 6, 5, 4\), another "b" \(1, 1, 6, 5, 4\)'),
        (lambda x: {"a": x, "b": x}, 'another "a" .*, "b"'),
        (lambda x: {"a": lopsided(x)}, r"another \"a\" \(1, 2, 6, 5, 4\)"),
        (lambda x: x, r'gave "a" .*another \(1, 1, 6, 5, 4\)'),
        (lambda x: {"a": None}, "not None"),
        (lambda x: {"a": x[:, :, 1:]}, r"another \"a\" \(1, 1, 5, 5, 4\)"),
        (lambda x: {"a": x.long()}, "int64 cannot be averaged"),
    ],
)
def test_models_of_an_ensemble_must_return_the_same_outputs(second, message: str) -> None:
    with pytest.raises(InferenceError, match=r'subject "array", window \[0:6, 0:5, 0:4\].*' + message):
        pf.predict([lambda x: {"a": x}, second], IMAGE, **OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mirror_axes": (3,)}, "mirror_axes must be some of 0, 1 and 2"),
        ({"mirror_axes": (0, 0)}, "each once"),
        ({"mirror_axes": 1}, "mirror_axes must be some of"),
        ({"mirror_axes": (True,)}, "mirror_axes must be some of"),
        ({"views": [pf.augment.RandomNoise(std=1)]}, "a view must be a recipe of spatial transforms alone"),
        ({"views": pf.augment.RandomFlip()}, "views must be a list"),
        ({"average": "labels"}, 'average must be "logits" or "probabilities"'),
        ({"average": "probabilities", "output": "logits"}, "nothing to average as probabilities"),
        ({"model": []}, "model must be a model or a list of models"),
        ({"model": [nn.Identity(), "best.pt"]}, "each of which can be called"),
    ],
)
def test_views_that_cannot_be_used_are_refused_before_the_model_is_called(options, message: str) -> None:
    options = dict(options)
    model = options.pop("model", lambda x: pytest.fail("called"))
    with pytest.raises(ArgumentError, match=message):
        pf.predict(model, IMAGE, **options, **OPTIONS)


def test_mirrors_work_at_other_resolutions_and_recipes_say_that_they_do_not() -> None:
    volume = RNG.normal(size=(1, 12, 8, 8)).astype(np.float32)
    pool, options = nn.AvgPool3d(2), {"patch_size": 4, "scale": 0.5, "output": "logits", "progress": False}
    expected = pool(torch.from_numpy(volume)).numpy()
    np.testing.assert_allclose(pf.predict(pool, volume, mirror_axes=(0, 1, 2), **options).numpy(), expected, rtol=0, atol=2e-6)
    with pytest.raises(ArgumentError, match="views need predictions of the windows' size"):
        pf.predict(pool, volume, views=VIEWS[:1], **options)


def test_a_transform_alone_reads_outside_the_volume_as_predict_does() -> None:
    seen = []

    def model(x: torch.Tensor) -> torch.Tensor:
        seen.append((x.min().item(), x.max().item()))
        return x

    pf.predict(
        model, np.zeros((1, 4, 4, 4), np.float32), patch_size=6, fill=-7, views=[pf.augment.RandomFlip(axes=(0,), p=1)], progress=False
    )
    assert seen == [(-7, 0), (-7, 0)]
