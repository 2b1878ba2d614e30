import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation, whole
from patchflow.geometry.maps import AffineStage, CoarseStage, ElasticStage, SpatialMap
from patchflow.kernels.pointwise import IntensityMap, apply_map
from patchflow.kernels.resample import Box, resample, source_points, touched_box

SHAPE = (9, 11, 13)
ALL = Box((0, 0, 0), SHAPE)
ELASTIC = ElasticStage(7, (0.4, -1.0, 2.0), (5.0, 6.0, 4.0), (1.8, 2.2, 1.4))


def shifted(*shift):
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    return SpatialMap.affine(matrix)


def turned(seed, shape=SHAPE):
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.8, 1.2)
    matrix[:3, 3] = np.array(shape) / 2 - matrix[:3, :3] @ (np.array(shape) / 2)
    return SpatialMap.affine(matrix)


def scalars(volume, source, location, fill=0.0, intensities=None, outside="constant", interpolation="linear", box=None):
    shape = volume.shape[1:]
    box = box or Box((0, 0, 0), shape)
    region = volume[(slice(None), *(slice(a, b) for a, b in zip(box.start, box.stop, strict=True)))]
    out = np.full((volume.shape[0], *location.size), np.nan, np.float32)
    return resample(region, box, shape, source, location, intensities or IntensityMap(), fill, outside, interpolation, out)


def labels(volume, source, location, fill=0, outside="constant", interpolation="nearest"):
    out = np.empty((volume.shape[0], *location.size), volume.dtype)
    return resample(volume, Box((0, 0, 0), volume.shape[1:]), volume.shape[1:], source, location, None, fill, outside, interpolation, out)


def test_whole_voxel_shift_gives_values_as_read_bit_for_bit():
    volume = np.random.default_rng(0).integers(-900, 900, (2, *SHAPE)).astype(np.int16)
    intensities = IntensityMap(0.0137, 2.1)
    got = scalars(volume, shifted(2, 1, 3), PatchLocation((0, 0, 0), (7, 10, 10)), intensities=intensities)
    assert got.tobytes() == np.ascontiguousarray(apply_map(volume, intensities)[:, 2:, 1:, 3:]).tobytes()


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_linear_field_is_reproduced_inside(interpolation):
    i, j, k = np.indices((29, 31, 33))
    volume = (3 * i - 2 * j + 5 * k + 1)[None].astype(np.int16)
    source, location = turned(1, (29, 31, 33)), PatchLocation((13, 14, 15), (3, 3, 3))
    x, y, z = source_points(source, location).numpy()
    got = scalars(volume, source, location, interpolation=interpolation)[0]
    np.testing.assert_allclose(got, 3 * x - 2 * y + 5 * z + 1, atol=2e-4)  # the cubic spline's mirrored border is 13 voxels away: 1e-7


def test_missing_corners_count_as_the_fill():
    volume = np.full((1, 3, 3, 3), 8, np.uint8)
    got = scalars(volume, shifted(0, 0, 0.25), PatchLocation((1, 1, -2), (1, 1, 7)), fill=-4.0)
    # points at k = -1.75, -0.75, 0.25, 1.25, 2.25, 3.25, 4.25 between voxels of 8 in 0..2 and -4 elsewhere
    np.testing.assert_array_equal(got.ravel(), [-4, 0.75 * -4 + 0.25 * 8, 8, 8, 0.75 * 8 + 0.25 * -4, -4, -4])


def test_border_and_reflect():
    volume = np.array([1.0, 2.0, 4.0, 8.0], np.float32).reshape(1, 1, 1, 4)
    far = PatchLocation((0, 0, -7), (1, 1, 18))
    row = [8, 4, 2, 1, 2, 4, 8, 4, 2, 1, 2, 4, 8]  # from -9 on
    by_hand = {"border": [1.0] * 7 + [1, 2, 4, 8] + [8.0] * 7, "reflect": [*row[2:], 4, 2, 1, 2, 4, 8, 4][:18]}
    for outside, expected in by_hand.items():
        for interpolation in ("linear", "nearest", "cubic"):
            got = scalars(volume, shifted(0, 0, 0), far, outside=outside, interpolation=interpolation)
            np.testing.assert_allclose(got.ravel(), expected, atol=1e-5)
        for interpolation in ("linear", "nearest"):
            np.testing.assert_array_equal(
                labels(volume.astype(np.int8), shifted(0, 0, 0), far, 0, outside, interpolation).ravel(), expected
            )
    quarter = scalars(volume, shifted(0, 0, 0.25), PatchLocation((0, 0, -1), (1, 1, 5)), outside="reflect").ravel()
    np.testing.assert_array_equal(quarter, [1.75, 1.25, 2.5, 5.0, 7.0])  # at -0.75 and 3.25 as at 0.75 and 2.75


