import itertools
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.processing import resample_to_output
from scipy.ndimage import map_coordinates

from patchflow.errors import ArgumentError, InferenceError
from patchflow.geometry.space import VoxelGrid
from patchflow.inference.native import SlabResampler

LAW = settings(max_examples=50, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def resampled(volume, source, target, fill=0, cuts=()):
    """The whole of the target, from slabs cut at `cuts`; checks that pieces follow each other as promised."""
    resampler = SlabResampler(source, target, fill)
    out, seen, order = None, np.zeros(target.shape[resampler.axis], int), []
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < source.shape[0]}), source.shape[0]]
    for start, stop in itertools.pairwise(edges):
        for first, piece in resampler.push(start, volume[:, start:stop]):
            assert piece.flags.c_contiguous
            assert not np.shares_memory(piece, volume)
            out = np.empty((len(volume), *target.shape), piece.dtype) if out is None else out
            last = first + piece.shape[1 + resampler.axis]
            where = [slice(None)] * 4
            where[1 + resampler.axis] = slice(first, last)
            out[tuple(where)] = piece
            seen[first:last] += 1
            order.append((first, last))
    assert (seen == 1).all()
    upwards = order if order[0][0] == 0 else order[::-1]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(upwards))
    return out


def source_points(source, target):
    voxels = np.stack([*np.indices(target.shape, float), np.ones(target.shape)])
    return np.tensordot(np.linalg.inv(source.affine) @ target.affine, voxels, 1)[:3]


def expected(volume, source, target, fill):
    """By scipy; and which voxels lie too near the border to say whether they are inside."""
    points = source_points(source, target)
    beyond = np.max([np.abs(p - (n - 1) / 2) - n / 2 for p, n in zip(points, source.shape, strict=True)], axis=0)
    values = np.stack([map_coordinates(channel.astype(np.float64), points, order=1, mode="nearest") for channel in volume])
    fills = np.broadcast_to(fill, len(volume))[:, None, None, None]
    return np.where(beyond > 1e-4, fills, values), np.abs(beyond - 1e-4) < 1e-6


def turned(rng, shape, scale):
    """An affine of oblique, sheared and scaled axes, some of them mirrored, about the middle of a grid."""
    linear = np.linalg.qr(rng.normal(size=(3, 3)))[0] @ np.diag(rng.uniform(*scale, 3)) + rng.uniform(-0.2, 0.2, (3, 3))
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = rng.normal(size=3) - linear @ ((np.array(shape) - 1) / 2)
    return affine


def parallel(rng, source, shape, scale):
    """A grid of other spacing whose axes are those of the source, in any order and direction."""
    axes, inner = rng.permutation(3), np.zeros((4, 4))
    inner[axes, range(3)] = rng.uniform(*scale, 3) * rng.choice([-1, 1], 3)
    inner[:3, 3] = (np.array(source.shape) - 1) / 2 - inner[:3, :3] @ ((np.array(shape) - 1) / 2) + rng.uniform(-1, 1, 3)
    inner[3, 3] = 1
    return VoxelGrid(shape, source.affine @ inner)


grid_sizes = st.tuples(*[st.integers(1, 14)] * 3)


@LAW
@given(seeds, grid_sizes, st.sampled_from(["f4", "f2", "u1", "?", "i8", "c8", ">i2"]), st.lists(st.integers(1, 13)))
def test_permuted_mirrored_and_cropped_grids_are_moved_bit_for_bit(seed, shape, dtype, cuts):
    rng = np.random.default_rng(seed)
    volume = rng.integers(0, 256, (2, *shape, np.dtype(dtype).itemsize), np.uint8).view(dtype)[..., 0]
    if dtype == "?":
        volume = rng.random((2, *shape)) < 0.5
    axes, flips, starts = rng.permutation(3), rng.choice([-1, 1], 3), rng.integers(-4, 5, 3)
    target = tuple(int(n) for n in rng.integers(1, 16, 3))
    inner = np.zeros((4, 4))
    inner[axes, range(3)] = flips
    inner[axes, 3] = np.where(flips > 0, starts, np.array(shape)[axes] - 1 - starts)
    inner[3, 3] = 1
    source = VoxelGrid(shape, turned(rng, shape, (0.5, 2)))
    padded = np.pad(volume, [(0, 0)] + [(20, 20)] * 3, constant_values=1)  # by numpy: transpose, flip, crop
    padded = np.flip(padded.transpose(0, *(1 + axes)), [1 + a for a in range(3) if flips[a] < 0])
    crop = padded[(slice(None), *(slice(20 + a, 20 + a + n) for a, n in zip(starts, target, strict=True)))]
    grid = VoxelGrid(target, source.affine @ inner)
    assert SlabResampler(source, grid).exact
    assert SlabResampler(source, grid).held() == 0
    got = resampled(volume, source, grid, 1, cuts)
    assert got.dtype == volume.dtype
    assert got.tobytes() == np.ascontiguousarray(crop).tobytes()


