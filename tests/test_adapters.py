"""Transforms of MONAI and TorchIO in a recipe. Most tests use small classes like theirs; the libraries are tested where installed."""

import copy
import functools
import json
import pickle
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from monai_like import Chain, Globally, Holder, InPlace, Keyed, Returns, Shift

import patchflow as pf
from patchflow import seeding
from patchflow.adapters import from_monai, from_torchio
from patchflow.adapters.objects import described, reachable
from patchflow.augment.foreign import Foreign
from patchflow.errors import ArgumentError, TransformError, UnknownNameError

SIZE = (8, 6, 10)
fork_warns = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def make_queue(cache, transform, **arguments):
    sampler = pf.LabelSampler(patch_size=SIZE, label="label", probabilities={0: 1, 1: 1, 2: 2})
    return pf.Queue(cache, sampler, transform=pf.Recipe([transform]), samples_per_volume=3, batch_size=3, seed=7, **arguments)


def stream(queue):
    with queue:
        return [{name: batch[name].clone() for name in ("image", "label", "location", "index")} for batch in queue]


def same(one, other):
    return len(one) == len(other) and all(
        a[key].dtype == b[key].dtype and a[key].equal(b[key]) for a, b in zip(one, other, strict=True) for key in a
    )


def patch_and_seed(cache, transform, name="s1"):
    """A patch as it is, the same transformed, and the generator from which the transform was seeded."""
    entry, location = cache[name], pf.PatchLocation((2, -1, 3), SIZE)
    recipe = pf.Recipe([transform])
    parameters = recipe.draw(seeding.generator(5), entry, location)
    seed = parameters["steps"][0]["parameters"]["seed"]
    plain = pf.Recipe([]).apply(entry, location, {"anchor": parameters["anchor"], "steps": []})
    return plain, recipe.apply(entry, location, parameters), seed


WORKERS = [(2, "thread", None), (2, "process", "fork"), (2, "process", "spawn")]


