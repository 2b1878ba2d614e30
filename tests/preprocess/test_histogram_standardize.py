"""HistogramStandardize against a plain numpy account of Nyul and Udupa's method."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import patchflow as pf
from patchflow.errors import ArgumentError, ImageError
from patchflow.preprocess import (
    Clamp,
    CropToForeground,
    HistogramStandardize,
    Pad,
    Resample,
    Rescale,
    RobustNormalize,
    ToCanonical,
    Window,
    ZNormalize,
)
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
    assert found.array.dtype == dtype  # integers of 8 and 16 bits stay what they are
    assert found.map.is_identity == (dtype == "float32")
    np.testing.assert_allclose(found.values(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8", "int8", "int32", "float32", "float64"])
def test_what_is_stored(dtype: str) -> None:
    """Voxels alone where the map can be a table, else float32; and the same values, whichever dtype held them."""
    voxels = subject(0)["t1"].data.astype(np.int64).clip(0, 120)
    step = HistogramStandardize((0, 1, 3), (0, 50, 100))
    found, wide = (pf.Pipeline([step]).run(pf.Subject("s", t1=pf.ScalarImage(voxels.astype(each))))["t1"] for each in (dtype, "float64"))
    few = np.dtype(dtype).kind in "iu" and np.dtype(dtype).itemsize < 4
    assert found.array.dtype == (dtype if few else np.float32)
    assert (found.map.curve is not None) == few
    assert found.values().tobytes() == wide.values().tobytes()


AFTER = [
    [Window(0.8, 1.5, (0, 1))],
    [ZNormalize(), Clamp(-1, 1.2)],
    [ZNormalize(mask="label", clip=(0.1, 1.9))],
    [Rescale((-1, 1), percentiles=(2, 98))],
    [RobustNormalize()],
    [HistogramStandardize((5, 6, 9), (10, 50, 90)), ZNormalize()],
    [Pad((1, 2, 3)), CropToForeground("t1", threshold=0.5)],
    [Pad(2, outside="reflect"), ToCanonical()],
    [Resample((2.0, 1.0, 1.5))],
    [Resample((0.7, 1.0, 1.5), image_interpolation="cubic")],
    [Resample((0.7, 1.0, 1.5), image_interpolation="nearest"), ZNormalize()],
    [lambda images: {**images, "t1": images["t1"] ** 2}, ZNormalize()],
]


@pytest.mark.parametrize("after", AFTER, ids=str)
@pytest.mark.parametrize("scale", [None, (-2.0, 7.0)])
def test_steps_after_it_see_its_values(after: list, scale: tuple[float, float] | None, tmp_path: Path) -> None:
    """Whatever follows gives what it gives for an image that holds the values as float32."""
    whole = subject(1, "int16")
    before = pf.Pipeline([HistogramStandardize((0, 0.5, 0.6, 2), (1, 30, 60, 99))])
    if scale is not None:  # a file with a slope, of which a negative one turns values round
        image = nib.Nifti1Image(whole["t1"].data[0].astype(np.int16), np.eye(4))
        image.header.set_slope_inter(*scale)
        (tmp_path / "t1.nii").write_bytes(image.to_bytes())
        whole = pf.Subject("s", t1=pf.ScalarImage(tmp_path / "t1.nii"), label=whole["label"])
    folded = pf.Pipeline([*before.steps, *after]).run(whole)
    stored = pf.Pipeline(after).run(before(whole))
    assert before.run(whole)["t1"].map.curve is not None
    np.testing.assert_allclose(folded["t1"].values(), stored["t1"].values(), rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(folded["label"].array, stored["label"].array)


def test_affine_steps_and_clamps_stay_folded() -> None:
    steps = [Clamp(0, 200), HistogramStandardize((0, 1, 3), (0, 50, 100)), ZNormalize(), Clamp(-1, 1), Rescale((0, 5))]
    found = pf.Pipeline(steps).run(subject(0, "int16"))["t1"]
    assert found.array.dtype == np.int16
    assert found.values().min() == 0
    assert found.values().max() == 5


def test_equal_landmarks_may_coincide_with_equal_percentiles() -> None:
    """The mean of three times 0.1 is above 0.1 by rounding, which must not count as falling."""
    image = np.array([1, 1, 1, 1, 1, 2, 3, 4, 9], np.uint8).reshape(1, 3, 3)
    step = HistogramStandardize((0.1, 0.1, 0.1, 0.1, 1.0), (0, 25, 50, 75, 100))
    found = pf.Pipeline([step]).run(pf.Subject("s", t1=pf.ScalarImage(image)))["t1"].values()
    expected = [0.1 if v <= 3 else 0.1 + 0.9 * (v - 3) / 6 for v in image.ravel()]
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-7)


def test_few_values() -> None:
    """Two values are two percentiles, each onto the mean of the landmarks that fall on it."""
    image = np.array([3] * 12 + [8] * 15, np.uint8).reshape(3, 3, 3)
    step = HistogramStandardize((0, 1, 2, 10, 20), (0, 25, 40, 75, 100))
    found = pf.Pipeline([step]).run(pf.Subject("s", t1=pf.ScalarImage(image)))["t1"].values()
    np.testing.assert_allclose(np.unique(found), [1, 15])  # percentile 40 is the 10.4th of 26: still a 3
    trained = HistogramStandardize.train([pf.Subject("s", t1=pf.ScalarImage(image))], "t1", percentiles=step.percentiles)
    np.testing.assert_allclose(trained.landmarks, (0, 0, 0, 100, 100))


def test_no_foreground() -> None:
    whole = pf.Subject("s", t1=subject(0)["t1"], label=pf.LabelMap(np.zeros((10, 11, 12), np.uint8)))
    step = HistogramStandardize((0, 1), (1, 99), mask="label")
    for failing in (lambda: pf.Pipeline([step]).run(whole), lambda: HistogramStandardize.train([whole], "t1", mask="label")):
        with pytest.raises(ImageError, match=r"subject 's', image 'label'.*no voxel is above 0"):
            failing()


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_torchios(dtype: str, tmp_path: Path) -> None:
    """To 1e-5 of the range, where no percentiles coincide: TorchIO leaves a jump there."""
    torchio = pytest.importorskip("torchio")
    cohort = [subject(n) for n in range(4)]
    cohort = [pf.Subject(each.name, t1=pf.ScalarImage((each["t1"].data * 50).astype(dtype))) for each in cohort]
    paths = [tmp_path / f"{each.name}.nii" for each in cohort]
    for each, path in zip(cohort, paths, strict=True):
        torchio.ScalarImage(tensor=each["t1"].data).save(path)

    def foreground(tensor):
        return tensor > tensor.float().mean()

    theirs = torchio.HistogramStandardization.train(paths, masking_function=foreground)
    with_quartiles = tuple(sorted({*PERCENTILES, 25.0, 75.0}))  # which TorchIO trains and does not use
    ours = HistogramStandardize.train(cohort, "t1", above="mean", percentiles=with_quartiles)
    np.testing.assert_allclose(ours.landmarks, theirs, atol=1e-4)
    transform = torchio.HistogramStandardization({"t1": theirs}, masking_method=foreground)
    step = HistogramStandardize.train(cohort, "t1", above="mean")
    for each in cohort:
        expected = transform(torchio.Subject(t1=torchio.ScalarImage(tensor=each["t1"].data)))["t1"].data.numpy()
        found = pf.Pipeline([step]).run(each)["t1"].values()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.ptp(expected))


def test_it_brings_histograms_together() -> None:
    cohort = [subject(n) for n in range(5)]
    step = HistogramStandardize.train(cohort, "t1", above="mean")
    after = [pf.Pipeline([step]).run(each)["t1"].values() for each in cohort]
    for each, values in zip(cohort, after, strict=True):
        high = values[each["t1"].data > each["t1"].data.mean()]
        np.testing.assert_allclose(np.percentile(high, PERCENTILES), step.landmarks, atol=0.05)


def test_clamped_maps_before_it() -> None:
    before = pf.Pipeline([Window(60, 80, (0, 1))])
    cohort = [subject(n, "int16") for n in range(3)]
    step = HistogramStandardize.train(cohort, "t1", percentiles=(25, 50, 75), before=before)
    found = pf.Pipeline([*before.steps, step]).run(cohort[1])["t1"]
    values = np.clip((cohort[1]["t1"].data - 20) / 80, 0, 1)
    assert found.array.dtype == np.int16
    standard = found.values()
    np.testing.assert_allclose(standard[values == values.max()], standard.max())
    np.testing.assert_allclose(np.percentile(standard, (25, 50, 75)), step.landmarks, atol=0.1)  # of the mean of two voxels


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
