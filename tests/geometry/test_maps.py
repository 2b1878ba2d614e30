import numpy as np

from patchflow.geometry.location import PatchLocation
from patchflow.geometry.maps import Copy, SpatialMap, about

ANCHOR = (4.5, 7.0, 2.5)


def test_about_leaves_the_anchor_in_place():
    matrix = about(ANCHOR, np.array([[0.9, 0.1, 0], [-0.1, 0.9, 0.2], [0, 0.3, 1.1]]))
    np.testing.assert_allclose(matrix @ [*ANCHOR, 1], [*ANCHOR, 1], atol=1e-14)
    np.testing.assert_allclose(about(ANCHOR, np.eye(3), (1, -2, 0.5)) @ [*ANCHOR, 1], [5.5, 5, 3, 1], atol=1e-14)


def test_maps_compose_in_list_order():
    shift, scale = SpatialMap.affine(about(ANCHOR, np.eye(3), (3, 0, 0))), SpatialMap.affine(about((0, 0, 0), np.diag([2.0, 1, 1])))
    # first shifted, then scaled: an output voxel goes back through the scaling, then through the shift
    np.testing.assert_allclose(shift.then(scale).matrix @ [5, 1, 1, 1], [13, 1, 1, 1])
    np.testing.assert_allclose(scale.then(shift).matrix @ [5, 1, 1, 1], [16, 1, 1, 1])


def test_a_mirror_is_a_copy_of_the_mirrored_location():
    flip = SpatialMap.affine(about((5.5, 1.0, 2.0), np.diag([-1.0, 1, 1])))
    assert flip.as_copy(PatchLocation((2, 0, 0), (8, 3, 5))) == Copy(PatchLocation((2, 0, 0), (8, 3, 5)), (True, False, False))
    assert flip.as_copy(PatchLocation((0, 0, 0), (3, 3, 5))) == Copy(PatchLocation((9, 0, 0), (3, 3, 5)), (True, False, False))


def test_whole_voxel_shifts_are_copies_and_nothing_else_is():
    location = PatchLocation((2, 0, 0), (8, 3, 5))
    shift = SpatialMap.affine(about(ANCHOR, np.eye(3), (3, 0, -1)))
    assert shift.as_copy(location) == Copy(PatchLocation((5, 0, -1), (8, 3, 5)), (False, False, False))
    for linear, move in [(np.eye(3), (0.5, 0, 0)), (np.diag([1.0, 1.0000001, 1]), (0, 0, 0)), (np.eye(3)[[1, 0, 2]], (0, 0, 0))]:
        assert SpatialMap.affine(about((0, 0, 0), linear, move)).as_copy(location) is None