@pytest.fixture
def threads():
    """A function that sets PyTorch's number of threads, which is put back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# Anything with MONAI's interface


@fork_warns
@pytest.mark.parametrize(("workers", "kind", "start"), WORKERS)
def test_the_stream_is_the_same_for_all_workers_and_after_a_restart(small_cache, workers, kind, start):
    transform = from_monai(Chain(Shift(), Holder(Shift(2.0)), InPlace()))
    plain = stream(make_queue(small_cache, transform))
    assert len({float(batch["image"][row, 0, 0, 0, 0]) for batch in plain for row in range(len(batch["index"]))}) == 12
    more = {"num_workers": workers, "worker_kind": kind, "start_method": start}
    assert same(stream(make_queue(small_cache, transform, **more)), plain)
    first = make_queue(small_cache, transform)
    batches = iter(first)
    next(batches)
    second = make_queue(small_cache, from_monai(Chain(Shift(), Holder(Shift(2.0)), InPlace())), **more)
    second.load_state_dict(first.state_dict())
    assert same(stream(second), plain[1:])


def test_a_patch_is_what_the_transform_makes_of_it_when_seeded_with_the_patchs_number(small_cache):
    plain, made, seed = patch_and_seed(small_cache, from_monai(Chain(Shift(), Shift(2.0))))
    number = int(seeding.generator(seed).integers(0, 2**32, size=1)[0])
    expected = Chain(Shift(), Shift(2.0)).set_random_state(seed=number)(plain)
    assert made["image"].equal(expected["image"])
    assert made["label"].equal(plain["label"])


def test_random_parts_that_seeding_does_not_reach_are_seeded_too(small_cache):
    for transform in (Holder(Shift()), Chain(Holder(Shift())), Chain(functools.partial(Holder(Shift())))):
        adapted = from_monai(transform) if isinstance(transform, Chain) else from_monai(Chain(transform))
        one = patch_and_seed(small_cache, adapted)[1]["image"]
        Shift.R.normal()
        assert patch_and_seed(small_cache, adapted)[1]["image"].equal(one)


def test_the_transform_given_and_global_state_are_left_alone(small_cache):
    given = Chain(Shift())
    adapted = from_monai(given)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()
    one = patch_and_seed(small_cache, adapted)[1]["image"]
    assert np.random.get_state()[1].tolist() == before[0]
    assert torch.get_rng_state().equal(before[1])
    assert given.transforms[0].calls == 0
    assert not hasattr(given, "R")
    given.transforms[0].std = 50.0
    assert patch_and_seed(small_cache, adapted)[1]["image"].equal(one)
    again = pickle.loads(pickle.dumps(adapted))
    assert patch_and_seed(small_cache, again)[1]["image"].equal(one)


@fork_warns
def test_a_transform_that_draws_globally_too_is_seeded_and_refused_with_threads(small_cache):
    adapted = from_monai(Globally(), global_random=True)
    plain = stream(make_queue(small_cache, adapted))
    np.random.random()
    assert same(stream(make_queue(small_cache, adapted, num_workers=2, worker_kind="process", start_method="fork")), plain)
    with pytest.raises(ArgumentError, match="thread workers"):
        make_queue(small_cache, adapted, num_workers=2)


def test_a_transform_of_a_library_known_to_draw_globally_is_found(small_cache):
    kind = type("ColorJitter", (), {"__module__": "torchvision.transforms.transforms", "__call__": lambda self, data: data})
    assert from_monai(Chain(Shift(), Holder(kind()))).global_random
    assert not from_monai(Chain(Shift(), Holder(kind())), global_random=False).global_random
    assert not from_monai(Chain(Shift())).global_random


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda s: {**s, "image": s["image"][..., 1:]}, "returned torch.float32 of shape"),
        (lambda s: {**s, "image": s["image"] > 0}, "returned torch.bool"),
        (lambda s: {**s, "image": s["image"] / 0 * 0}, "values that are NaN"),
        (lambda s: {**s, "label": s["label"] + 0.25}, r"480 labels into values that are no torch.uint8, such as \d\.25"),
        (lambda s: {**s, "label": s["label"].long() - 1}, "no torch.uint8, such as -1"),
        (lambda s: {"label": s["label"]}, "keeps exactly its images"),
        (lambda s: [s, s], "returned list"),
        (lambda s: s["nothing"], "KeyError: nothing"),
    ],
)
def test_what_it_returns_is_checked(small_cache, function, message):
    with pytest.raises(TransformError, match=rf"(?s)Returns \(MONAI\) for subject 's1' at \(2, -1, 3\) to \(10, 5, 13\).*{message}"):
        patch_and_seed(small_cache, from_monai(Returns(function)))


@pytest.mark.parametrize("convert", [torch.Tensor.float, torch.Tensor.double, torch.Tensor.long, torch.Tensor.numpy])
def test_labels_come_back_in_their_dtype(small_cache, convert):
    plain, made, _ = patch_and_seed(small_cache, from_monai(Returns(lambda s: {**s, "label": convert(s["label"].flip(1))})))
    assert made["label"].dtype == torch.uint8
    assert made["label"].equal(plain["label"].flip(1))


def test_scalars_come_back_as_float32_and_views_are_copied(small_cache):
    plain, made, _ = patch_and_seed(small_cache, from_monai(Returns(lambda s: {**s, "image": s["image"].double() * 2})))
    assert made["image"].equal(plain["image"] * 2)
    entry, location = small_cache["s1"], pf.PatchLocation((2, 1, 3), (7, 7, 7))
    recipe = pf.Recipe([from_monai(Returns(lambda s: {**s, "image": s["image"].transpose(1, 2), "label": s["label"].transpose(1, 3)}))])
    made = recipe.apply(entry, location, recipe.draw(seeding.generator(0), entry, location))
    assert made["image"].numpy().tolist() == entry.read("image", location).swapaxes(1, 2).tolist()
    assert made["label"].numpy().tolist() == entry.read("label", location).swapaxes(1, 3).tolist()


@pytest.mark.parametrize("dtype", ["uint16", "int32", "uint32", "int64"])
def test_wide_labels_survive_and_are_refused_where_float32_cannot_hold_them(tmp_path, dtype):
    def subject(value):
        label = np.zeros((8, 8, 8), dtype)
        label[3:5, 3:5, 3:5] = value
        return pf.Subject("s", image=pf.ScalarImage(np.zeros((8, 8, 8), np.float32)), label=pf.LabelMap(label))

    flipped = from_monai(Returns(lambda s: {**s, "label": s["label"].flip(1).float()}))
    entry = pf.build_cache([subject(60000)], tmp_path / "small", progress=False)[0]
    location, recipe = pf.PatchLocation((0, 0, 0), (8, 8, 8)), pf.Recipe([flipped])
    made = recipe.apply(entry, location, recipe.draw(seeding.generator(0), entry, location))["label"]
    assert made.numpy().tolist() == entry.read("label", location)[:, ::-1].tolist()
    if dtype != "uint16":
        entry = pf.build_cache([subject(2**24 + 3)], tmp_path / "large", progress=False)[0]
        with pytest.raises(TransformError, match=r"labels above 2\^24"):
            recipe.apply(entry, location, recipe.draw(seeding.generator(0), entry, location))


def test_the_first_cause_of_an_error_is_told(small_cache):
    def fail(data):
        try:
            raise ZeroDivisionError("no such contrast")
        except ZeroDivisionError as error:
            raise RuntimeError("applying transform <object>") from error

    with pytest.raises(TransformError, match=r"Returns \(MONAI\) for subject 's1'.*: ZeroDivisionError: no such contrast") as caught:
        patch_and_seed(small_cache, from_monai(Returns(fail)))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_keys_that_no_image_has_are_found_before_any_patch_is_made(small_cache):
    images = small_cache[0].images
    from_monai(Chain(Keyed(["image"]), Keyed(["pet"], True), Keyed(["location", "label"]))).check(images)
    from_monai(Chain(Keyed(["image"], names=("pet",)), Keyed(["pet"]))).check(images)
    with pytest.raises(UnknownNameError, match=r"Keyed of MONAI has the key 'pet', but the images are \['image', 'label'\]"):
        from_monai(Chain(Keyed(["image"]), Keyed(["image", "pet"]))).check(images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_monai(Shift), "expected a transform of MONAI"),
        (lambda: from_monai(3), "expected a transform of MONAI"),
        (lambda: from_monai(lambda sample: sample), "a function of the sample goes into a recipe as it is"),
        (lambda: from_monai(Chain(Shift(), Returns(sys.stdout.buffer))), "cannot be copied"),
        (lambda: from_monai(Chain(hidden(Shift()))), r"Chain \(MONAI\) holds Shift.*closure"),
        (lambda: from_torchio(Shift()), "expected a transform of TorchIO"),
    ],
)
def test_what_cannot_be_adapted_is_refused_when_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def hidden(transform):
    return lambda data: transform(data)


def test_other_settings_are_told_apart():
    def settings(transform):
        return Foreign(transform).to_dict()

    one = settings(from_monai(Chain(Shift(1.0))))
    json.dumps(one, allow_nan=False)
    assert settings(from_monai(Chain(Shift(1.0)))) == one
    assert settings(from_monai(Chain(Shift(1.5)))) != one
    assert settings(from_monai(Chain(Shift(1.0), Shift(1.0)))) != one
    assert settings(stream) == {"function": f"{stream.__module__}.stream"}


# What a recipe gives to callables


def by_name(sample, *, context, rng):
    return noted("by_name", sample, context, rng)


def by_place(sample, generator, context):
    return noted("by_place", sample, context, generator)


def context_first(sample, context, generator):
    return noted("context_first", sample, context, generator)


def context_alone(sample, context):
    return noted("context_alone", sample, context, None)


def only_by_place(sample, generator, /):
    return noted("only_by_place", sample, None, generator)


def noted(name, sample, context, rng):
    SEEN[name] = (context, None if rng is None else float(rng.random()), torch.get_num_threads())
    return sample


SEEN = {}


@pytest.mark.parametrize("function", [by_name, by_place, context_first, context_alone, only_by_place])
def test_callables_are_given_what_they_ask_for(small_cache, threads, function):
    threads(2)
    _, _, seed = patch_and_seed(small_cache, function)
    context, drawn, threads = SEEN[function.__name__]
    assert threads == 1, "sums differ between numbers of threads"
    assert torch.get_num_threads() == 2
    assert drawn in (None, float(seeding.generator(seed).random()))
    assert (drawn is None) == (function is context_alone) == pf.Recipe([function]).uses_global_random
    if function is not only_by_place:
        assert (context.name, context.location.start) == ("s1", (2, -1, 3))
        assert context.images["label"].kind == "label"
        assert context.affine.tolist() == small_cache["s1"].affine.tolist()


def test_the_number_of_threads_comes_back_after_an_error(small_cache, threads):
    threads(2)
    with pytest.raises(TransformError):
        patch_and_seed(small_cache, lambda sample, rng: None)
    assert torch.get_num_threads() == 2


def test_descriptions_are_plain_and_tell_arrays_apart():
    class Looping:
        def __init__(self, values):
            self.values, self.me, self.rate = values, self, float("inf")
            self.functions = {"absolute": np.abs, "own": functools.partial(max, 3), "text": "x", "shape": {2, 1}}

    one = described(Looping(np.arange(3.0)))
    json.dumps(one, allow_nan=False)
    assert one == described(Looping(np.arange(3.0)))
    assert one != described(Looping(np.arange(3)))
    assert one != described(Looping(torch.arange(3.0)))
    assert described(Looping(torch.arange(3.0))) != described(Looping(torch.arange(1, 4.0)))
    assert described(np.random.RandomState(0)) is None


def test_everything_that_an_object_holds_is_reached_once():
    shifts = [Shift() for _ in range(5)]
    closure = hidden(shifts[3])
    root = [Holder(shifts[0]), {"a": shifts[1]}, functools.partial(print, shifts[2]), closure, shifts[4].__call__, shifts[0]]
    found = [part for part in reachable(root) if isinstance(part, Shift)]
    assert [shifts.index(part) for part in found] == [0, 1, 2, 3, 4]


# Anything with TorchIO's interface


def torchio_like(version):
    """A module with the part of TorchIO's interface that is used here, of either version."""
    module = ModuleType("torchio")

    class Image:
        if version == 1:

            def __init__(self, path=None, type=None, tensor=None, affine=None):
                self.data, self.affine = tensor, affine

        else:

            def __init__(self, source=None, *, affine=None):
                self.data, self.affine = source, affine

    class Subject:
        def __init__(self, **images):
            if version == 1:
                self.get_images_dict = lambda intensity_only=True: images
            else:
                self.images = images

    module.Image, module.Subject = Image, Subject
    module.ScalarImage, module.LabelMap = (type(name, (Image,), {}) for name in ("ScalarImage", "LabelMap"))
    return module


