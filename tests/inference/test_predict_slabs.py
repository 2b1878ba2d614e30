"""Predictions against plain NumPy: kinds of output, files, windows, resolutions, masks, and the memory that they take."""

import tracemalloc
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_stitching import softmax, stitched, windows_of
from torch import nn
from torch.nn.functional import avg_pool3d, interpolate
from written_files import affine_of, read

import patchflow as pf
from patchflow.errors import ArgumentError, InferenceError, UnknownNameError

RNG = np.random.default_rng(4)
IMAGE = RNG.normal(size=(1, 11, 13, 7)).astype(np.float32)
AFFINE = np.array([[0, -1.3, 0.4, 10], [1.5, 0, 0.1, -20], [0, 0.2, 2.9, 5], [0, 0, 0, 1]])
SUBJECT = pf.Subject("p7", image=pf.ScalarImage(IMAGE, AFFINE))
SIZE, OVERLAP = (6, 5, 8), (3, 2, 4)
OPTIONS = {"patch_size": SIZE, "patch_overlap": OVERLAP, "progress": False}
RAMP = np.linspace(-1, 2, 6 * 5 * 8).reshape(1, 6, 5, 8)


def classes(x):
    """Three classes that depend on the place in the window, so that it shows how windows are weighed; for arrays and tensors."""
    ramp = torch.from_numpy(RAMP).float()[None] if isinstance(x, torch.Tensor) else RAMP
    cat = (lambda parts: torch.cat(parts, 1)) if isinstance(x, torch.Tensor) else np.concatenate
    return cat([x * ramp, ramp - x, 0.3 * x + 0.1 * ramp])


def probabilities(slab: torch.Tensor) -> torch.Tensor:
    return torch.softmax(slab, 0)[1:] ** 2


KINDS = {
    "labels": lambda logits: logits.argmax(0, keepdims=True).astype(np.uint8),
    "probabilities": softmax,
    "logits": lambda logits: logits,
    probabilities: lambda logits: softmax(logits)[1:] ** 2,
}


def triangle(size: int) -> list[float]:
    return [min(k + 1, size - k) for k in range(size)]


MODES = ["crop", "average", "hann", "gaussian", triangle, ("crop", "hann", triangle)]


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_output_in_memory_and_in_files(tmp_path, mode) -> None:
    logits, covered, _ = stitched(IMAGE, classes, SIZE, OVERLAP, mode)
    assert covered.all()
    for number, (output, expected) in enumerate(KINDS.items()):
        found = pf.predict(classes, SUBJECT, output=output, overlap_mode=mode, batch_size=3, **OPTIONS).numpy()
        np.testing.assert_allclose(found, expected(logits), rtol=0, atol=2e-6 * np.ptp(logits))
        ending = (".nii", ".nii.gz", ".h5")
        for suffix in ending:
            path = tmp_path / f"{number}{suffix}"
            assert pf.predict(classes, SUBJECT, output=output, overlap_mode=mode, path=path, **OPTIONS) == path
            np.testing.assert_array_equal(read(path), found, strict=True)
            np.testing.assert_allclose(affine_of(path), AFFINE, rtol=0, atol=1e-6)


