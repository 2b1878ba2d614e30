"""RobustNormalize, foreground thresholds and cohort numbers against numpy."""

import numpy as np
import pytest
import scipy.stats

import patchflow as pf
from patchflow.errors import ArgumentError, ImageError
from patchflow.preprocess import Rescale, RobustNormalize, Window, ZNormalize
from patchflow.seeding import generator


def subject(dtype: str = "float32", name: str = "s1", seed: int = 0) -> pf.Subject:
    rng = generator(seed)
    image = (rng.normal(size=(2, 8, 9, 10)) * 40).astype(dtype)
    return pf.Subject(name, image=pf.ScalarImage(image), label=pf.LabelMap(rng.integers(0, 3, (8, 9, 10)).astype(np.uint8)))


def run(step, whole: pf.Subject) -> np.ndarray:
    return pf.Pipeline([step]).run(whole)["image"].values()


@pytest.mark.parametrize("dtype", ["float32", "int16", "int32"])
@pytest.mark.parametrize("selection", [{}, {"mask": "label"}, {"above": 3.0}, {"mask": "label", "above": -8.5}])
@pytest.mark.parametrize("scale", ["iqr", "mad"])
def test_median_and_scale(dtype: str, selection: dict, scale: str) -> None:
    whole = subject(dtype)
    values = whole["image"].data.astype(np.float64)
    counted = values[:, whole["label"].data[0] > 0] if "mask" in selection else values.ravel()
    counted = counted[counted > selection.get("above", -np.inf)]
    expected = (values - np.median(counted)) / (
        scipy.stats.iqr(counted, scale="normal") if scale == "iqr" else scipy.stats.median_abs_deviation(counted, axis=None, scale="normal")
    )
    volume = pf.Pipeline([RobustNormalize(scale, **selection)]).run(whole)["image"]
    assert volume.array.dtype == dtype
    np.testing.assert_allclose(volume.values(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
@pytest.mark.parametrize("scale", ["iqr", "mad"])
def test_median_and_scale_of_each_channel(dtype: str, scale: str) -> None:
    whole = subject(dtype)
    image = whole["image"].data
    image[1] = 3 * image[1] + 70
    both = pf.Subject("s1", image=pf.ScalarImage(image.astype(dtype)))
    alone = [pf.Subject("s1", image=pf.ScalarImage(channel.astype(dtype))) for channel in image]
    expected = np.concatenate([run(RobustNormalize(scale), each) for each in alone])
    np.testing.assert_array_equal(run(RobustNormalize(scale, per_channel=True), both), expected, strict=True)
    assert abs(run(RobustNormalize(scale), both) - expected).max() > 0.5


def test_robust_errors() -> None:
    flat = pf.Subject("s1", image=pf.ScalarImage(np.r_[np.zeros(60), 1, 2, 3, 4].reshape(4, 4, 4)))
    for scale in ("iqr", "mad"):
        with pytest.raises(ImageError, match="are all 0"):
            run(RobustNormalize(scale), flat)
    with pytest.raises(ImageError, match="no voxel above 9"):
        run(RobustNormalize(above=9), flat)
    with pytest.raises(ArgumentError, match="'iqr' or 'mad'"):
        RobustNormalize("std")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_values_above_a_threshold(dtype: str) -> None:
    whole = subject(dtype)
    values = whole["image"].data.astype(np.float64)
    high = values[values > 10]
    np.testing.assert_allclose(run(ZNormalize(above=10), whole), (values - high.mean()) / high.std(), rtol=1e-5, atol=1e-5)
    low, top = np.percentile(high, (5, 95))
    np.testing.assert_allclose(run(Rescale(percentiles=(5, 95), above=10), whole), np.clip((values - low) / (top - low), 0, 1), atol=1e-5)
    for step in (ZNormalize(above=1e6), Rescale(above=1e6)):
        with pytest.raises(ImageError, match=r"subject 's1', image 'image'.*no voxel above 1e\+06"):
            run(step, whole)
    with pytest.raises(ArgumentError, match="no effect"):
        ZNormalize(mean=0, std=1, above=3)


def test_values_are_limited_first() -> None:
    whole = subject("int16")
    values = np.clip(whole["image"].data.astype(np.float64), -30, 50)
    np.testing.assert_allclose(run(ZNormalize(clip=(-30, 50)), whole), (values - values.mean()) / values.std(), atol=1e-5)
    np.testing.assert_allclose(run(ZNormalize(mean=3, std=7, clip=(-30, 50)), whole), (values - 3) / 7, atol=1e-5)
    with pytest.raises(ArgumentError, match="clip must be two numbers"):
        ZNormalize(clip=(2, 1))


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_numbers_of_a_cohort(dtype: str) -> None:
    """As nnU-Net's CT normalisation: percentiles, mean and standard deviation of the foreground of all."""
    cohort = [subject(dtype, f"s{n}", n) for n in range(4)]
    counted = np.concatenate([each["image"].data[:, each["label"].data[0] > 0].astype(np.float64).ravel() for each in cohort])
    step = ZNormalize.train(cohort, "image", mask="label")
    np.testing.assert_allclose(step.clip, np.percentile(counted, (0.5, 99.5)), rtol=1e-9)
    np.testing.assert_allclose([step.mean, step.std], [counted.mean(), counted.std()], rtol=1e-9)
    assert step.keys == ("image",)
    windowed = ZNormalize.train(cohort, "image", above=0.25, before=pf.Pipeline([Window(0, 100, (0, 1))]))
    values = np.concatenate([np.clip(each["image"].data.astype(np.float64) / 100 + 0.5, 0, 1).ravel() for each in cohort])
    assert windowed.mean == pytest.approx(values[values > 0.25].mean())


def test_a_cohort_of_many_voxels_is_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchflow.preprocess.cohort._MOST_VOXELS", 50)
    monkeypatch.setattr("patchflow.preprocess.statistics._BLOCK", 7)
    whole = subject()
    taken = whole["image"].data.ravel()[::29].astype(np.float64)
    assert ZNormalize.train([whole], "image").mean == pytest.approx(taken.mean())


def test_cohorts_that_cannot_be() -> None:
    with pytest.raises(ArgumentError, match="no subjects to train on"):
        ZNormalize.train([], "image")
    with pytest.raises(ArgumentError, match="a list of"):
        ZNormalize.train(subject(), "image")  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"subject 's1', image 'image'.*no voxel above 1000"):
        ZNormalize.train([subject()], "image", above=1000)
    with pytest.raises(ArgumentError, match="is a label map"):
        ZNormalize.train([subject()], "label")
    with pytest.raises(ImageError, match="constant"):
        ZNormalize.train([pf.Subject("s", image=pf.ScalarImage(np.ones((2, 2, 2))))], "image")