class RandomShift:
    """Adds a random number to scalar images, and makes labels float."""

    __module__ = "torchio.transforms"
    seen = []  # noqa: RUF012

    def __call__(self, subject):
        images = subject.images if hasattr(subject, "images") else subject.get_images_dict(intensity_only=False)
        for image in images.values():
            scalar = type(image).__name__ == "ScalarImage"
            image.data = image.data + torch.rand(1) if scalar else image.data.float()
            self.seen.append((type(image).__name__, image.affine))
        return subject


@pytest.mark.parametrize("version", [1, 2])
def test_subjects_of_either_version_are_made(small_cache, monkeypatch, version):
    monkeypatch.setitem(sys.modules, "torchio", torchio_like(version))
    adapted = from_torchio(RandomShift())
    RandomShift.seen.clear()
    plain, made, seed = patch_and_seed(small_cache, adapted)
    torch.manual_seed(seed)
    assert made["image"].equal(plain["image"] + torch.rand(1))
    assert made["label"].dtype == torch.uint8
    assert made["label"].equal(plain["label"])
    assert [kind for kind, _ in RandomShift.seen] == ["ScalarImage", "LabelMap"]
    affine = RandomShift.seen[0][1]
    assert affine[:3, :3].tolist() == np.eye(3).tolist()
    assert affine[:3, 3].tolist() == [2, -1, 3]
    with pytest.raises(ArgumentError, match='worker_kind="process"'):
        make_queue(small_cache, adapted, num_workers=2)


