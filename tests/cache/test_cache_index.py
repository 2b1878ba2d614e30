import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patchflow as pf
from patchflow.cache.index import build_label_index, build_weight_index, class_counts
from patchflow.kernels.pointwise import IntensityMap


def cached(folder, layout="contiguous", **images):
    return pf.build_cache([pf.Subject("s", **images)], folder, layout=layout, progress=False)[0]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 3), *[st.integers(1, 7)] * 3),
    st.sampled_from([np.uint8, np.int8, np.int16, np.int32, np.int64]),
)
def test_every_voxel_of_every_class_is_found(seed, shape, dtype):
    rng = np.random.default_rng(seed)
    values = [0, 1, 100] if dtype == np.uint8 else [-100, -1, 0, 7]
    labels = rng.choice(values, shape, p=[0.7, *[0.3 / (len(values) - 1)] * (len(values) - 1)]).astype(dtype)
    with tempfile.TemporaryDirectory() as folder:
        index = cached(folder, label=pf.LabelMap(labels)).label_index("label")
    assert index.classes == tuple(np.unique(labels).tolist())
    for value in [*values, 55]:
        everywhere = [tuple(place) for place in np.argwhere(labels == value).tolist()]
        assert index.count(value) == len(everywhere)
        assert [index.voxel(value, rank) for rank in range(len(everywhere))] == everywhere
        for channel in range(shape[0]):
            here = [place for place in everywhere if place[0] == channel]
            assert index.count(value, channel) == len(here)
            assert [index.voxel(value, rank, channel) for rank in range(len(here))] == here


def test_class_of_one_voxel_at_the_last_place(tmp_path):
    labels = np.zeros((5, 6, 7), np.int16)
    labels[-1, -1, -1] = -9
    entry = cached(tmp_path / "c", label=pf.LabelMap(labels))
    index = entry.label_index("label")
    assert index.classes == (-9, 0)
    assert index.voxel(-9, 0) == (0, 4, 5, 6)
    assert index.voxel(0, 208) == (0, 4, 5, 5)
    assert dict(entry.images["label"].classes) == {-9: 1, 0: 209}


def test_ranks_and_channels_that_are_not_there(tmp_path):
    index = cached(tmp_path / "c", label=pf.LabelMap(np.zeros((2, 2, 2), np.uint8))).label_index("label")
    for rank in (-1, 8):
        with pytest.raises(pf.ArgumentError, match="rank"):
            index.voxel(0, rank)
    with pytest.raises(pf.ArgumentError, match="class 4"):
        index.voxel(4, 0)
    with pytest.raises(pf.ArgumentError, match="channel 1"):
        index.count(0, 1)


def test_more_than_2_to_the_24_voxels():
    """Ranks beyond what float32 counts exactly."""
    shape = (1, 300, 300, 200)
    labels = np.zeros(shape, np.uint8)
    rng = np.random.default_rng(0)
    places = np.unique(rng.integers(0, labels.size, 40_000))
    labels.reshape(-1)[places] = 1
    arrays = build_label_index(labels)
    assert labels.size > 2**24
    assert class_counts(arrays) == {0: labels.size - len(places), 1: len(places)}
    low, high = arrays["first_run"][0]
    for rank in [0, 2**24 - 1, 2**24, 2**24 + 1, labels.size - len(places) - 1]:
        run = low + np.searchsorted(arrays["ends"][low:high], rank, side="right")
        before = arrays["ends"][run - 1] if run > low else 0
        position = int(arrays["starts"][run]) + rank - int(before)
        assert labels.reshape(-1)[position] == 0
        assert position - int(np.searchsorted(places, position)) == rank  # exactly `rank` background voxels come before
    np.testing.assert_array_equal(arrays["starts"][high:], places[np.diff(places, prepend=-2) > 1])


@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 6)] * 3), st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_weight_index_inverts_the_running_sum(layout, seed, shape, dtype):
    rng = np.random.default_rng(seed)
    weights = (rng.integers(0, 9, shape) * (rng.random(shape) < 0.4)).astype(dtype)
    weights.flat[-1] = 1
    with tempfile.TemporaryDirectory() as folder:
        index = cached(folder, layout, w=pf.ScalarImage(weights)).weight_index("w")
    running = np.cumsum(weights.ravel(), dtype=np.float64)
    assert index.total == running[-1]
    for fraction in [0.0, *rng.random(30), np.nextafter(1, 0)]:
        flat = int(np.searchsorted(running, fraction * running[-1], side="right"))
        expected = np.unravel_index(min(flat, weights.size - 1), shape)
        assert index.voxel(fraction) == tuple(map(int, expected))
        assert weights[index.voxel(fraction)] > 0


def test_weight_rows_are_summed_in_float64():
    voxels = np.ones((1, 1, 2, 3), np.float32) * np.float32(0.1)
    voxels[0, 0, 0, 0] = 2**24
    (cumulative,) = build_weight_index(voxels, IntensityMap()).values()
    tenth = float(np.float32(0.1))
    assert cumulative.dtype == np.float64
    assert cumulative.tolist() == [2**24 + tenth + tenth, (2**24 + tenth + tenth) + (tenth + tenth + tenth)]


def test_images_that_are_no_weights_say_why(tmp_path):
    rng = np.random.default_rng(0)
    entry = cached(
        tmp_path / "c",
        negative=pf.ScalarImage(rng.integers(-5, 5, (4, 4, 4)).astype(np.int16)),
        channels=pf.ScalarImage(rng.random((2, 4, 4, 4)).astype(np.float32)),
        label=pf.LabelMap(np.zeros((4, 4, 4), np.uint8)),
        zero=pf.ScalarImage(np.zeros((4, 4, 4), np.float32)),
    )
    for name, why in (("negative", "down to -5"), ("channels", "2 channels"), ("label", "label map")):
        with pytest.raises(pf.SamplerError, match=f"image '{name}' of subject 's'.*{why}"):
            entry.weight_index(name)
    with pytest.raises(pf.SamplerError, match="every value of image 'zero' is 0"):
        entry.weight_index("zero").voxel(0.5)
    with pytest.raises(pf.UnknownNameError, match="no label map"):
        entry.label_index("zero")
    with pytest.raises(pf.ArgumentError, match=r"\[0, 1\)"):
        entry.weight_index("zero").voxel(1.0)
