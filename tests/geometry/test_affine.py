import numpy as np

from patchflow.geometry.affine import spacing


def test_spacing_is_the_step_of_each_voxel_axis_whatever_the_rotation() -> None:
    turn = np.deg2rad(30)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([0.5, 2.0, -3.0])
    affine[:3, 3] = 100, -20, 7
    np.testing.assert_allclose(spacing(affine), [0.5, 2.0, 3.0], rtol=1e-15)


def test_spacing_takes_columns_not_rows() -> None:
    affine = [[0, 4, 0, 0], [1, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]  # step along I is 1 mm along A, step along J is 4 mm along R
    assert spacing(affine).tolist() == [1.0, 4.0, 2.0]
    assert spacing(affine).dtype == np.float64