# The libraries themselves


@pytest.fixture(scope="module")
def monai():
    pytest.importorskip("monai")
    from monai import transforms

    return transforms


def monai_pipeline(mt):
    both, modes = ["image", "label"], ("bilinear", "nearest")
    return mt.Compose(
        [
            mt.RandFlipd(both, prob=0.5, spatial_axis=0),
            mt.RandAffined(both, prob=0.7, rotate_range=0.3, scale_range=0.1, mode=modes, padding_mode="border"),
            mt.OneOf([mt.RandGaussianNoised("image", prob=1), mt.Compose([mt.RandAdjustContrastd("image", prob=1)])]),
            mt.SomeOf([mt.RandShiftIntensityd("image", 0.3, prob=1), mt.RandGaussianSmoothd("image", prob=1)], num_transforms=(0, 2)),
            mt.RandomOrder([mt.RandScaleIntensityd("image", 0.3, prob=1), mt.RandStdShiftIntensityd("image", 0.3, prob=1)]),
        ]
    )


@fork_warns
@pytest.mark.parametrize(("workers", "kind", "start"), [*WORKERS, (4, "thread", None)])
def test_monai_gives_the_same_stream_for_all_workers(small_cache, monai, workers, kind, start):
    adapted = from_monai(monai_pipeline(monai))
    plain = stream(make_queue(small_cache, adapted))
    assert {batch["label"].dtype for batch in plain} == {torch.uint8}
    assert same(stream(make_queue(small_cache, adapted, num_workers=workers, worker_kind=kind, start_method=start)), plain)