@LAW
@given(seeds, grid_sizes, grid_sizes, st.booleans(), st.lists(st.integers(1, 13)))
def test_scaled_and_oblique_grids_get_what_scipy_interpolates(seed, shape, size, oblique, cuts):
    rng = np.random.default_rng(seed)
    volume = rng.uniform(-1, 1, (2, *shape)).astype(np.float32)
    source = VoxelGrid(shape, turned(rng, shape, (0.5, 2)))
    target = VoxelGrid(size, turned(rng, size, (0.3, 3))) if oblique else parallel(rng, source, size, (0.3, 3))
    got = resampled(volume, source, target, (-3, 5), cuts)
    assert got.dtype == np.float32
    want, unsure = expected(volume, source, target, (-3, 5))
    np.testing.assert_allclose(got[:, ~unsure], want[:, ~unsure], rtol=0, atol=2e-5)  # the range is 2
    assert got.tobytes() == resampled(volume, source, target, (-3, 5)).tobytes()
    assert got.tobytes() == resampled(volume, source, target, (-3, 5), range(shape[0])).tobytes()


@pytest.mark.parametrize("oblique", [False, True])
def test_a_ramp_in_space_stays_the_same_ramp(oblique):
    rng = np.random.default_rng(3)
    source = VoxelGrid((30, 34, 38), turned(rng, (30, 34, 38), (0.8, 1.2)))
    target = VoxelGrid((9, 8, 10), turned(rng, (9, 8, 10), (0.8, 1.2))) if oblique else parallel(rng, source, (20, 19, 21), (0.7, 1.3))
    ramps = []
    for grid in (source, target):
        x, y, z = np.tensordot(grid.affine, np.stack([*np.indices(grid.shape), np.ones(grid.shape)]), 1)[:3]
        ramps.append((0.3 * x - 0.2 * y + 0.5 * z)[None].astype(np.float32))
    inside = (source_points(source, target) >= 0).all() and (source_points(source, target).max(axis=(1, 2, 3)) <= [29, 33, 37]).all()
    assert inside
    got = resampled(ramps[0], source, target, np.nan, (5, 11))
    np.testing.assert_allclose(got, ramps[1], rtol=0, atol=1e-5 * np.ptp(ramps[0]))


def oblique_image(shape=(17, 14, 11)):
    """As a scanner writes it: sagittal, oblique, 0.9 x 0.9 x 2.2 mm, with a float32 header."""
    rng = np.random.default_rng(8)
    a, b = np.deg2rad(7), np.deg2rad(-11)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[0, 0, 2.2], [-0.9, 0, 0], [0, -0.9, 0]])
    affine[:3, 3] = -12.3, 45.6, 7.89
    data = map_coordinates(
        rng.normal(size=(5, 5, 5)), np.stack(np.meshgrid(*(np.linspace(0, 4, n) for n in shape), indexing="ij")), order=3
    )
    return nib.Nifti1Image.from_bytes(nib.Nifti1Image(data.astype(np.float32), affine).to_bytes())


def test_a_canonical_image_goes_back_to_the_scanners_grid():
    image = oblique_image()
    canonical = nib.as_closest_canonical(image)
    assert canonical.shape != image.shape
    grids = [VoxelGrid(i.shape, i.affine) for i in (canonical, image)]
    got = resampled(canonical.get_fdata(dtype=np.float32)[None], *grids, 0, (3, 4, 9))
    assert got[0].tobytes() == image.get_fdata(dtype=np.float32).tobytes()


def test_an_image_resampled_by_nibabel_goes_back_to_the_scanners_grid():
    image = oblique_image()
    inner = resample_to_output(image, (1.3, 0.8, 1.1), order=1, mode="nearest")
    source, target = VoxelGrid(inner.shape, inner.affine), VoxelGrid(image.shape, image.affine)
    volume = inner.get_fdata(dtype=np.float32)[None]
    got = resampled(volume, source, target, 0, (4, 9))
    want, unsure = expected(volume, source, target, 0)
    assert not unsure.any()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.ptp(volume))
    away = np.abs(got[0] - image.get_fdata())[1:-1, 1:-1, 1:-1]
    assert away.max() < 0.15 * np.ptp(volume)  # two linear interpolations of a smooth field
    assert np.median(away) < 0.02 * np.ptp(volume)


