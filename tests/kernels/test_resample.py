import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation, whole
from patchflow.kernels.pointwise import IntensityMap, apply_map
from patchflow.kernels.resample import Box, resample_linear, resample_nearest, touched_box

SHAPE = (9, 11, 13)
ALL = Box((0, 0, 0), SHAPE)


def shifted(*shift):
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    return matrix


def turned(seed):
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.8, 1.2)
    matrix[:3, 3] = np.array(SHAPE) / 2 - matrix[:3, :3] @ (np.array(SHAPE) / 2)
    return matrix


def linear(volume, matrix, location, fill=0.0, intensities=None):
    out = np.empty((volume.shape[0], *location.size), np.float32)
    shape = volume.shape[1:]
    return resample_linear(volume, Box((0, 0, 0), shape), shape, matrix, location, intensities or IntensityMap(), fill, out)


def test_whole_voxel_shift_gives_values_as_read_bit_for_bit():
    volume = np.random.default_rng(0).integers(-900, 900, (2, *SHAPE)).astype(np.int16)
    intensities = IntensityMap(0.0137, 2.1)
    got = linear(volume, shifted(2, 1, 3), PatchLocation((0, 0, 0), (7, 10, 10)), intensities=intensities)
    assert got.tobytes() == np.ascontiguousarray(apply_map(volume, intensities)[:, 2:, 1:, 3:]).tobytes()


def test_linear_field_is_reproduced_inside():
    i, j, k = np.indices(SHAPE)
    volume = (3 * i - 2 * j + 5 * k + 1)[None].astype(np.int16)
    matrix = turned(1)
    location = PatchLocation((3, 4, 5), (3, 3, 3))
    points = np.indices(location.size).reshape(3, -1) + np.array(location.start)[:, None]
    x, y, z = matrix[:3, :3] @ points + matrix[:3, 3:]
    np.testing.assert_allclose(linear(volume, matrix, location).ravel(), 3 * x - 2 * y + 5 * z + 1, atol=1e-4)


def test_missing_corners_count_as_the_fill():
    volume = np.full((1, 3, 3, 3), 8, np.uint8)
    got = linear(volume, shifted(0, 0, 0.25), PatchLocation((1, 1, -2), (1, 1, 7)), fill=-4.0)
    # points at k = -1.75, -0.75, 0.25, 1.25, 2.25, 3.25, 4.25 between voxels of 8 in 0..2 and -4 elsewhere
    np.testing.assert_array_equal(got.ravel(), [-4, 0.75 * -4 + 0.25 * 8, 8, 8, 0.75 * 8 + 0.25 * -4, -4, -4])


def test_the_last_voxel_needs_no_neighbour():
    volume = np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3)
    for axes in [(0, 1, 2), (2, 1, 0), (1, 0, 2)]:
        matrix = np.eye(4)
        matrix[:3, :3] = np.eye(3)[list(axes)]
        np.testing.assert_array_equal(linear(volume, matrix, whole((3, 3, 3)), fill=1e9)[0], volume[0].transpose(axes))


def test_clamp_comes_before_the_blend():
    volume = np.array([0, 100], np.int16).reshape(1, 1, 1, 2)
    got = linear(volume, shifted(0, 0, 0.5), PatchLocation((0, 0, 0), (1, 1, 1)), intensities=IntensityMap(1, 0, -np.inf, 10.0))
    assert got.item() == 5.0


def test_ties_of_nearest_go_up():
    volume = np.arange(4, dtype=np.int32).reshape(1, 1, 1, 4)
    out = resample_nearest(
        volume,
        Box((0, 0, 0), (1, 1, 4)),
        (1, 1, 4),
        shifted(0, 0, 0.5),
        PatchLocation((0, 0, -2), (1, 1, 6)),
        9,
        np.empty((1, 1, 1, 6), np.int32),
    )
    np.testing.assert_array_equal(out.ravel(), [9, 0, 1, 2, 3, 9])  # points -1.5 -0.5 0.5 1.5 2.5 3.5


def test_rows_longer_than_a_chunk():
    volume = np.random.default_rng(0).integers(0, 99, (1, 2, 3, 500)).astype(np.uint8)
    got = linear(volume, shifted(0, 0, 0.5), PatchLocation((0, 0, 0), (1, 3, 499)))
    np.testing.assert_array_equal(got[0], (volume[0, :1, :, :-1].astype(np.float32) + volume[0, :1, :, 1:]) / 2)