def test_monai_gives_what_it_gives_when_called_directly(small_cache, monai):
    from monai.data import MetaTensor

    seen = {}

    def look(image):
        seen["affine"] = image.affine
        return image

    pipeline = monai.Compose([monai.Lambdad("image", look), *monai_pipeline(monai).transforms])
    plain, made, seed = patch_and_seed(small_cache, from_monai(pipeline))
    assert seen["affine"][:3, 3].tolist() == [2, -1, 3]
    pipeline.set_random_state(seed=int(seeding.generator(seed).integers(0, 2**32, size=1)[0]))
    given = {name: MetaTensor(patch, affine=seen["affine"]) for name, patch in plain.items()}
    expected = pipeline(given)
    assert made["image"].equal(expected["image"].as_tensor())
    assert made["label"].equal(expected["label"].as_tensor().to(torch.uint8))
    assert not made["image"].equal(plain["image"])


def test_labels_that_monai_interpolates_linearly_are_refused(small_cache, monai):
    blurred = monai.RandAffined(["image", "label"], prob=1, rotate_range=(0.3, 0.3), mode="bilinear", padding_mode="border")
    with pytest.raises(TransformError, match=r"RandAffined \(MONAI\) for subject 's1'.*image 'label': turned \d+ labels.*mode=\"nearest\""):
        patch_and_seed(small_cache, from_monai(blurred))


def test_lazy_operations_of_monai_are_carried_out(small_cache, monai):
    for transform in (
        monai.RandFlipd(["image", "label"], prob=1, spatial_axis=0, lazy=True),
        monai.Compose([monai.RandFlipd(["image", "label"], prob=1, spatial_axis=0)], lazy=True),
    ):
        plain, made, _ = patch_and_seed(small_cache, from_monai(transform))
        assert made["image"].equal(plain["image"].flip(1))
        assert made["label"].equal(plain["label"].flip(1))


