"""A recipe carried out on a device gives what the CPU's kernels give; here the device is the CPU, by tensors alone."""

import numpy as np
import pytest
import torch
from fake_entry import make_entry as fake_entry
from hypothesis import given, settings
from hypothesis import strategies as st

import patchflow as pf
from patchflow import augment, seeding
from patchflow.augment import IntensityTransform, RandomAffine, RandomAnisotropy, RandomElastic, RandomFlip, RandomNoise, Recipe
from patchflow.augment.deferred import DeferredBatch, defer
from patchflow.geometry.location import PatchLocation

DTYPES = ["int16", "uint16", "float32", "uint8", "float16"]
transforms = st.sampled_from(
    [
        RandomFlip(),
        RandomAffine(0.3, 60, 8, shear=10),
        RandomElastic(8, (1, 3)),
        RandomAnisotropy(downsampling=(1, 4)),
        RandomNoise(0.1, (0.2, 0.5)),
        augment.RandomGamma((-0.7, 0.7)),
        augment.RandomBrightness((0.5, 1.5), 0.3, per_channel=True, p_per_channel=0.7),
    ]
)


def agree(made, expected, label_share=1.0):
    width = float(expected["image"].max() - expected["image"].min()) or 1.0
    assert made["image"].dtype == torch.float32
    assert (made["image"] - expected["image"]).abs().max() <= 1e-3 * width
    assert made["label"].dtype == expected["label"].dtype
    assert (made["label"] == expected["label"]).float().mean() >= label_share


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.lists(transforms, max_size=4),
    st.sampled_from(["constant", "border", "reflect"]),
    st.sampled_from(["linear", "nearest", "cubic"]),
    st.sampled_from(["nearest", "linear"]),
    st.tuples(*[st.integers(-8, 16)] * 3),
    st.integers(0, 2**32),
)
def test_the_device_makes_what_the_kernels_make(dtype, steps, outside, image, label, start, seed):
    entry, location = fake_entry((15, 13, 17), dtype=dtype, channels=2, spacing=(1, 1.5, 2)), PatchLocation(start, (8, 7, 9))
    recipe = Recipe(steps, {"image": -2.0, "label": 3}, outside, image, label)
    parameters = recipe.draw(seeding.generator(seed), entry, location)
    expected = recipe.apply(entry, location, parameters)
    agree(defer(recipe, entry, location, parameters).make(), expected, label_share=0.999)


class Neighbours(IntensityTransform):
    """Looks around the patch, and elsewhere."""

    def draw(self, rng, context):
        return {"shift": 3}

    def reach(self, parameters, context):
        return (1, 0, 2)

    def windows(self, parameters, context):
        i, j, k = context.location.start
        return [PatchLocation((i + parameters["shift"], j, k), context.location.size)]

    def apply(self, patch, parameters, context):
        return patch + patch.roll(1, 1) + patch.roll(-2, 3) + 0.5 * context.windows[0]


def test_margins_and_windows_are_read_ahead(make_entry):
    entry, location = make_entry((15, 13, 17)), PatchLocation((3, 2, 4), (8, 7, 9))
    recipe = Recipe([RandomAffine(degrees=20), Neighbours(), RandomNoise(std=(1, 1)), Neighbours()])
    parameters = recipe.draw(seeding.generator(0), entry, location)
    deferred = defer(recipe, entry, location, parameters)
    assert len(deferred.regions["image"]) == 4
    assert len(deferred.regions["label"]) == 1
    agree(deferred.make(), recipe.apply(entry, location, parameters))


def test_only_what_the_map_touches_is_read(make_entry):
    entry, location = make_entry((40, 40, 40)), PatchLocation((10, 10, 10), (8, 8, 8))
    recipe = Recipe([RandomAffine(scales=(2, 2), degrees=0)])
    deferred = defer(recipe, entry, location, recipe.draw(seeding.generator(0), entry, location))
    (region,) = deferred.regions["image"]
    assert region.voxels.dtype == torch.int16
    assert all(stop - start <= 6 for start, stop in zip(region.box.start, region.box.stop, strict=True))
    outside = PatchLocation((100, 0, 0), (8, 8, 8))
    nothing = defer(recipe, entry, outside, recipe.draw(seeding.generator(0), entry, outside))
    assert nothing.regions["image"][0].voxels is None
    assert nothing.make()["image"].eq(0).all()
    assert nothing.make()["label"].dtype == torch.uint8
    assert nothing.to("meta").make()["image"].device.type == "meta"  # nothing was read that would say where it is to be


