"""Standardised images of 8- and 16-bit integers: a cache keeps their voxels as they are, and the curve that they are read through."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import patchflow as pf
from patchflow import seeding
from patchflow.augment.deferred import defer
from patchflow.cache.layout import read_entry_file
from patchflow.kernels.intensity_map import IntensityMap

SHAPE = (40, 37, 41)
WHOLE = pf.PatchLocation((0, 0, 0), SHAPE)
LANDMARKS = (0.0, 30.0, 55.0, 100.0)


def subject(dtype: str = "int16", name: str = "s1") -> pf.Subject:
    rng = seeding.generator(len(name))
    image = (rng.gamma(3, 12, SHAPE) + 20 * np.sin(np.indices(SHAPE).sum(axis=0) / 9) ** 2).clip(0, 127)
    return pf.Subject(name, image=pf.ScalarImage(image.astype(dtype)), label=pf.LabelMap((image > 40).astype(np.uint8)))


def standardised(image: Any) -> np.ndarray:
    """The values, by numpy."""
    values = np.asarray(image, np.float64)
    places = np.percentile(values, (1, 40, 60, 99))
    slopes = np.diff(LANDMARKS) / np.diff(places)
    inside = np.interp(values, places, LANDMARKS)
    below, above = slopes[0] * (values - places[0]), LANDMARKS[-1] + slopes[-1] * (values - places[-1])
    found = np.where(values < places[0], below, np.where(values > places[-1], above, inside))
    return np.clip(found, 0, 90).astype(np.float32)  # and the clamp that follows


STEPS = pf.Pipeline([pf.preprocess.HistogramStandardize(LANDMARKS, (1, 40, 60, 99)), pf.preprocess.Clamp(0, 90)])


@pytest.fixture(params=["contiguous", "compressed"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> pf.Cache:
    return pf.build_cache([subject(), subject(name="s_2")], tmp_path / "cache", preprocess=STEPS, layout=request.param, progress=False)


def test_what_an_entry_says_and_gives(cache: pf.Cache) -> None:
    entry, source = cache["s1"], subject()["image"].data
    record, expected = entry.images["image"], standardised(source)
    assert (record.stored_dtype, record.dtype, record.nbytes) == (np.int16, np.float32, 2 * source.size)
    np.testing.assert_array_equal(entry.region("image", (0, 0, 0), SHAPE), source)
    values = entry.read("image", WHOLE)
    np.testing.assert_allclose(values, expected, atol=1e-5)
    found = record.statistics
    assert (found.minimum, found.maximum) == (values.min(), values.max()) == (0, 90)
    assert found.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-12)
    assert found.std == pytest.approx(values.std(dtype=np.float64), rel=1e-12)
    assert record.map.curve.values == LANDMARKS
    assert "int16" in repr(entry)
    assert "s1 image (1, 40, 37, 41) int16 0 to 90, mean" in " ".join(repr(cache).split())


def test_the_entry_file_the_manifest_and_a_pickle_say_the_same(cache: pf.Cache) -> None:
    entry = cache["s1"]
    record, values = entry.images["image"], entry.read("image", WHOLE)
    in_file = read_entry_file(entry.path).record["images"]["image"]
    assert IntensityMap.from_dict(in_file["map"]) == record.map
    for again in (pf.open_cache(cache.folder)["s1"], pickle.loads(pickle.dumps(entry)), pickle.loads(pickle.dumps(cache))["s1"]):
        assert again.images["image"] == record
        assert again.read("image", WHOLE).tobytes() == values.tobytes()
    before = entry.path.stat().st_mtime_ns
    pf.build_cache([subject(), subject(name="s_2")], cache.folder, preprocess=STEPS, layout=cache.layout, progress=False)
    assert entry.path.stat().st_mtime_ns == before


def test_verifying_finds_what_is_wrong(cache: pf.Cache) -> None:
    assert cache.verify() == []
    content = bytearray(cache["s1"].path.read_bytes())
    content[len(content) // 5] ^= 1  # the image's voxels come first
    cache["s1"].path.write_bytes(content)
    (found,) = cache.verify()
    assert (found.subject, found.image) == ("s1", "image")


def test_exported_values_are_those_that_are_read(cache: pf.Cache, tmp_path: Path) -> None:
    paths = pf.export(cache, tmp_path / "out", progress=False)
    for entry in cache:
        image = pf.ScalarImage(paths[entry.name]["image"])
        assert image.dtype == np.float32  # NIfTI has no curve
        assert image.data.tobytes() == entry.read("image", WHOLE).tobytes()


def test_values_as_weights(cache: pf.Cache) -> None:
    index, values = cache["s1"].weight_index("image"), cache["s1"].read("image", WHOLE)
    assert index.total == pytest.approx(values.sum(dtype=np.float64), rel=1e-12)


def test_on_a_device(cache: pf.Cache) -> None:
    """Reading through the table and interpolating is what the tensors do, voxel by voxel."""
    recipe = pf.Recipe([pf.augment.RandomAffine(0.2, 30), pf.augment.RandomGamma((-0.3, 0.3))], fill={"image": -5, "label": 0})
    for entry, start in zip(cache, ((3, 5, 7), (20, -4, 30)), strict=True):
        location = pf.PatchLocation(start, (16, 18, 20))
        parameters = recipe.draw(seeding.generator(3), entry, location)
        expected, found = recipe.apply(entry, location, parameters), defer(recipe, entry, location, parameters).make()
        torch.testing.assert_close(found["image"], expected["image"], rtol=0, atol=1e-4)
        assert torch.equal(found["label"], expected["label"])


@pytest.mark.parametrize(("dtype", "stored"), [("uint8", "uint8"), ("int8", "int8"), ("uint16", "uint16"), ("int32", "float32")])
def test_dtypes(tmp_path: Path, dtype: str, stored: str) -> None:
    entry = pf.build_cache([subject(dtype)], tmp_path / "cache", preprocess=STEPS, progress=False)[0]
    assert entry.images["image"].stored_dtype == stored
    np.testing.assert_allclose(entry.read("image", WHOLE), standardised(subject(dtype)["image"].data), atol=1e-5)