def test_mistakes_with_monai_are_told(small_cache, monai):
    with pytest.raises(ArgumentError, match=r"RandFlip of MONAI takes an array.*RandFlipd"):
        from_monai(monai.Compose([monai.Compose([monai.RandFlip(prob=1)])]))
    with pytest.raises(UnknownNameError, match="RandFlipd of MONAI has the key 'pet'"):
        from_monai(monai.Compose([monai.RandFlipd(["image", "pet"])])).check(small_cache[0].images)
    from_monai(monai.Compose([monai.CopyItemsd("image", names="pet"), monai.RandFlipd("pet")])).check(small_cache[0].images)
    with pytest.raises(TransformError, match="KeyError: Key `pet` of transform `RandFlipd` was missing"):
        patch_and_seed(small_cache, from_monai(monai.Compose([monai.RandFlipd("pet")])))
    with pytest.raises(TransformError, match=r"returned torch\.float32 of shape"):
        patch_and_seed(small_cache, from_monai(monai.RandSpatialCropd(["image", "label"], (4, 4, 4), random_size=False)))
    with pytest.raises(ArgumentError, match=r"holds RandFlip.*`adaptor` makes one"):
        from_monai(monai.Compose([monai.adaptor(monai.RandFlip(prob=1), "image")]))


INTENSITY = {
    "RandGaussianNoised": {},
    "RandRicianNoised": {},
    "RandShiftIntensityd": {"offsets": 0.3},
    "RandScaleIntensityd": {"factors": 0.3},
    "RandScaleIntensityFixedMeand": {"factors": 0.3},
    "RandStdShiftIntensityd": {"factors": 0.3},
    "RandBiasFieldd": {},
    "RandAdjustContrastd": {"retain_stats": True, "invert_image": True},
    "RandGaussianSmoothd": {},
    "RandGaussianSharpend": {},
    "RandHistogramShiftd": {},
    "RandGibbsNoised": {},
    "RandKSpaceSpikeNoised": {},
    "RandCoarseDropoutd": {"holes": 2, "spatial_size": 3},
    "RandCoarseShuffled": {"holes": 2, "spatial_size": 3},
    "RandSimulateLowResolutiond": {"zoom_range": (0.5, 1.0)},
    "RandSmoothFieldAdjustContrastd": {"spatial_size": SIZE, "rand_size": (3, 3, 3)},
    "RandSmoothFieldAdjustIntensityd": {"spatial_size": SIZE, "rand_size": (3, 3, 3)},
}
SPATIAL = {
    "RandFlipd": {},
    "RandAxisFlipd": {},
    "RandRotated": {"range_x": 0.3, "mode": "nearest"},
    "RandZoomd": {"mode": "nearest"},
    "RandAffined": {"rotate_range": 0.3, "mode": "nearest"},
    "Rand3DElasticd": {"sigma_range": (2, 3), "magnitude_range": (200, 300), "mode": "nearest"},
    "RandGridDistortiond": {"mode": "nearest"},
    "RandSmoothDeformd": {"spatial_size": SIZE, "rand_size": (3, 3, 3), "grid_mode": "nearest"},
}


@pytest.mark.parametrize(("name", "settings"), [*INTENSITY.items(), *SPATIAL.items()])
@pytest.mark.filterwarnings("ignore")  # of the library
def test_every_random_transform_of_monai_is_a_function_of_its_seed_and_leaves_global_state_alone(small_cache, monai, name, settings):
    keys = ["image", "label"] if name in SPATIAL else ["image"]
    adapted = from_monai(getattr(monai, name)(keys, prob=1.0, **settings))
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()
    plain, one, _ = patch_and_seed(small_cache, adapted)
    assert np.random.get_state()[1].tolist() == before[0]
    assert torch.get_rng_state().equal(before[1])
    np.random.random()
    torch.rand(1)
    other = patch_and_seed(small_cache, from_monai(getattr(monai, name)(keys, prob=1.0, **settings)))[1]
    assert one["image"].equal(other["image"])
    assert one["label"].equal(other["label"])
    assert not one["image"].equal(plain["image"])
    assert one["label"].dtype == torch.uint8


