"""Intensity steps after spatial steps are not done on the voxels: the entry stores what the last spatial step gave, and a map beside it."""

from pathlib import Path

import numpy as np
import pytest

import patchflow as pf
from patchflow.cache.entry import Entry
from patchflow.preprocess import Clamp, CropToForeground, Pad, Resample, Rescale, RobustNormalize, Step, ToCanonical, Window, ZNormalize
from patchflow.seeding import generator

AFFINE = np.diag([-1.5, 1.1, 2, 1])
AFFINE[:3, 3] = 30, -20, 10
MOVES = [ToCanonical(), CropToForeground("label", margin=1), Pad(1, fill=-1000)]
INTERPOLATES = [ToCanonical(), Resample(spacing=(1.3, 1.2, 1.9)), CropToForeground("label", margin=1)]
LAST = {
    "z": [ZNormalize()],
    "masked": [ZNormalize(mask="label")],
    "rescale": [Rescale((-1, 1), percentiles=(2, 97))],
    "robust": [RobustNormalize("mad")],
    "several": [Clamp(-500, 700), ZNormalize(), Window(0, 2, (0, 1))],
}


def subject() -> pf.Subject:
    image = generator(0).integers(-1000, 1000, (17, 16, 15)).astype(np.int16)
    label = np.zeros(image.shape, np.uint8)
    label[3:14, 4:12, 2:13] = 1
    return pf.Subject("s1", image=pf.ScalarImage(image, affine=AFFINE), label=pf.LabelMap(label, affine=AFFINE))


def entry_of(folder: Path, steps: list[Step], layout: str) -> Entry:
    return pf.build_cache([subject()], folder, preprocess=pf.Pipeline(steps), layout=layout, progress=False)[0]


@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize(("spatial", "dtype"), [(MOVES, "int16"), (INTERPOLATES, "float32")], ids=["moves", "interpolates"])
def test_they_fold_after_spatial_steps(spatial: list[Step], dtype: str, name: str, layout: str, tmp_path: Path) -> None:
    plain, folded = entry_of(tmp_path / "a", spatial, layout), entry_of(tmp_path / "b", [*spatial, *LAST[name]], layout)
    assert folded.images["image"].stored_dtype == dtype
    assert not folded.images["image"].map.is_identity
    box = (0, 0, 0), folded.shape
    np.testing.assert_array_equal(folded.region("image", *box), plain.region("image", *box))  # the voxels are those before the last steps
    whole = pf.PatchLocation((0, 0, 0), folded.shape)
    before = plain.read("image", whole).astype(np.float64)
    inside = before[:, plain.read("label", whole)[0] > 0]
    low, high = np.percentile(before, (2, 97))
    limited = np.clip(before, -500, 700)
    expected = {
        "z": (before - before.mean()) / before.std(),
        "masked": (before - inside.mean()) / inside.std(),
        "rescale": np.clip((before - low) / (high - low) * 2 - 1, -1, 1),
        "robust": (before - np.median(before)) / (1.482602218505602 * np.median(np.abs(before - np.median(before)))),
        "several": np.clip((limited - limited.mean()) / limited.std() / 2 + 0.5, 0, 1),
    }[name]
    np.testing.assert_allclose(folded.read("image", whole), expected, atol=2e-6 * np.ptp(expected))
