"""The contract suites pass what keeps its promises, and name the promise that is broken."""

import numpy as np
import pytest
import torch
from torch import nn

import patchflow as pf
from patchflow import testing
from patchflow.augment.base import IntensityTransform, SpatialTransform
from patchflow.geometry.location import PatchLocation
from patchflow.inference.sources import MemorySource, as_source
from patchflow.sampling.base import Sampler, uniform_location

IMAGE = np.random.default_rng(0).integers(-500, 1500, (2, 14, 17, 12)).astype(np.int16)


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    label = (IMAGE[:1] > 900).astype(np.uint8)
    subject = pf.Subject("s1", image=pf.ScalarImage(IMAGE), weights=pf.ScalarImage(np.abs(IMAGE[:1])), label=pf.LabelMap(label))
    pipeline = pf.Pipeline([pf.preprocess.ZNormalize(keys=["image"])])
    return pf.build_cache([subject], tmp_path_factory.mktemp("contracts") / "cache", preprocess=pipeline, progress=False)[0]


@pytest.mark.parametrize(
    "sampler",
    [
        pf.UniformSampler((8, 20, 5)),
        pf.WeightedSampler(8, weights="weights"),
        pf.LabelSampler(8, label="label"),
        pf.MixedSampler([(0.5, pf.UniformSampler(6)), (0.5, pf.LabelSampler(6, label="label"))]),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_our_samplers_keep_the_contract(sampler, entry) -> None:
    testing.check_sampler(sampler, entry)


class Wanders(Sampler):
    def draw(self, entry, rng):
        location = uniform_location(entry.shape, self.patch_size, rng)
        return PatchLocation((location.start[0] - 1, *location.start[1:]), location.size)


class Counts(Sampler):
    calls = 0

    def draw(self, entry, rng):
        self.calls += 1
        return PatchLocation((self.calls % 5, 0, 0), self.patch_size)


class UsesGlobalState(Sampler):
    def draw(self, entry, rng):
        return PatchLocation((np.random.randint(5), 0, 0), self.patch_size)


class Small(Sampler):
    def draw(self, entry, rng):
        return uniform_location(entry.shape, (2, 2, 2), rng)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Wanders(4), "hangs over the border"),
        (Counts(4), "other locations the second time"),
        (UsesGlobalState(4), "other locations the second time"),
        (Small(4), "not of the patch size"),
    ],
)
def test_samplers_that_break_it_are_told_how(sampler, message: str, entry) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_sampler(sampler, entry)


@pytest.mark.parametrize(
    "transform",
    [
        pf.augment.RandomFlip(axes=(0, 1, 2)),
        pf.augment.RandomAffine(degrees=15),
        pf.augment.RandomNoise(std=(0, 0.1)),
        pf.augment.RandomGamma(),
        pf.augment.RandomBrightness(),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_our_transforms_keep_the_contract(transform, entry) -> None:
    testing.check_transform(transform, entry, patch_size=(8, 6, 20))


class Offset(IntensityTransform):
    def draw(self, rng, context):
        return {"offset": rng.normal()}

    def apply(self, patch, parameters, context):
        return patch + parameters["offset"]


class DrawsGlobally(Offset):
    def draw(self, rng, context):
        return {"offset": np.random.normal()}


class AppliesGlobally(Offset):
    def apply(self, patch, parameters, context):
        return patch + torch.rand(())


class SubtractsTheMean(Offset):
    def apply(self, patch, parameters, context):
        return patch - patch.mean()


class DrawsNumpy(Offset):
    def draw(self, rng, context):
        return {"axes": [0, rng.integers(3)], "offset": 1.0}


class DrawsAnArray(Offset):
    def draw(self, rng, context):
        return {"offset": 1.0, "table": rng.random(3)}


class DrawsNumberedKeys(Offset):
    def draw(self, rng, context):
        return {"offset": 1.0, "of": {2: 1.0}}


class ShiftsByThePatch(SpatialTransform):
    def draw(self, rng, context):
        return {}

    def map(self, parameters, context):
        matrix = np.eye(4)
        matrix[0, 3] = context.location.start[0] / 7 + 0.3
        return matrix


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (DrawsGlobally(), "draw from `rng` alone"),
        (DrawsNumpy(), r"DrawsNumpy drew the parameter \['image'\]\['axes'\]\[1\] as .* \(int64\), which is no plain JSON value: .*int\("),
        (DrawsAnArray(), r"DrawsAnArray drew the parameter \['image'\]\['table'\] as .* \(ndarray\)"),
        (DrawsNumberedKeys(), r"the parameter \['image'\]\['of'\]\[2\] \(its key\) as 2 \(int\)"),
        (AppliesGlobally(), "made another patch of the same parameters"),
        (SubtractsTheMean(), "SubtractsTheMean says that it is exact, but a patch of image"),
        (ShiftsByThePatch(), "ShiftsByThePatch says that it is exact, but a patch of image"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_transforms_that_break_it_are_told_how(transform, message: str, entry) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_transform(transform, entry)


def test_a_transform_that_says_that_it_is_not_exact_is_believed(entry) -> None:
    testing.check_transform(Offset(), entry)
    transform = SubtractsTheMean()
    transform.exact = False
    testing.check_transform(transform, entry)


def test_our_sources_keep_the_contract(entry, tmp_path) -> None:
    testing.check_source(entry)
    testing.check_source(as_source(pf.Subject("s1", image=pf.ScalarImage(IMAGE), label=pf.LabelMap((IMAGE > 0).astype(np.int64)))))
    testing.check_source(as_source(np.asfortranarray(IMAGE)))


class IgnoresFill(MemorySource):
    def read(self, name, location, *, out=None, fill=0):
        return super().read(name, location, out=out)


class IgnoresOut(MemorySource):
    def read(self, name, location, *, out=None, fill=0):
        return super().read(name, location, fill=fill)


@pytest.mark.parametrize(("kind", "message"), [(IgnoresFill, "voxels differ"), (IgnoresOut, "the view given for image")])
def test_sources_that_break_it_are_told_how(kind, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.check_source(kind("s1", as_source(IMAGE).images))


def test_models_are_checked() -> None:
    testing.check_model(nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.BatchNorm3d(3), nn.Dropout(0.5)), (6, 7, 8), channels=2)
    testing.check_model(lambda x: {"a": x, "b": x.half()}, 4)
    with pytest.raises(AssertionError, match="depends on the other windows of its batch"):
        testing.check_model(lambda x: x - x.mean(), 4)
    with pytest.raises(AssertionError, match="differs from call to call"):
        testing.check_model(lambda x: x + torch.rand(()), 4)
    with pytest.raises(AssertionError, match='output "a" of random windows is not finite'):
        testing.check_model(lambda x: {"a": x / 0}, 4)
    with pytest.raises(pf.InferenceError, match=r"must be \(2, C, 6, 6, 6\).*not \(2, 1, 4, 4, 4\)"):
        testing.check_model(nn.Conv3d(1, 1, 3), 6)