def resolutions(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same at other resolutions: pairs of voxels along each axis become 1, 4 or 3 of them."""
    return {"same": torch.cat([x, -x, x**2], 1), "half": half(x), "double": torch.cat([double(x), 1 - double(x)], 1), "more": more(x)}


def half(x):
    return avg_pool3d(x, 2)


def double(x):
    return interpolate(x, scale_factor=2, mode="nearest")


def more(x):
    for axis in (2, 3, 4):
        a, b = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
        x = torch.stack([a, (a + b) / 2, b], axis + 1).flatten(axis, axis + 1)
    return x


SCALES = {"same": 1, "half": 0.5, "double": 2, "more": Fraction(3, 2)}


@pytest.mark.parametrize("outside", ["constant", "border", "reflect"])
@pytest.mark.parametrize("shape", [(11, 13, 7), (5, 17, 2)])
def test_outputs_of_other_resolutions(tmp_path, shape, outside: str) -> None:
    volume = RNG.normal(size=(1, *shape)).astype(np.float32)
    pads = {"constant": {"constant_values": -3}, "border": {"mode": "edge"}, "reflect": {"mode": "reflect"}}
    whole = torch.from_numpy(np.pad(volume, [(0, 0)] + [(0, n % 2) for n in shape], **pads[outside])[None])
    expected = {name: value[0].numpy() for name, value in resolutions(whole).items()}
    paths = {"half": tmp_path / "half.nii", "double": tmp_path / "double.h5", "more": tmp_path / "more.nii.gz"}
    options = {"patch_size": (8, 6, 4), "patch_overlap": (4, 2, 0), "outside": outside, "fill": -3, "output": "logits", "scale": SCALES}
    subject = pf.Subject("odd", image=pf.ScalarImage(volume, AFFINE))
    kept = pf.predict(resolutions, subject, progress=False, **options)
    written = pf.predict(resolutions, subject, progress=False, path=paths, batch_size=4, **options)
    for name, scale in SCALES.items():
        fine = tuple(-(-n * Fraction(scale).numerator // Fraction(scale).denominator) for n in shape)
        wanted = expected[name][:, : fine[0], : fine[1], : fine[2]]
        np.testing.assert_allclose(kept[name].numpy(), wanted, rtol=0, atol=5e-6)
        if name in paths:
            assert written[name] == paths[name]
            np.testing.assert_array_equal(read(paths[name]), kept[name].numpy())
            for voxel in [(0, 0, 0), tuple(n - 1 for n in fine)]:  # its centre, in voxels of the input and then in millimetres
                centre = [(v + 0.5) / float(scale) - 0.5 for v in voxel]
                np.testing.assert_allclose(affine_of(paths[name]) @ [*voxel, 1], AFFINE @ [*centre, 1], rtol=0, atol=2e-5)


class Counted:
    """Counts windows."""

    def __init__(self, model=classes) -> None:
        self.model, self.windows = model, 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.windows += len(x)
        return self.model(x)


def some_mask() -> np.ndarray:
    mask = np.zeros(IMAGE.shape[1:], np.uint8)
    mask[0, 0, 0] = mask[10, 12, 6] = mask[10, 5, 3] = 1
    return mask


def touches(mask: np.ndarray):
    return lambda start: mask[tuple(slice(max(a, 0), a + s) for a, s in zip(start, SIZE, strict=True))].any()


def background(values: np.ndarray, covered: np.ndarray, output) -> np.ndarray:
    outside = np.zeros_like(values)
    if output == "probabilities":
        outside[0] = 1
    return np.where(covered, values, outside)


@pytest.mark.parametrize("mode", ["crop", "gaussian", ("hann", "crop", "average")])
def test_only_windows_that_touch_a_mask_are_predicted(tmp_path, mode) -> None:
    mask = some_mask()
    logits, covered, starts = stitched(IMAGE, classes, SIZE, OVERLAP, mode, touches(mask))
    assert 0 < covered.mean() < 1
    subject = pf.Subject("p7", image=pf.ScalarImage(IMAGE, AFFINE), where=pf.LabelMap(mask, AFFINE))
    for form in (mask, torch.from_numpy(mask)[None], mask.astype(bool), "where"):
        for output in ("labels", "probabilities", "logits"):
            model = Counted()
            found = pf.predict(model, subject, output=output, overlap_mode=mode, mask=form, **OPTIONS).numpy()
            assert model.windows == len(starts)
            expected = background(KINDS[output](logits), covered, output)
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.ptp(logits))
        path = pf.predict(classes, subject, output="probabilities", overlap_mode=mode, mask=form, path=tmp_path / "p.nii", **OPTIONS)
        np.testing.assert_allclose(read(path), background(softmax(logits), covered, "probabilities"), rtol=0, atol=1e-5)


def test_a_box_as_mask() -> None:
    box = pf.PatchLocation((-2, 3, 5), (4, 1, 9))
    mask = np.zeros(IMAGE.shape[1:], bool)
    mask[:2, 3:4, 5:] = True
    logits, covered, starts = stitched(IMAGE, classes, SIZE, OVERLAP, "hann", touches(mask))
    model = Counted()
    found = pf.predict(model, IMAGE, output="logits", overlap_mode="hann", mask=box, **OPTIONS)
    assert model.windows == len(starts)
    np.testing.assert_allclose(found.numpy(), np.where(covered, logits, 0), rtol=0, atol=2e-6 * np.ptp(logits))


def test_regions_and_integers_outside_a_mask_are_0() -> None:
    mask = some_mask()
    for model, options in ((lambda x: 5 + 0 * torch.cat([x, x], 1), {"activation": "sigmoid"}), (lambda x: (5 + 0 * x).short(), {})):
        found = pf.predict(model, IMAGE, overlap_mode="crop", mask=mask, **options, **OPTIONS).numpy()
        _, covered, _ = stitched(IMAGE, lambda x: x, SIZE, OVERLAP, "crop", touches(mask))
        np.testing.assert_array_equal(found[0], covered * (1 if options else 5))
    found = pf.predict(lambda x: 5 + 0 * x, IMAGE, output="probabilities", overlap_mode="crop", mask=mask, **OPTIONS).numpy()
    np.testing.assert_allclose(found[0], np.where(covered, 1 / (1 + np.exp(-5)), 0), rtol=1e-6)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (np.zeros((11, 13, 7)), ArgumentError, 'subject "p7": no window touches the mask'),
        (pf.PatchLocation((11, 0, 0), (4, 4, 4)), ArgumentError, r"no window touches the mask from \(11, 0, 0\)"),
        (np.ones((11, 13, 8)), ArgumentError, r"the mask is of shape \(11, 13, 8\), its images of \(11, 13, 7\)"),
        (np.ones((2, 11, 13, 7)), ArgumentError, "they must agree"),
        ("seg", UnknownNameError, "'p7' has no image 'seg'"),
    ],
)
def test_masks_that_cannot_be_used(mask, error, message: str) -> None:
    with pytest.raises(error, match=message):
        pf.predict(lambda x: pytest.fail("called"), SUBJECT, mask=mask, **OPTIONS)


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_windows_found_empty_are_not_predicted(batch_size: int) -> None:
    volume = IMAGE.copy()
    volume[:, 5:] = volume[:, :, 8:] = -9
    start = windows_of(volume.shape[1:], SIZE, OVERLAP)

    def holds_something(at) -> bool:
        return at == start[0] or bool((volume[(0, *(slice(max(a, 0), a + s) for a, s in zip(at, SIZE, strict=True)))] > -9).any())

    logits, covered, starts = stitched(volume, classes, SIZE, OVERLAP, "gaussian", holds_something, fill=-9)
    assert not covered.all()
    model = Counted()
    options = {"skip_empty": lambda window: window.max() <= -9, "fill": -9, "batch_size": batch_size, **OPTIONS}
    found = pf.predict(model, volume, output="logits", **options)
    assert model.windows == len(starts) < len(start)
    np.testing.assert_allclose(found.numpy(), np.where(covered, logits, 0), rtol=0, atol=2e-6 * np.ptp(logits))


def test_a_volume_of_nothing_is_background_but_for_its_first_window() -> None:
    model = Counted(lambda x: torch.cat([x, x + 1], 1))
    found = pf.predict(model, 0 * IMAGE, skip_empty=lambda window: window.eq(0).all(), overlap_mode="crop", **OPTIONS).numpy()
    assert model.windows == 1
    _, covered, _ = stitched(IMAGE, lambda x: x, SIZE, OVERLAP, "crop", lambda start: start == (0, 0, 0) or start == (0, 0, -1))
    np.testing.assert_array_equal(found[0], covered)


def test_memory_does_not_depend_on_the_length_of_the_volume(tmp_path) -> None:
    peaks = []
    for length in (16, 64, 512):  # the first warms up
        volume = np.zeros((1, length, 48, 40), np.float32)
        peaks.append(peak_of_memory(volume, 16, tmp_path / "p.h5"))
    slices = 2 * 16 * 48 * 40 * 4
    assert peaks[1] > slices  # it sees the ring
    assert peaks[2] - peaks[1] < slices / 2  # the result is 32 times as much


def test_memory_is_bounded_where_slices_lie_scattered_in_the_file(tmp_path) -> None:
    volume = np.zeros((1, 4096, 48, 40), np.float32)
    peak_of_memory(volume[:, :96], (64, 48, 40), tmp_path / "p.nii.gz")
    assert peak_of_memory(volume, (64, 48, 40), tmp_path / "p.nii.gz") < 24 << 20  # the result is 60 MiB


def peak_of_memory(volume: np.ndarray, patch_size, path: Path) -> int:
    tracemalloc.start()
    try:
        pf.predict(two, volume, patch_size=patch_size, output="probabilities", path=path, progress=False)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def two(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, 1 - x], 1)


def test_few_predictions_are_alive_at_a_time() -> None:
    made, most = [], []

    def model(x: torch.Tensor) -> torch.Tensor:
        most.append(sum(array() is not None for array in made))
        array = np.ones(tuple(x.shape), np.float32)
        made.append(weakref.ref(array))
        return torch.from_numpy(array)

    pf.predict(model, np.zeros((1, 400, 4, 4), np.float32), patch_size=4, progress=False)
    assert len(made) == 199
    assert max(most) <= 2
    assert not any(array() is not None for array in made)


def test_slices_beyond_the_budget_go_to_a_scratch_file(tmp_path, caplog) -> None:
    (tmp_path / "scratch").mkdir()
    caplog.set_level("INFO")
    options = {"output": "probabilities", "scale": SCALES, "patch_size": 6, "patch_overlap": 2, "progress": False}
    inside = pf.predict(resolutions, SUBJECT, **options)
    outside = pf.predict(resolutions, SUBJECT, memory_budget=1, scratch_dir=tmp_path / "scratch", **options)
    for name in inside:  # the sums are the same bit for bit; torch's softmax rounds the end of a run of voxels differently
        torch.testing.assert_close(inside[name], outside[name], rtol=0, atol=1e-6)
    assert caplog.text.count(f"to a scratch file in {tmp_path}/scratch,") == 4
    path = pf.predict(classes, SUBJECT, memory_budget="1 KiB", path=tmp_path / "labels.nii.gz", **OPTIONS)
    np.testing.assert_array_equal(read(path), pf.predict(classes, SUBJECT, **OPTIONS).numpy())
    assert f"to a scratch file in {tmp_path}," in caplog.text
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["labels.nii.gz", "scratch"]


def test_a_function_with_weights_keeps_no_graph() -> None:
    head = nn.Conv3d(3, 2, 1, bias=False)
    found = pf.predict(classes, IMAGE, output=lambda slab: head(slab[None])[0], **OPTIONS)
    assert not found.requires_grad
    logits = stitched(IMAGE, classes, SIZE, OVERLAP)[0]
    np.testing.assert_allclose(found.numpy(), np.einsum("dc,cijk->dijk", head.weight.detach()[:, :, 0, 0, 0].numpy(), logits), atol=1e-5)


def test_a_function_must_return_the_same_kind_of_slab_each_time() -> None:
    def shrinking(slab: torch.Tensor) -> torch.Tensor:
        return slab if shrinking.first.append(0) or len(shrinking.first) == 1 else slab[:2]

    shrinking.first = []
    with pytest.raises(InferenceError, match=r'subject "p7": the output function returned 2 channels .* at I=3, and 3 .* the one before'):
        pf.predict(classes, SUBJECT, output=shrinking, **OPTIONS)