def test_the_last_voxel_needs_no_neighbour():
    volume = np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3)
    for axes in [(0, 1, 2), (2, 1, 0), (1, 0, 2)]:
        matrix = np.eye(4)
        matrix[:3, :3] = np.eye(3)[list(axes)]
        got = scalars(volume, SpatialMap.affine(matrix), whole((3, 3, 3)), fill=1e9)
        np.testing.assert_array_equal(got[0], volume[0].transpose(axes))


def test_clamp_comes_before_the_blend():
    volume = np.array([0, 100], np.int16).reshape(1, 1, 1, 2)
    clamped = IntensityMap(1, 0, -np.inf, 10.0)
    assert scalars(volume, shifted(0, 0, 0.5), PatchLocation((0, 0, 0), (1, 1, 1)), intensities=clamped).item() == 5.0
    wide = np.broadcast_to(volume, (1, 2, 2, 2))
    assert scalars(wide, shifted(0, 0, 0.5), PatchLocation((0, 0, 0), (1, 1, 1)), intensities=clamped).item() == 5.0
    cubic = scalars(wide, shifted(0, 0, 0.5), PatchLocation((0, 0, 0), (1, 1, 1)), intensities=clamped, interpolation="cubic")
    assert cubic.item() == pytest.approx(5.0, abs=1e-5)


def test_ties_of_nearest_go_up():
    volume = np.arange(4, dtype=np.int32).reshape(1, 1, 1, 4)
    got = labels(volume, shifted(0, 0, 0.5), PatchLocation((0, 0, -2), (1, 1, 6)), 9)
    np.testing.assert_array_equal(got.ravel(), [9, 0, 1, 2, 3, 9])  # points -1.5 -0.5 0.5 1.5 2.5 3.5


def test_rows_longer_than_a_chunk():
    volume = np.random.default_rng(0).integers(0, 99, (1, 2, 3, 500)).astype(np.uint8)
    got = scalars(volume, shifted(0, 0, 0.5), PatchLocation((0, 0, 0), (1, 3, 499)))
    np.testing.assert_array_equal(got[0], (volume[0, :1, :, :-1].astype(np.float32) + volume[0, :1, :, 1:]) / 2)


def test_any_memory_order_of_region_and_out():
    volume = np.random.default_rng(0).integers(0, 99, (2, *SHAPE)).astype(np.int16)
    location = PatchLocation((1, 2, 3), (5, 4, 6))
    for interpolation in ("linear", "nearest", "cubic"):
        expected = scalars(volume, turned(0), location, interpolation=interpolation)
        for array in (
            np.asfortranarray(volume),
            volume.astype(">i2"),
            np.repeat(volume, 2, axis=3)[..., ::2],
            volume[:, :, ::-1].copy()[:, :, ::-1],
        ):
            np.testing.assert_array_equal(scalars(array, turned(0), location, interpolation=interpolation), expected)
        out = np.empty((2, 6, 4, 5), np.float32).transpose(0, 3, 2, 1)
        resample(volume, ALL, SHAPE, turned(0), location, IntensityMap(), 0, "constant", interpolation, out)
        np.testing.assert_array_equal(out, expected)
    for interpolation in ("linear", "nearest"):
        strided, wider = np.empty((2, 5, 4, 12), np.int16)[..., ::2], np.empty((2, 5, 4, 6), np.int64)
        expected = labels(volume, turned(0), location, 0, "constant", interpolation)
        for out in (strided, wider):
            resample(volume, ALL, SHAPE, turned(0), location, None, 0, "constant", interpolation, out)
            np.testing.assert_array_equal(out, expected)


