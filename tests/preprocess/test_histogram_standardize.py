"""HistogramStandardize against a plain numpy account of Nyul and Udupa's method."""

from pathlib import Path

import numpy as np
import pytest

import patchflow as pf
from patchflow.errors import ArgumentError, ImageError
from patchflow.preprocess import HistogramStandardize, Window
from patchflow.preprocess.config import step_from
from patchflow.preprocess.histogram import PERCENTILES
from patchflow.seeding import generator


def subject(seed: int, dtype: str = "float32") -> pf.Subject:
    rng = generator(seed)
    image = (rng.gamma(3, 20 * (seed + 1), (10, 11, 12)) * (rng.random((10, 11, 12)) < 0.7) + 5 * seed).astype(dtype)
    return pf.Subject(f"s{seed}", t1=pf.ScalarImage(image), label=pf.LabelMap((image > np.median(image)).astype(np.uint8)))


def counted(whole: pf.Subject, selection: dict) -> np.ndarray:
    values = whole["t1"].data.astype(np.float64)
    if "mask" in selection:
        return values[whole["label"].data > 0]
    if selection.get("above") == "mean":
        return values[values > values.mean()]
    return values[values > selection.get("above", -np.inf)]


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint8"])
@pytest.mark.parametrize("selection", [{}, {"mask": "label"}, {"above": 30}, {"above": "mean"}])
def test_training_and_applying(dtype: str, selection: dict) -> None:
    cohort = [subject(n, dtype) for n in range(4)]
    step = HistogramStandardize.train(cohort, "t1", out=(-1, 3), **selection)
    points = [np.percentile(counted(each, selection), PERCENTILES) for each in cohort]
    landmarks = np.mean([-1 + 4 * (p - p[0]) / (p[-1] - p[0]) for p in points], axis=0)
    np.testing.assert_allclose(step.landmarks, landmarks, rtol=1e-9, atol=1e-9)

    whole = subject(2, dtype)
    values, places = whole["t1"].data.astype(np.float64), np.percentile(counted(whole, selection), PERCENTILES)
    assert len(set(places)) > 7  # some landmarks fall on one value
    places, which = np.unique(places, return_inverse=True)
    onto = np.array([landmarks[which == n].mean() for n in range(len(places))])
    piece = np.clip(np.searchsorted(places, values, side="right") - 1, 0, len(places) - 2)
    slopes = np.diff(onto) / np.diff(places)
    expected = onto[piece] + slopes[piece] * (values - places[piece])
    found = pf.Pipeline([step]).run(whole)["t1"]
    assert found.array.dtype == np.float32
    assert found.map.is_identity
    np.testing.assert_allclose(found.array, expected, rtol=1e-5, atol=1e-5)


def test_it_brings_histograms_together() -> None:
    cohort = [subject(n) for n in range(5)]
    step = HistogramStandardize.train(cohort, "t1", above="mean")
    after = [pf.Pipeline([step]).run(each)["t1"].array for each in cohort]
    for each, values in zip(cohort, after, strict=True):
        high = values[each["t1"].data > each["t1"].data.mean()]
        np.testing.assert_allclose(np.percentile(high, PERCENTILES), step.landmarks, atol=0.05)


def test_clamped_maps_before_it() -> None:
    before = pf.Pipeline([Window(60, 80, (0, 1))])
    cohort = [subject(n, "int16") for n in range(3)]
    step = HistogramStandardize.train(cohort, "t1", percentiles=(25, 50, 75), before=before)
    found = pf.Pipeline([*before.steps, step]).run(cohort[1])["t1"]
    values = np.clip((cohort[1]["t1"].data - 20) / 80, 0, 1)
    np.testing.assert_allclose(found.array[values == values.max()], found.array.max())
    np.testing.assert_allclose(np.percentile(found.array, (25, 50, 75)), step.landmarks, atol=0.1)  # of the mean of two voxels


def test_there_and_back(tmp_path: Path) -> None:
    step = HistogramStandardize.train([subject(0), subject(1)], "t1", mask="label", percentiles=(1, 50, 99))
    step.save(tmp_path / "landmarks.json")
    again = HistogramStandardize.load(tmp_path / "landmarks.json")
    assert again == step
    assert pf.Pipeline([again]).fingerprint() == pf.Pipeline([step]).fingerprint()
    assert step_from(f"HistogramStandardize(landmarks={str(tmp_path / 'landmarks.json')!r})") == step


def test_files_that_it_did_not_write(tmp_path: Path) -> None:
    for text, message in (("{", "is no JSON"), ("[]", "was not written by"), ('{"step": "Clamp"}', "was not written by")):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ArgumentError, match=message):
            HistogramStandardize.load(tmp_path / "a.json")
    with pytest.raises(ArgumentError, match="cannot be read"):
        HistogramStandardize.load(tmp_path / "b.json")
    step = HistogramStandardize((0, 1), (1, 99))
    step.save(tmp_path / "c.json")
    (tmp_path / "c.json").write_text((tmp_path / "c.json").read_text().replace("99", "101"))
    with pytest.raises(ArgumentError, match=r"c\.json: percentiles must be"):
        HistogramStandardize.load(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"landmarks": (0, 1)}, "landmarks must be 11 numbers"),
        ({"landmarks": (1, 0), "percentiles": (1, 99)}, "none below the one before"),
        ({"landmarks": (1, 1), "percentiles": (1, 99)}, "none below the one before"),
        ({"landmarks": (0, 1), "percentiles": (99, 1)}, "percentiles must be 2 or more"),
        ({"landmarks": (0, 1), "percentiles": (-1, 99)}, "from 0 to 100"),
        ({"landmarks": (0, 1), "percentiles": (1, 99), "above": "median"}, "above must be a number"),
    ],
)
def test_what_cannot_be(arguments: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        HistogramStandardize(**arguments)


def test_images_without_histogram() -> None:
    flat = pf.Subject("flat", t1=pf.ScalarImage(np.ones((3, 3, 3))))
    for above in (None, "mean"):
        with pytest.raises(ImageError, match=r"subject 'flat', image 't1'.*are all 1"):
            HistogramStandardize.train([subject(0), flat], "t1", above=above)
    with pytest.raises(ImageError, match=r"subject 'flat', image 't1'.*no voxel above 3"):
        pf.Pipeline([HistogramStandardize((0, 1), (1, 99), above=3)]).run(flat)