@LAW
@given(seeds, grid_sizes, st.booleans(), st.sampled_from(["u1", "?", "i4", "u8"]), st.lists(st.integers(1, 13)))
def test_labels_take_the_nearest_voxel(seed, shape, oblique, dtype, cuts):
    rng = np.random.default_rng(seed)
    volume = rng.integers(0, 2 if dtype == "?" else 200, (1, *shape)).astype(dtype)
    source = VoxelGrid(shape, turned(rng, shape, (0.5, 2)))
    target = VoxelGrid((7, 8, 9), turned(rng, (7, 8, 9), (0.3, 3))) if oblique else parallel(rng, source, (7, 8, 9), (0.3, 3))
    points = source_points(source, target)
    near = [np.floor(p + 0.5).clip(0, n - 1).astype(int) for p, n in zip(points, shape, strict=True)]
    beyond = np.max([np.abs(p - (n - 1) / 2) - n / 2 for p, n in zip(points, shape, strict=True)], axis=0)
    unsure = (np.abs(beyond - 1e-4) < 1e-6) | (np.abs((points % 1) - 0.5).min(axis=0) < 1e-6)
    got = resampled(volume, source, target, 1, cuts)
    assert got.dtype == volume.dtype
    np.testing.assert_array_equal(got[0][~unsure], np.where(beyond > 1e-4, 1, volume[0][tuple(near)])[~unsure])


@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4"])
def test_floating_slabs_of_any_precision_come_out_as_float32(dtype):
    volume = np.random.default_rng(0).normal(size=(1, 5, 6, 7)).astype(dtype)
    source, target = VoxelGrid((5, 6, 7), np.eye(4)), VoxelGrid((8, 8, 8), np.diag([0.5, 0.7, 0.9, 1]))
    got = resampled(volume, source, target)
    assert got.dtype == np.float32
    assert got.tobytes() == resampled(volume.astype(np.float32), source, target).tobytes()


@pytest.mark.parametrize("factor", [8, 1 / 8])
def test_eight_times_finer_and_coarser(factor):
    shape, size = ((5, 4, 6), (40, 32, 48)) if factor == 8 else ((40, 33, 50), (5, 5, 7))
    volume = np.random.default_rng(0).uniform(-1, 1, (1, *shape)).astype(np.float32)
    affine = np.diag([1 / factor] * 3 + [1.0])
    affine[:3, 3] = (1 / factor - 1) / 2
    source, target = VoxelGrid(shape, np.eye(4)), VoxelGrid(size, affine)
    assert SlabResampler(source, target).held() == 2
    want, unsure = expected(volume, source, target, 9)
    got = resampled(volume, source, target, 9, (1, 2, 3))
    np.testing.assert_allclose(got[:, ~unsure], want[:, ~unsure], rtol=0, atol=2e-5)
    if factor == 8:
        assert not (got == 9).any()  # the finer grid covers the same box


@pytest.mark.parametrize("linear", [np.eye(3), np.diag([0.5, 0.5, 0.5]), np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]])
@pytest.mark.parametrize("away", [(-99, 0, 0), (99, 0, 0), (0, 99, 0), (1e20, 0, -1e20)])
def test_a_target_that_lies_outside_altogether_is_filled(linear, away):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = linear, away
    got = resampled(np.ones((2, 6, 5, 4), np.float32), VoxelGrid((6, 5, 4), np.eye(4)), VoxelGrid((7, 8, 9), affine), (2, 3), (2, 4))
    assert (got[0] == 2).all()
    assert (got[1] == 3).all()


def test_a_source_of_one_slice_reaches_half_its_thickness():
    source, target = VoxelGrid((1, 3, 3), np.diag([5.0, 1, 1, 1])), VoxelGrid((9, 3, 3), np.eye(4) + np.eye(4, k=3) * -4)
    volume = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    got = resampled(volume, source, target, -1)  # slices at -4 to 4 mm, of which -2.5 to 2.5 are covered
    np.testing.assert_array_equal(got[0], [np.full((3, 3), -1) if abs(i) > 2.5 else volume[0, 0] for i in range(-4, 5)])


def test_slices_leave_as_soon_as_they_can():
    affine = np.diag([0.5, 1, 1, 1])
    affine[0, 3] = -0.25
    up = SlabResampler(VoxelGrid((4, 3, 3), np.eye(4)), VoxelGrid((8, 3, 3), affine))
    volume = np.zeros((1, 4, 3, 3), np.float32)
    left = [[(first, piece.shape[1]) for first, piece in up.push(i, volume[:, i : i + 1])] for i in range(4)]
    assert left == [[], [(0, 3)], [(3, 2)], [(5, 3)]]  # points -0.25 0.25 0.75 | 1.25 1.75 | 2.25 2.75 3.25
    affine = np.diag([-0.5, 1, 1, 1])
    affine[0, 3] = 3.75
    down = SlabResampler(VoxelGrid((4, 3, 3), np.eye(4)), VoxelGrid((9, 3, 3), affine))
    left = [[(first, piece.shape[1]) for first, piece in down.push(i, volume[:, i : i + 1])] for i in range(4)]
    assert left == [[], [(6, 3)], [(4, 2)], [(0, 4)]]  # -0.25 0.25 0.75 | 1.25 1.75 | 2.25 2.75 3.25 3.75