def test_callables_run_on_the_device_with_the_patchs_generator(make_entry):
    def brighter(sample, rng):
        return {**sample, "image": sample["image"] * (1 + rng.random())}

    entry, location, recipe = make_entry((15, 13, 17)), PatchLocation((3, 2, 4), (8, 7, 9)), Recipe([RandomFlip(), brighter])
    parameters = recipe.draw(seeding.generator(0), entry, location)
    agree(defer(recipe, entry, location, parameters).make(), recipe.apply(entry, location, parameters))


def test_a_batch_has_the_dtypes_of_the_queues(make_entry):
    entry, location, recipe = make_entry((15, 13, 17)), PatchLocation((3, 2, 4), (8, 7, 9)), Recipe([RandomFlip()])
    patches = [defer(recipe, entry, location, recipe.draw(seeding.generator(n), entry, location)) for n in range(3)]
    batch = DeferredBatch(patches, {"image": torch.float32, "label": torch.int16})
    made = batch.to("cpu", non_blocking=True).make()
    assert made["image"].shape == (3, 1, 8, 7, 9)
    assert made["label"].dtype == torch.int16
    assert len(batch) == 3
    for n, patch in enumerate(patches):
        assert made["image"][n].equal(patch.make()["image"])


def copies(batches):
    return [{name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in batch.items()} for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_queue_that_augments_on_the_device(small_cache, small_sampler, workers):
    recipe = Recipe([RandomFlip(), RandomAffine(degrees=15), RandomNoise(std=(0, 0.1))])
    settings = {"transform": recipe, "samples_per_volume": 3, "batch_size": 2, "seed": 4}
    expected = copies(pf.Queue(small_cache, small_sampler, **settings))
    queue = pf.Queue(small_cache, small_sampler, **settings, augment_on="device", num_workers=workers)
    batches = list(queue)
    assert len(batches) == len(expected)
    for batch, plain in zip(batches, expected, strict=True):
        assert batch["location"].equal(plain["location"])
        assert batch["subject"] == plain["subject"]
        made = batch["deferred"].make()
        assert (made["image"] - plain["image"]).abs().max() < 1e-3
        assert (made["label"] == plain["label"]).float().mean() > 0.999
        assert made["label"].dtype == plain["label"].dtype
    assert queue.replay(0, 0)["image"].shape == plain["image"].shape[1:]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augment_on": "gpu"}, 'must be "worker" or "device"'),
        ({"augment_on": "device", "num_workers": 1, "worker_kind": "process"}, "worker_kind"),
        ({"augment_on": "device", "memory_budget": "1GiB"}, "memory_budget"),
        ({"augment_on": "device", "transform": [lambda sample: sample]}, "let it take"),
    ],
)
def test_what_cannot_be_deferred_is_refused_when_the_queue_is_made(small_cache, small_sampler, settings, message):
    with pytest.raises(pf.ArgumentError, match=message):
        pf.Queue(small_cache, small_sampler, **settings)


def test_history_is_handed_over_and_replayed(small_cache, small_sampler):
    recipe = Recipe([RandomFlip(), RandomAffine(degrees=15, p=0.5), RandomNoise(std=(0, 0.1))])
    queue = pf.Queue(small_cache, small_sampler, transform=recipe, samples_per_volume=2, batch_size=3, history=True, num_workers=2)
    for batch in queue:
        assert len(batch["history"]) == len(batch["subject"])
        for row, parameters in enumerate(batch["history"]):
            location = PatchLocation.from_array(batch["location"][row])
            again = recipe.apply(small_cache[batch["subject"][row]], location, parameters)
            assert again["image"].equal(batch["image"][row])
    assert "history" not in next(iter(pf.Queue(small_cache, small_sampler, transform=recipe)))
    assert np.isfinite(parameters["anchor"]).all()