@pytest.fixture(scope="module")
def torchio():
    return pytest.importorskip("torchio")


def torchio_pipeline(tio):
    if hasattr(tio, "RandomFlip"):
        noise = tio.OneOf({tio.RandomNoise(std=(0.1, 0.2)): 0.5, tio.RandomGamma(): 0.5})
        return tio.Compose(
            [tio.RandomFlip(axes=("LR", "AP")), tio.RandomAffine(degrees=10), noise, tio.RandomSwap(2, 5), tio.RandomMotion(p=0.3)]
        )
    noise = tio.OneOf({tio.Noise(std=(0.1, 0.2)): 0.5, tio.Gamma(log_gamma=(-0.3, 0.3)): 0.5})
    some = tio.SomeOf([tio.Blur(std=(0.5, 1)), tio.Spike(intensity=(1, 2))], num_transforms=1)
    return tio.Compose([tio.Flip(axes=(0, 1), p=0.5), tio.Affine(degrees=(-10, 10)), noise, some])


@fork_warns
@pytest.mark.parametrize(("workers", "kind", "start"), WORKERS[1:])
def test_torchio_gives_the_same_stream_for_all_workers(small_cache, torchio, workers, kind, start):
    adapted = from_torchio(torchio_pipeline(torchio))
    before = torch.get_rng_state()
    plain = stream(make_queue(small_cache, adapted))
    assert torch.get_rng_state().equal(before)
    assert {batch["label"].dtype for batch in plain} == {torch.uint8}
    torch.rand(1)
    assert same(stream(make_queue(small_cache, adapted, num_workers=workers, worker_kind=kind, start_method=start)), plain)


def test_torchio_gives_what_it_gives_when_called_directly(small_cache, torchio, threads):
    pipeline = torchio_pipeline(torchio)
    plain, made, seed = patch_and_seed(small_cache, from_torchio(copy.deepcopy(pipeline)))
    affine = np.eye(4)
    affine[:3, 3] = 2, -1, 3
    makers = {"image": torchio.ScalarImage, "label": torchio.LabelMap}
    if hasattr(torchio, "RandomFlip"):
        subject = torchio.Subject(**{name: makers[name](tensor=patch, affine=affine) for name, patch in plain.items()})
    else:
        subject = torchio.Subject(**{name: makers[name](patch, affine=affine) for name, patch in plain.items()})
    torch.manual_seed(seed)
    threads(1)
    expected = pipeline(subject)
    assert made["image"].equal(expected["image"].data)
    assert made["label"].equal(expected["label"].data.to(torch.uint8))
    assert not made["image"].equal(plain["image"])


def test_mistakes_with_torchio_are_told(small_cache, torchio):
    kind = torchio.CropOrPad
    with pytest.raises(TransformError, match=r"CropOrPad \(TorchIO\) for subject 's1'.*returned torch.float32 of shape"):
        patch_and_seed(small_cache, from_torchio(kind(4)))
    with pytest.raises(ArgumentError, match="expected a transform of TorchIO"):
        from_torchio(kind)


def test_a_context_without_an_affine_counts_voxels_in_millimetres():
    from patchflow.adapters.base import patch_affine

    context = SimpleNamespace(spacing=(2.0, 3.0, 4.0), location=pf.PatchLocation((1, 2, -3), SIZE), affine=None)
    assert patch_affine(context).tolist() == [[2, 0, 0, 2], [0, 3, 0, 6], [0, 0, 4, -12], [0, 0, 0, 1]]
    turned = np.array([[0.0, -3, 0, 10], [2, 0, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
    context.affine = turned
    assert patch_affine(context)[:3, 3].tolist() == (turned @ [1, 2, -3, 1])[:3].tolist()
    assert turned[:3, 3].tolist() == [10, 20, 30]