def test_oblique_grids_hold_what_a_slice_touches():
    tilt, shape = np.deg2rad(10), (60, 40, 50)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    resampler = SlabResampler(VoxelGrid(shape, np.eye(4)), VoxelGrid(shape, affine))
    touched = 39 * np.sin(tilt)  # 6.8 slices
    assert np.ceil(touched) + 1 <= resampler.held() <= 1.5 * (touched + 3)
    assert not resampler.exact
    assert resampler.axis == 0


@pytest.mark.parametrize("kind", ["parallel", "turned", "oblique", "moved", "labels"])
def test_memory_stays_within_what_is_stated(kind):
    shape, channels = (64, 150, 160), 3
    affine = np.diag([0.7, 0.8, 0.9, 1])
    if kind == "turned":
        affine = affine[:, [2, 0, 1, 3]]
    if kind == "oblique":
        affine[0, 1] = 0.05
    if kind == "moved":
        affine = np.eye(4)[:, [2, 1, 0, 3]]
    resampler = SlabResampler(VoxelGrid(shape, np.eye(4)), VoxelGrid((190, 180, 210), affine))
    slab = np.ones((channels, 8, *shape[1:]), np.int32 if kind == "labels" else np.float32)
    for first, _ in resampler.push(0, slab):  # kernels are compiled, and the first piece is gone
        del first, _
    tracemalloc.start()
    for start in range(8, 64, 8):
        for first, _ in resampler.push(start, slab):
            del first, _
    peak = tracemalloc.get_traced_memory()[1] + resampler.held() * slab[:, 0].nbytes  # held since the first push
    tracemalloc.stop()
    assert 0.5 * resampler.memory(channels, slab.dtype) < peak < resampler.memory(channels, slab.dtype) + 2**20
    assert resampler.memory(channels, slab.dtype) < 2**25 * 1.6


def test_what_is_pushed_wrongly_is_refused():
    volume, grid = np.zeros((2, 6, 5, 4), np.float32), VoxelGrid((6, 5, 4), np.eye(4))
    finer = VoxelGrid((12, 5, 4), np.diag([0.5, 1, 1, 1]))
    resampler = SlabResampler(grid, finer)
    with pytest.raises(ArgumentError, match="from 0 on"):
        resampler.push(1, volume[:, 1:3])
    list(resampler.push(0, volume[:, :2]))
    for first, slab, says in [
        (3, volume[:, 3:], "from 2 on"),
        (2, volume, "up to 6"),
        (2, volume[:, 2:3, :4], r"must be \(C, t, 5, 4\)"),
        (2, volume[:, :0], "t at least 1"),
        (2, volume[:1, 2:3], "1 channels of float32 after 2"),
        (2, volume[:, 2:3].astype(np.float64), "float64 after 2 of float32|2 channels of float64"),
    ]:
        with pytest.raises(ArgumentError, match=says):
            resampler.push(first, slab)
    next(resampler.push(2, volume[:, 2:]))
    with pytest.raises(InferenceError, match="not all pieces"):
        resampler.push(6, volume)
    with pytest.raises(ArgumentError, match="complex64"):
        SlabResampler(grid, finer).push(0, volume.astype(np.complex64))


@pytest.mark.parametrize("fill", [(1, 2, 3), (), "0", None, 1j])
def test_a_fill_of_another_number_of_channels_is_refused(fill):
    with pytest.raises(ArgumentError, match="fill"):
        SlabResampler(*[VoxelGrid((2, 2, 2), np.eye(4))] * 2, fill).push(0, np.zeros((2, 2, 2, 2)))


@pytest.mark.parametrize(("fill", "dtype"), [(-1, "u1"), (0.5, "i2"), (np.nan, "i4"), (2, "?"), (1e6, "f2"), (300, "i1")])
def test_a_fill_that_the_dtype_does_not_hold_is_refused(fill, dtype):
    with pytest.raises(ArgumentError, match="does not hold"):
        SlabResampler(*[VoxelGrid((2, 2, 2), np.eye(4))] * 2, fill).push(0, np.zeros((1, 2, 2, 2), dtype))


def test_affines_that_cannot_be_inverted_are_refused():
    flat = np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    good = VoxelGrid((4, 4, 4), np.eye(4))
    with pytest.raises(ArgumentError, match="affine of the source grid cannot be inverted"):
        SlabResampler(VoxelGrid((4, 4, 4), flat), good)
    with pytest.raises(ArgumentError, match="affine of the target grid cannot be inverted"):
        SlabResampler(good, VoxelGrid((4, 4, 4), flat))