def test_nearest_of_values_as_read():
    volume = np.arange(8, dtype=np.int16).reshape(1, 2, 2, 2)
    got = scalars(volume, shifted(0, 0, 1), whole((2, 2, 2)), fill=-3.0, intensities=IntensityMap(2.0, 0.5, 1.0), interpolation="nearest")
    np.testing.assert_array_equal(got[0, ..., 0], np.maximum(volume[0, ..., 1] * 2 + 0.5, 1))
    np.testing.assert_array_equal(got[0, ..., 1], -3.0)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_a_large_offset_takes_no_digits(dtype, interpolation):
    """The values as read of voxels that are all large: a range of 100 at 30,000, mapped to 0 to 1."""
    volume = np.random.default_rng(0).integers(30_000, 30_100, (1, *SHAPE)).astype(dtype)
    location, intensities = PatchLocation((2, 3, 4), (5, 5, 5)), IntensityMap(0.01, -300.0)
    points = source_points(turned(3), location).numpy()
    got = scalars(volume, turned(3), location, intensities=intensities, interpolation=interpolation, outside="reflect")
    order = 1 if interpolation == "linear" else 3
    exact = map_coordinates((volume[0].astype(np.float64) - 30_000) / 100, points, order=order, mode="mirror")
    np.testing.assert_allclose(got[0], exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("outside", ["constant", "border", "reflect"])
def test_interpolation_of_an_independent_library(outside):
    """scipy's, interior and border: its "mirror" is our reflect, its "grid-constant" our constant."""
    volume = np.random.default_rng(5).normal(size=(1, 23, 18, 20)).astype(np.float32)
    location, shape = PatchLocation((-5, -4, -6), (30, 27, 31)), volume.shape[1:]
    points = source_points(turned(4, shape), location).numpy()
    for interpolation, order in (("linear", 1), ("cubic", 3)):
        got = scalars(volume, turned(4, shape), location, -2.0, outside=outside, interpolation=interpolation)[0]
        if outside == "border":
            near = np.stack([point.clip(0, n - 1) for point, n in zip(points, shape, strict=True)])
            expected = map_coordinates(volume[0].astype(np.float64), near, order=order, mode="mirror")
        elif outside == "reflect" or order == 3:
            expected = map_coordinates(volume[0].astype(np.float64), points, order=order, mode="mirror")
        else:
            expected = map_coordinates(volume[0].astype(np.float64), points, order=order, mode="grid-constant", cval=-2)
        if outside == "constant" and order == 3:
            inside = np.all([(point >= -0.5) & (point < n - 0.5) for point, n in zip(points, shape, strict=True)], axis=0)
            assert 0.2 < inside.mean() < 0.9
            expected = np.where(inside, expected, -2)
        np.testing.assert_allclose(got, expected, rtol=0, atol=8e-6)  # the range is 8


@pytest.mark.parametrize("outside", ["constant", "border", "reflect"])
@pytest.mark.parametrize("source", [turned(8, (60, 50, 55)), SpatialMap((ELASTIC,)).then(turned(9, (60, 50, 55)))])
def test_a_cubic_patch_is_the_crop_of_the_cubic_volume(outside, source):
    volume = np.random.default_rng(1).integers(-1024, 3071, (1, 60, 50, 55)).astype(np.int16)
    full = scalars(volume, source, whole((60, 50, 55)), 0.0, outside=outside, interpolation="cubic")
    for start in [(0, 0, 0), (25, 20, 22), (48, 42, 45)]:
        location = PatchLocation(start, (12, 8, 10))
        box = touched_box(source, location, (60, 50, 55), "cubic", outside)
        assert box is not None
        got = scalars(volume, source, location, 0.0, outside=outside, interpolation="cubic", box=box)
        crop = full[(slice(None), *(slice(a, a + n) for a, n in zip(start, location.size, strict=True)))]
        np.testing.assert_allclose(got, crop, rtol=0, atol=4096e-6)


def test_coarse_samples_are_blended_linearly():
    volume = np.random.default_rng(2).normal(size=(1, 8, 9, 21)).astype(np.float32)
    source = SpatialMap((CoarseStage(2, 4.0, 2.0), CoarseStage(0, 2.0, 1.0)))
    got = scalars(volume, source, PatchLocation((1, 0, 2), (5, 9, 16)))[0]
    at_k = np.array([np.interp(np.arange(2, 18), [2, 6, 10, 14, 18], row[[2, 6, 10, 14, 18]]) for row in volume[0].reshape(-1, 21)])
    at_k = at_k.reshape(8, 9, 16)
    expected = np.stack([at_k[1], (at_k[1] + at_k[3]) / 2, at_k[3], (at_k[3] + at_k[5]) / 2, at_k[5]])
    np.testing.assert_allclose(got, expected, atol=1e-6)
    nearer = labels((volume * 100).astype(np.int16), source, PatchLocation((1, 0, 2), (5, 9, 16)), interpolation="linear")[0]
    samples = (volume[0] * 100).astype(np.int16)
    np.testing.assert_array_equal(nearer[1], samples[3][:, [2, 2, 6, 6, 6, 6, 10, 10, 10, 10, 14, 14, 14, 14, 18, 18]])  # ties go up


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.integers(-5, 12)] * 3), st.tuples(*[st.integers(1, 6)] * 3), st.booleans())
def test_touched_box_is_exact(seed, start, size, nearest):
    source, location = turned(seed), PatchLocation(start, size)
    points = source_points(source, location).numpy().reshape(3, -1)
    first = np.floor(points + 0.5) if nearest else np.floor(points)
    last = first if nearest else first + 1
    low, high = np.maximum(first.min(axis=1), 0), np.minimum(last.max(axis=1) + 1, SHAPE)
    box = touched_box(source, location, SHAPE, "nearest" if nearest else "linear")
    assert (box is None) == bool((low >= high).any())
    if box is not None:
        assert box == (tuple(low), tuple(high))