def test_any_memory_order_of_region_and_out():
    volume = np.random.default_rng(0).integers(0, 99, (2, *SHAPE)).astype(np.int16)
    location = PatchLocation((1, 2, 3), (5, 4, 6))
    expected = linear(volume, turned(0), location)
    labels = resample_nearest(volume, ALL, SHAPE, turned(0), location, 0, np.empty((2, 5, 4, 6), np.int16))
    for array in (
        np.asfortranarray(volume),
        volume.astype(">i2"),
        np.repeat(volume, 2, axis=3)[..., ::2],
        volume[:, :, ::-1].copy()[:, :, ::-1],
    ):
        np.testing.assert_array_equal(linear(array, turned(0), location), expected)
    out = np.empty((2, 6, 4, 5), np.float32).transpose(0, 3, 2, 1)
    resample_linear(volume, ALL, SHAPE, turned(0), location, IntensityMap(), 0, out)
    np.testing.assert_array_equal(out, expected)
    strided = np.empty((2, 5, 4, 12), np.int16)[..., ::2]
    np.testing.assert_array_equal(resample_nearest(volume, ALL, SHAPE, turned(0), location, 0, strided), labels)


def test_nearest_of_values_as_read():
    volume = np.arange(8, dtype=np.int16).reshape(1, 2, 2, 2)
    box = Box((0, 0, 0), (2, 2, 2))
    out = resample_nearest(
        volume, box, (2, 2, 2), np.eye(4), whole((2, 2, 2)), 0, np.empty((1, 2, 2, 2), np.float32), IntensityMap(2.0, 0.5)
    )
    np.testing.assert_array_equal(out, volume * 2 + 0.5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.integers(-5, 12)] * 3), st.tuples(*[st.integers(1, 6)] * 3), st.booleans())
def test_touched_box_is_exact(seed, start, size, nearest):
    matrix, location = turned(seed), PatchLocation(start, size)
    points = np.indices(size).reshape(3, -1) + np.array(start)[:, None]
    source = matrix[:3, :3] @ points + matrix[:3, 3:]
    first = np.floor(source + 0.5) if nearest else np.floor(source)
    last = first if nearest else first + 1
    low, high = np.maximum(first.min(axis=1), 0), np.minimum(last.max(axis=1) + 1, SHAPE)
    box = touched_box(matrix, location, SHAPE, nearest=nearest)
    assert (box is None) == bool((low >= high).any())
    if box is not None:
        assert box == (tuple(low), tuple(high))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.integers(-3, 12)] * 3), st.tuples(*[st.integers(1, 6)] * 3))
def test_a_voxel_is_the_same_bit_for_bit_in_every_patch_that_holds_it(seed, start, size):
    volume = np.random.default_rng(seed).integers(0, 3000, (1, *SHAPE)).astype(np.int16)
    matrix, big = turned(seed), PatchLocation((-4, -4, -4), (24, 24, 24))
    full = linear(volume, matrix, big, fill=3.0, intensities=IntensityMap(0.01, 1.0))
    location = PatchLocation(start, size)
    box = touched_box(matrix, location, SHAPE, nearest=False)
    if box is None:
        assert (full[(0, *(slice(a + 4, a + 4 + n) for a, n in zip(start, size, strict=True)))] == 3).all()
        return
    region = volume[(slice(None), *(slice(a, b) for a, b in zip(box.start, box.stop, strict=True)))]
    got = resample_linear(region, box, SHAPE, matrix, location, IntensityMap(0.01, 1.0), 3.0, np.empty((1, *size), np.float32))
    np.testing.assert_array_equal(got[0], full[(0, *(slice(a + 4, a + 4 + n) for a, n in zip(start, size, strict=True)))])


def test_a_region_that_lacks_voxels_is_refused():
    volume = np.zeros((1, *SHAPE), np.int16)
    location, out = PatchLocation((0, 0, 0), (4, 4, 4)), np.empty((1, 4, 4, 4), np.float32)
    small = Box((0, 0, 0), (3, 5, 5))
    with pytest.raises(ArgumentError, match="touches voxels"):
        resample_linear(volume[:, :3, :5, :5], small, SHAPE, np.eye(4), location, IntensityMap(), 0, out)
    with pytest.raises(ArgumentError, match="must be"):
        resample_linear(volume[:, :2], ALL, SHAPE, np.eye(4), location, IntensityMap(), 0, out)
    with pytest.raises(ArgumentError, match="out must be"):
        resample_linear(volume, ALL, SHAPE, np.eye(4), location, IntensityMap(), 0, out[:, :3])
    with pytest.raises(ArgumentError, match="float32"):
        resample_linear(volume, ALL, SHAPE, np.eye(4), location, IntensityMap(), 0, out.astype(np.float64))
