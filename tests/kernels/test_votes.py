import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from patchflow.geometry.location import PatchLocation
from patchflow.geometry.maps import SpatialMap
from patchflow.kernels.resample import Box, resample, source_points


def voted(volume, matrix, location, fill=0, outside="constant"):
    out = np.empty((len(volume), *location.size), volume.dtype)
    shape = volume.shape[1:]
    return resample(volume, Box((0, 0, 0), shape), shape, SpatialMap.affine(matrix), location, None, fill, outside, "linear", out)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.integers(2, 8)] * 3), st.tuples(*[st.integers(1, 5)] * 3), st.integers(1, 4))
def test_the_arg_max_of_interpolated_one_hot_labels(seed, shape, size, classes):
    rng = np.random.default_rng(seed)
    volume = (rng.integers(0, classes, (1, *shape)) * 7 - 9).astype(np.int16)  # negative ones too
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rng.normal(size=(3, 3)) * 0.5, rng.uniform(0, 4, 3)
    location = PatchLocation((0, 0, 0), size)
    got = voted(volume, matrix, location, fill=-9)[0]
    points = source_points(SpatialMap.affine(matrix), location).numpy()
    padded = np.pad(volume[0], 40, constant_values=-9)
    cells, names = np.floor(points).astype(int).clip(-20, 20), np.unique([*volume.ravel(), -9])
    score = np.zeros((len(names), *size))
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod([t if d else 1 - t for t, d in zip(points - np.floor(points), corner, strict=True)], axis=0)
        label = padded[tuple(cell + d + 40 for cell, d in zip(cells, corner, strict=True))]
        score += weight * (label == names[:, None, None, None])
    chosen = score[np.searchsorted(names, got), *np.indices(size)]
    np.testing.assert_allclose(chosen, score.max(axis=0), rtol=0, atol=1e-12)  # equal but for ties to rounding
    clear = np.sort(score, axis=0)[-1] - (np.sort(score, axis=0)[-2] if len(names) > 1 else 0) > 1e-9
    np.testing.assert_array_equal(got[clear], names[score.argmax(axis=0)][clear])


def test_ties_go_to_the_nearest_voxel_then_to_the_lowest_label():
    halfway = np.eye(4)
    halfway[2, 3] = 0.5
    two = np.broadcast_to(np.array([2, 5], np.uint8), (1, 2, 2, 2))
    one = PatchLocation((0, 0, 0), (1, 1, 1))
    assert voted(two, halfway, one).item() == 5  # of two tied, that of the nearest voxel, which at one half is the upper
    assert voted(two[..., ::-1], halfway, one).item() == 2
    # at (1/2, 1/2, 1/2) the nearest voxel is (1, 1, 1), whose label 1 has 1/8; 9 and 4 have 3/8 each
    halfway[:3, 3] = 0.5
    eight = np.array([9, 9, 9, 4, 4, 4, 8, 1], np.int8).reshape(1, 2, 2, 2)
    assert voted(eight, halfway, one).item() == 4
    assert voted(-eight, halfway, one).item() == -9


def test_most_weight_wins_though_no_voxel_is_near():
    third = np.eye(4)
    third[:3, 3] = 0.45
    labels = np.array([7, 3, 3, 7, 3, 7, 7, 3], np.uint16).reshape(1, 2, 2, 2)
    # weights: (0,0,0) .166; one step off .136 each of three; two .111; three .091: 7 has .166 + 3 (.111), 3 has 3 (.136) + .091
    assert voted(labels, third, PatchLocation((0, 0, 0), (1, 1, 1))).item() == (7 if 0.55**3 + 3 * 0.55 * 0.45**2 > 0.5 else 3)
    labels[0, 0, 0, 0] = 3
    assert voted(labels, third, PatchLocation((0, 0, 0), (1, 1, 1))).item() == 3


def test_outside_counts_as_the_fill():
    shift = np.eye(4)
    shift[2, 3] = -0.4
    labels = np.full((1, 1, 1, 4), 3, np.int32)
    got = voted(labels, shift, PatchLocation((0, 0, -1), (1, 1, 7)), fill=8).ravel()
    np.testing.assert_array_equal(got, [8, 3, 3, 3, 3, 8, 8])  # points -1.4, -0.4 (3 has 0.6), 0.6, ..., 2.6, 3.6 (0.4), 4.6