@st.composite
def maps(draw, shape=SHAPE):
    """A few stages of every kind, mild ones."""
    source = turned(draw(st.integers(0, 10**6)), shape) if draw(st.booleans()) else shifted(0, 0, 0)
    for _ in range(draw(st.integers(0, 2))):
        kind = draw(st.sampled_from(["elastic", "coarse", "flip", "turn"]))
        if kind == "elastic":
            spacing = draw(st.tuples(*[st.floats(1.5, 9)] * 3))
            amplitude = tuple(draw(st.floats(0, 0.4)) * s for s in spacing)
            following = SpatialMap(
                (ElasticStage(draw(st.integers(0, 2**64 - 1)), draw(st.tuples(*[st.floats(-9, 9)] * 3)), spacing, amplitude),)
            )
        elif kind == "coarse":
            following = SpatialMap((CoarseStage(draw(st.integers(0, 2)), draw(st.floats(1, 5)), draw(st.floats(-3, 3))),))
        elif kind == "flip":
            following = SpatialMap.affine(np.array([[1.0, 0, 0, 0], [0, -1.0, 0, shape[1]], [0, 0, -1.0, shape[2] - 1], [0, 0, 0, 1]]))
        else:
            following = turned(draw(st.integers(0, 10**6)), shape)
        source = source.then(following)
    return source


@settings(max_examples=60, deadline=None)
@given(
    maps(),
    st.tuples(*[st.integers(-3, 12)] * 3),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.sampled_from(["constant", "border", "reflect"]),
    st.sampled_from(["linear", "nearest", "votes"]),
)
def test_a_voxel_is_the_same_in_every_patch_that_holds_it(source, start, size, outside, interpolation):
    volume = np.random.default_rng(3).integers(0, 3000 if interpolation != "votes" else 3, (1, *SHAPE)).astype(np.int16)
    intensities, dtype = (None, np.int16) if interpolation == "votes" else (IntensityMap(0.01, 1.0), np.float32)
    kind = "linear" if interpolation == "votes" else interpolation
    full = np.empty((1, 24, 24, 24), dtype)
    resample(volume, ALL, SHAPE, source, PatchLocation((-4, -4, -4), (24, 24, 24)), intensities, 3, outside, kind, full)
    location = PatchLocation(start, size)
    crop = full[(0, *(slice(a + 4, a + 4 + n) for a, n in zip(start, size, strict=True)))]
    box = touched_box(source, location, SHAPE, kind, outside)
    if box is None:
        assert outside == "constant"
        np.testing.assert_allclose(crop, 3, rtol=0, atol=1e-6 if interpolation == "linear" else 0)  # coarse samples: a weighted sum of 3
        return
    region = volume[(slice(None), *(slice(a, b) for a, b in zip(box.start, box.stop, strict=True)))]
    got = resample(region, box, SHAPE, source, location, intensities, 3, outside, kind, np.empty((1, *size), dtype))
    rounding = 30 * 2e-7 if interpolation == "linear" else 0  # a point on the last plane may be read by the loop for the border
    np.testing.assert_allclose(got[0], crop, rtol=0, atol=rounding)


