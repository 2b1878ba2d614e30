import itertools

import numpy as np
import pytest

from patchflow.errors import ArgumentError
from patchflow.geometry.space import VoxelGrid, matched_axes, reaches, straightened, voxel_map, whole_move
from patchflow.seeding import generator

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 0, 3, -126], [0, 1.5, 0, -72], [0, 0, 0, 1]])


def test_voxels_that_lie_at_the_same_place_are_mapped_onto_each_other():
    source = VoxelGrid((10, 20, 30), AFFINE)
    inner = np.array([[0, 2.0, 0, 1], [-0.5, 0, 0, 3], [0, 0, 1, 7], [0, 0, 0, 1]])
    target = VoxelGrid((5, 6, 7), AFFINE @ inner)
    np.testing.assert_allclose(voxel_map(source, target), inner, atol=1e-12)
    world = target.affine @ [1, 2, 3, 1]
    np.testing.assert_allclose(source.affine @ voxel_map(source, target) @ [1, 2, 3, 1], world, atol=1e-10)


@pytest.mark.parametrize(
    ("affine", "says"),
    [
        (np.diag([1.0, 0, 1, 1]), r"voxels of \[1.0, 0.0, 1.0\] mm"),
        (np.array([[1.0, 2, 0, 0], [1, 2 + 1e-9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "lie in one plane"),
        (np.diag([1.0, np.nan, 1, 1]), "must be finite"),
        (np.diag([1.0, 1, 1, 2]), "last row"),
        (np.eye(3), "4x4"),
    ],
)
def test_an_affine_that_cannot_be_inverted_is_named(affine, says):
    good = VoxelGrid((2, 2, 2), np.eye(4))
    with pytest.raises(ArgumentError, match=f"the source grid.*{says}"):
        voxel_map(VoxelGrid((2, 2, 2), affine), good)
    with pytest.raises(ArgumentError, match=f"the target grid.*{says}"):
        voxel_map(good, VoxelGrid((2, 2, 2), affine))


def test_a_grid_without_voxels_is_refused():
    with pytest.raises(ArgumentError, match="shape of the target grid"):
        voxel_map(VoxelGrid((2, 2, 2), np.eye(4)), VoxelGrid((2, 0, 2), np.eye(4)))


def test_small_and_anisotropic_voxels_can_be_inverted():
    found = voxel_map(VoxelGrid((2, 2, 2), np.diag([1e-4, 1e-3, 8, 1])), VoxelGrid((2, 2, 2), np.diag([1e-4, 1e-4, 1e-4, 1])))
    np.testing.assert_allclose(found, np.diag([1, 0.1, 1.25e-5, 1]), rtol=1e-12)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_axes_are_matched_however_they_are_turned(axes):
    matrix = np.zeros((4, 4))
    matrix[range(3), axes] = 0.1, -4, 1
    matrix[:3, :3] += 0.05
    assert matched_axes(matrix, (40, 50, 60)) == axes


def test_the_first_axis_is_that_over_which_i_changes_most():
    matrix = np.eye(4)
    matrix[0, 1] = 0.9
    assert matched_axes(matrix, (10, 10, 10)) == (0, 1, 2)
    assert matched_axes(matrix, (10, 20, 10)) == (1, 0, 2)
    assert matched_axes(matrix, (1, 1, 1)) == (0, 1, 2)


def test_a_move_of_whole_voxels_is_found_to_a_thousandth_of_a_voxel_over_the_whole_extent():
    matrix = np.array([[0, -1.0, 0, 5], [0, 0, 1, -3], [1, 0, 0, 2], [0, 0, 0, 1]])
    assert whole_move(matrix, (7, 8, 9)) == ((1, 2, 0), (-1, 1, 1), (5, -3, 2))
    astray = matrix.copy()
    astray[2, 0] += 1e-5
    assert whole_move(astray, (100, 8, 9)) is not None
    assert whole_move(astray, (102, 8, 9)) is None
    astray = matrix.copy()
    astray[1, 3] += 2e-3
    assert whole_move(astray, (7, 8, 9)) is None


def test_the_size_of_the_voxels_along_an_axis_of_one_counts_for_nothing():
    assert whole_move(np.diag([1.0, -5, 1, 1]), (4, 1, 4)) == ((0, 1, 2), (1, 1, 1), (0, 0, 0))
    assert whole_move(np.diag([1.0, -5, 1, 1]), (4, 2, 4)) is None


def test_what_rounding_adds_to_parallel_axes_is_taken_away():
    matrix = np.diag([0.5, 2, 3, 1])
    matrix[0, 1] = 1e-6
    straight, parallel = straightened(matrix, (11, 41, 11))
    assert parallel
    np.testing.assert_allclose(straight[:3, :3], np.diag([0.5, 2, 3]), atol=0)
    assert straight[0, 3] == pytest.approx(20e-6)  # right in the middle, 2e-5 voxel astray at the ends
    assert straightened(matrix, (11, 141, 11))[1] is False


def test_grids_that_agree():
    grid = VoxelGrid((10, 20, 30), AFFINE)
    near = AFFINE.copy()
    near[0, 3] += 1e-3
    assert grid.agrees(VoxelGrid((10, 20, 30), near))
    near[0, 3] += 2e-3
    assert not grid.agrees(VoxelGrid((10, 20, 30), near))
    assert not grid.agrees(VoxelGrid((10, 20, 31), AFFINE))


def test_whether_any_voxel_of_a_grid_lies_in_another():
    """Against all voxels, one by one: small grids at odd angles about the border of the source."""
    rng, found = generator(0), []
    for _ in range(600):
        matrix = np.eye(4)
        matrix[:3, :3] = rng.normal(size=(3, 3)) * rng.uniform(0.2, 4)
        if rng.random() < 0.3:
            matrix[:3, 2] = 0, 0, 1  # along K nothing changes over I and J
        matrix[:3, 3] = rng.uniform(-2, 5, 3)
        shape, source = (int(n) for n in rng.integers(1, 5, 3)), (4, 5, 3)
        i, j, k = shape
        points = matrix[:3, :3] @ np.indices((i, j, k)).reshape(3, -1) + matrix[:3, 3:]
        beyond = np.maximum(-0.5 - points, points - np.array([[3.5], [4.5], [2.5]])).max(axis=0).min()
        if abs(beyond) > 0.002:  # a thousandth of a voxel is given
            found.append(reaches(matrix, (i, j, k), source))
            assert found[-1] == (beyond < 0)
    assert 100 < sum(found) < len(found) - 100
