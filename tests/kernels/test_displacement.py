import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline
from scipy.stats import kstest

from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation
from patchflow.geometry.maps import AffineStage, ElasticStage, SpatialMap
from patchflow.kernels.displacement import FOLD_BOUND, control_points, plain_control_points, plain_spline_weights
from patchflow.kernels.points import lattice_box
from patchflow.kernels.resample import source_points

STAGE = ElasticStage(0xDEADBEEF12345678, (1.5, -2.0, 0.25), (6.0, 4.5, 8.0), (2.0, 1.0, 3.0))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**64 - 1), st.tuples(*[st.integers(-(2**20), 2**20)] * 3), st.tuples(*[st.integers(1, 6)] * 3))
def test_control_points_agree_with_the_twin_bit_for_bit(key, low, size):
    stage, high = dataclasses.replace(STAGE, key=key), tuple(a + n for a, n in zip(low, size, strict=True))
    assert control_points(stage, low, high).tobytes() == plain_control_points(stage, low, high).numpy().tobytes()


def test_a_control_point_is_the_same_in_every_box():
    full = control_points(STAGE, (-5, -5, -5), (6, 7, 8))
    np.testing.assert_array_equal(control_points(STAGE, (-2, 0, 3), (4, 5, 6)), full[:, 3:9, 5:10, 8:11])


def test_control_points_are_uniform_and_differ_by_key_and_axis():
    points = control_points(STAGE, (-20, -20, -20), (20, 20, 20)).reshape(3, -1)
    for along, amplitude in zip(points, STAGE.amplitude, strict=True):
        assert kstest(along, "uniform", (-amplitude, 2 * amplitude)).pvalue > 1e-4
    others = control_points(dataclasses.replace(STAGE, key=STAGE.key + 1), (-20, -20, -20), (20, 20, 20)).reshape(3, -1)
    correlations = np.corrcoef(np.concatenate([points, others]))[np.triu_indices(6, 1)]
    assert abs(correlations).max() < 5 / np.sqrt(points.shape[1])


def test_weights_are_those_of_the_cubic_b_spline():
    t = np.linspace(0, 1, 11)[:-1]
    weights = plain_spline_weights(torch.from_numpy(t)).numpy()
    basis = BSpline.basis_element(np.arange(-2.0, 3.0), extrapolate=False)
    for n in range(4):
        np.testing.assert_allclose(weights[n], np.nan_to_num(basis(t - (n - 1))), atol=1e-15)


def by_hand(stage, points):
    """The displaced points, one by one, from scipy's basis."""
    basis = BSpline.basis_element(np.arange(-2.0, 3.0), extrapolate=False)
    low, high = (points.reshape(3, -1).min(axis=1), points.reshape(3, -1).max(axis=1))
    first, stop = lattice_box(stage, low, high)
    lattice = control_points(stage, first, stop)
    matrices = []
    for point, origin, spacing, a, b in zip(points.reshape(3, -1), stage.origin, stage.spacing, first, stop, strict=True):
        matrices.append(np.nan_to_num(basis(((point - origin) / spacing)[:, None] - np.arange(a, b))))
    return points + np.einsum("pa,pb,pc,xabc->xp", *matrices, lattice).reshape(points.shape)


@pytest.mark.parametrize(
    "before", [(), (np.diag([-1.0, 1, -1, 1]),), (np.array([[1.0, 0.3, 0.2, 1], [0, 1, 0.4, 2], [0.1, 0, 1, 0], [0, 0, 0, 1]]),)]
)
def test_source_points_are_displaced_by_the_spline(before):
    location = PatchLocation((-3, 4, 10), (5, 6, 7))
    stages = tuple(AffineStage(matrix) for matrix in before)
    points = source_points(SpatialMap(stages), location).numpy()
    got = source_points(SpatialMap((*stages, STAGE)), location).numpy()
    np.testing.assert_allclose(got, by_hand(STAGE, points), rtol=0, atol=1e-12)
    assert (abs(got - points) <= np.reshape(STAGE.amplitude, (3, 1, 1, 1))).all()


def jacobians(stage, size):
    """Of x -> x + displacement(x), by central differences at points between voxels as well."""
    scale, step = np.eye(4), 1e-4
    scale[:3, :3] *= 0.5
    columns = []
    for axis in range(3):
        ends = []
        for sign in (-1, 1):
            moved = scale.copy()
            moved[axis, 3] = sign * step
            ends.append(source_points(SpatialMap((AffineStage(moved), stage)), PatchLocation((0, 0, 0), size)).numpy())
        columns.append((ends[1] - ends[0]) / (2 * step))
    return np.linalg.det(np.stack(columns, axis=-1).transpose(1, 2, 3, 0, 4))


def test_no_fold_at_the_bound():
    """Positive determinants, numerically, of fields that go up to the bound."""
    least = []
    for key in range(40):
        spacing = (3.0, 4.0, 5.0)
        stage = ElasticStage(key, (0.0, 0.0, 0.0), spacing, tuple(s / FOLD_BOUND for s in spacing))
        least.append(jacobians(stage, (16, 16, 16)).min())
    assert min(least) > 0


def worst_determinant(factor, place):
    """The least determinant at a place of the unit cell, for displacements of `factor` times the bound along each axis, spacing 1.

    Equal displacements d (1, 1, 1) have the determinant 1 + the sum over control points of d times their weight's slopes along I, J and K;
    it is least where each d has the sign against its own slopes.
    """
    t = torch.tensor(place, dtype=torch.float64)
    w = plain_spline_weights(t).numpy()
    d = np.stack([-0.5 * (1 - t) ** 2, 1.5 * t * t - 2 * t, -1.5 * t * t + t + 0.5, 0.5 * t * t])
    x, y, z = range(3)
    slopes = [np.einsum("a,b,c", *f) for f in ((d[:, x], w[:, y], w[:, z]), (w[:, x], d[:, y], w[:, z]), (w[:, x], w[:, y], d[:, z]))]
    signs = -np.sign(sum(slopes))
    gradient = np.array([(signs * slope).sum() for slope in slopes]) * factor / FOLD_BOUND
    return np.linalg.det(np.eye(3) + np.outer(np.ones(3), gradient))


def test_the_bound_is_no_looser_than_needed():
    """Control points that gather along a diagonal fold a little beyond the bound, and nowhere within it."""
    places = [(x, y, z) for x in np.linspace(0, 1, 11) for y in np.linspace(0, 1, 11) for z in np.linspace(0, 1, 11)]
    least = min(worst_determinant(1.0, place) for place in places)
    assert -1e-9 < least < 0.02
    assert min(worst_determinant(1.03, place) for place in places) < 0


def test_too_many_control_points_are_refused():
    stage = dataclasses.replace(STAGE, spacing=(1e-3, 1e-3, 1e-3))
    with pytest.raises(ArgumentError, match="too many to hold"):
        lattice_box(stage, np.zeros(3), np.full(3, 100.0))