numbers = st.one_of(
    st.floats(-3, 20), st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, 1e-300, 1e9, -1e18, 1e300, 1e308, 0.5, 8.0, 10.0, 12.0])
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(numbers, min_size=12, max_size=12),
    st.lists(st.sampled_from(["elastic", "coarse"]), max_size=2),
    st.booleans(),
    st.tuples(*[st.sampled_from([-(2**30), -40, -3, 0, 5, 2**30])] * 3),
    st.tuples(*[st.integers(1, 4)] * 3),
    st.sampled_from(["constant", "border", "reflect"]),
    st.sampled_from(["linear", "nearest", "cubic", "votes"]),
)
def test_wild_maps_read_nothing_beyond_the_region(entries, others, affine_first, start, size, outside, interpolation):
    """The region lies between voxels of a value that no blend of the region's can come near."""
    around = np.full((1, *(n + 6 for n in SHAPE)), 10_000, np.int16)
    region = around[:, 3:-3, 3:-3, 3:-3]
    region[...] = np.random.default_rng(0).integers(1, 4, region.shape)
    matrix = np.eye(4)
    matrix[:3] = np.reshape(entries, (3, 4))
    stages = [ElasticStage(3, (0.0,) * 3, (4.0,) * 3, (1.5,) * 3) if other == "elastic" else CoarseStage(1, 2.5, 0.0) for other in others]
    source = SpatialMap((AffineStage(matrix), *stages) if affine_first else (*stages, AffineStage(matrix)))
    intensities, dtype = (None, np.int16) if interpolation == "votes" else (IntensityMap(), np.float32)
    kind = "linear" if interpolation == "votes" else interpolation
    try:
        got = resample(region, ALL, SHAPE, source, PatchLocation(start, size), intensities, 2, outside, kind, np.empty((1, *size), dtype))
    except ArgumentError as error:
        assert any(reason in str(error) for reason in ("no finite point", "too many to hold", "too far from"))  # noqa: PT017
        return
    assert np.isfinite(got).all()
    assert abs(got).max() < 100


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite_are_refused(bad):
    matrix = np.eye(4)
    matrix[1, 2] = bad
    with pytest.raises(ArgumentError, match="no finite point"):
        touched_box(SpatialMap.affine(matrix), whole((3, 3, 3)), SHAPE)


def test_a_region_that_lacks_voxels_is_refused():
    volume = np.zeros((1, *SHAPE), np.int16)
    location, out = PatchLocation((0, 0, 0), (4, 4, 4)), np.empty((1, 4, 4, 4), np.float32)
    given = SHAPE, shifted(0, 0, 0), location, IntensityMap(), 0, "constant", "linear"
    with pytest.raises(ArgumentError, match="touches voxels"):
        resample(volume[:, :3, :5, :5], Box((0, 0, 0), (3, 5, 5)), *given, out)
    with pytest.raises(ArgumentError, match="must be"):
        resample(volume[:, :2], ALL, *given, out)
    with pytest.raises(ArgumentError, match="reaches beyond"):
        resample(volume, Box((1, 0, 0), (10, 11, 13)), *given, out)
    with pytest.raises(ArgumentError, match="out must be"):
        resample(volume, ALL, *given, out[:, :3])
    with pytest.raises(ArgumentError, match="float32"):
        resample(volume, ALL, *given, out.astype(np.float64))


def test_what_cannot_be_interpolated_is_refused():
    volume, out = np.zeros((1, *SHAPE), np.int16), np.empty((1, 4, 4, 4), np.int16)
    location = PatchLocation((0, 0, 0), (4, 4, 4))
    with pytest.raises(ArgumentError, match='not "cubic"'):
        resample(volume, ALL, SHAPE, shifted(0, 0, 0), location, None, 0, "constant", "cubic", out)
    with pytest.raises(ArgumentError, match="integers"):
        resample(volume.astype(np.float32), ALL, SHAPE, shifted(0, 0, 0), location, None, 0, "constant", "linear", out)
    with pytest.raises(ArgumentError, match="outside must be"):
        resample(volume, ALL, SHAPE, shifted(0, 0, 0), location, None, 0, "zeros", "linear", out)
    with pytest.raises(ArgumentError, match="interpolation must be"):
        resample(volume, ALL, SHAPE, shifted(0, 0, 0), location, None, 0, "constant", "quintic", out)
    with pytest.raises(ArgumentError, match=r"2\^31"):
        resample(volume, ALL, SHAPE, shifted(0, 0, 0), PatchLocation((2**40, 0, 0), (4, 4, 4)), None, 0, "constant", "nearest", out)
