import math

import numpy as np
import pytest

from patchflow import seeding
from patchflow.augment import RandomAffine, RandomAnisotropy, RandomElastic, RandomFlip, Recipe, Reciprocal
from patchflow.augment.base import Context
from patchflow.augment.spatial import euler
from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation, whole
from patchflow.kernels.displacement import FOLD_BOUND

ANCHOR = (10.0, 20.0, 30.0)


def context(spacing=(1.0, 1.0, 1.0)):
    return Context("s1", whole((21, 41, 61)), (21, 41, 61), spacing, {}, ANCHOR)


def moved(transform, parameters, millimetres, spacing=(1.0, 1.0, 1.0)):
    """Where a point of the anatomy, in millimetres from the anchor, goes: the inverse of the map from output to source."""
    matrix = transform.map(parameters, context(spacing))
    voxel = np.array(ANCHOR) + np.array(millimetres) / spacing
    return (np.linalg.solve(matrix, [*voxel, 1])[:3] - ANCHOR) * spacing


def affine(scales=(1.0, 1.0, 1.0), degrees=(0.0, 0.0, 0.0), translation=(0.0, 0.0, 0.0), shear=(0.0, 0.0, 0.0)):
    return {"scales": list(scales), "degrees": list(degrees), "translation": list(translation), "shear": list(shear)}


def test_flip_copies_the_mirrored_voxels(make_entry):
    entry, location = make_entry((9, 10, 11)), PatchLocation((1, 2, 3), (5, 6, 7))
    plain = Recipe([]).apply(entry, location, Recipe([]).draw(seeding.generator(0), entry, location))
    for axes in [(0,), (1,), (2,), (0, 2), (0, 1, 2)]:
        recipe = Recipe([RandomFlip(axes, p=1)])
        flipped = recipe.apply(entry, location, recipe.draw(seeding.generator(0), entry, location))
        for name in ("image", "label"):
            assert flipped[name].equal(plain[name].flip([axis + 1 for axis in axes]))
            assert flipped[name].is_contiguous()


def test_each_axis_is_flipped_with_its_own_probability():
    rng, flip = seeding.generator(0), RandomFlip((0, 2), p=0.3)
    drawn = [flip.draw(rng, context()) or {"axes": []} for _ in range(4000)]
    counts = [sum(axis in draw["axes"] for draw in drawn) for axis in range(3)]
    both = sum(draw["axes"] == [0, 2] for draw in drawn)
    sigma = math.sqrt(4000 * 0.3 * 0.7)
    assert abs(counts[0] - 1200) < 4 * sigma
    assert counts[1] == 0
    assert abs(counts[2] - 1200) < 4 * sigma
    assert abs(both - 360) < 4 * math.sqrt(4000 * 0.09 * 0.91)


@pytest.mark.parametrize("axes", [3, -1, (0, 0), (), "LR", (0, 1.5), True, None])
def test_bad_axes(axes):
    with pytest.raises(ArgumentError, match="axes"):
        RandomFlip(axes)


def test_a_scale_above_one_enlarges():
    np.testing.assert_allclose(moved(RandomAffine(), affine(scales=(1.1, 2, 0.5)), (10, 10, 10)), (11, 20, 5), atol=1e-9)


@pytest.mark.parametrize(
    ("degrees", "point", "expected"),
    [((90, 0, 0), (0, 1, 0), (0, 0, 1)), ((0, 90, 0), (0, 0, 1), (1, 0, 0)), ((0, 0, 90), (1, 0, 0), (0, 1, 0))],
)
def test_rotations_are_right_handed_about_i_j_and_k(degrees, point, expected):
    np.testing.assert_allclose(moved(RandomAffine(), affine(degrees=degrees), point), expected, atol=1e-9)


def test_rotation_about_j_comes_first_then_i_then_k():
    about_i, about_j, about_k = (euler([value if axis == n else 0 for n in range(3)]) for axis, value in enumerate((20, 30, 40)))
    np.testing.assert_allclose(euler((20, 30, 40)), about_k @ about_i @ about_j, atol=1e-12)


def test_rotated_then_shifted_then_scaled():
    parameters = affine((2, 1, 1), (0, 0, 90), (5, 7, 0))
    np.testing.assert_allclose(moved(RandomAffine(), parameters, (1, 0, 0)), (2 * (0 + 5), 1 + 7, 0), atol=1e-9)


def test_a_rotation_is_one_of_millimetres():
    """A 5:1 anisotropic volume keeps its lengths in millimetres, which turning voxel coordinates would not."""
    spacing = (1.0, 1.0, 5.0)
    transform, parameters = RandomAffine(), affine(degrees=(30, -20, 50))
    for point in np.eye(3) * 10:
        after = moved(transform, parameters, point, spacing)
        np.testing.assert_allclose(np.linalg.norm(after), 10, atol=1e-9)
        np.testing.assert_allclose(after, euler((30, -20, 50)) @ point, atol=1e-9)
    np.testing.assert_allclose(moved(transform, affine(translation=(0, 0, 10)), (0, 0, 0), spacing), (0, 0, 10), atol=1e-9)


def test_a_shear_leans_one_axis_towards_another_in_millimetres():
    parameters = affine(shear=(45, 0, 0))
    np.testing.assert_allclose(moved(RandomAffine(), parameters, (0, 10, 0)), (10, 10, 0), atol=1e-9)
    np.testing.assert_allclose(moved(RandomAffine(), parameters, (10, 0, 0)), (10, 0, 0), atol=1e-9)
    slanted = affine(shear=(0, -30, 20))
    tangents = np.tan(np.radians((-30, 20)))
    np.testing.assert_allclose(moved(RandomAffine(), slanted, (0, 0, 10), (1, 2, 5)), (10 * tangents[0], 10 * tangents[1], 10), atol=1e-9)
    three = affine(shear=(10, 20, 30), degrees=(0, 0, 90), scales=(2, 1, 1))
    a, b, c = np.tan(np.radians((10, 20, 30)))
    sheared = np.array([[1, a, b], [0, 1, c], [0, 0, 1]]) @ (1, 2, 3)
    np.testing.assert_allclose(moved(RandomAffine(), three, (1, 2, 3)), (-2 * sheared[1], sheared[0], sheared[2]), atol=1e-9)


def test_same_composition_as_torchio():
    """Where TorchIO 1.2's `Affine` takes four points of a RAS+ image centred on 0, noted once."""
    parameters = affine((1.2, 0.9, 1.1), (10, -20, 30), (4, -5, 6))
    expected = [
        [4.8, -4.5, 6.6],
        [14.9219192, -0.7342916, 10.305065],
        [-1.1088465, 3.1758168, 8.51013],
        [2.2246779, -7.310921, 16.7795824],
    ]
    got = np.array([moved(RandomAffine(), parameters, point) for point in ((0, 0, 0), (10, 0, 0), (0, 10, 0), (0, 0, 10))])
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_draws_lie_in_the_ranges_and_isotropic_draws_one_scale():
    rng = seeding.generator(0)
    drawn = [RandomAffine((0.5, 1, 1, 2, 0.9, 0.9), (1, 2, 3), (0, 5)).draw(rng, context()) for _ in range(300)]
    scales, degrees, shifts = (np.array([draw[name] for draw in drawn]) for name in ("scales", "degrees", "translation"))
    np.testing.assert_allclose(scales.min(axis=0), [0.5, 1, 0.9], atol=0.02)
    np.testing.assert_allclose(scales.max(axis=0), [1, 2, 0.9], atol=0.02)
    np.testing.assert_allclose(degrees.min(axis=0), [-1, -2, -3], atol=0.1)
    np.testing.assert_allclose(degrees.max(axis=0), [1, 2, 3], atol=0.1)
    assert shifts.min() >= 0
    assert shifts.max() <= 5
    one = RandomAffine(0.2, isotropic=True).draw(rng, context())["scales"]
    assert one[0] == one[1] == one[2] != 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": (1.2, 0.8)}, "wrong way round"),
        ({"scales": 0, "degrees": (5, -5)}, "wrong way round"),
        ({"scales": (0, 1)}, "above 0"),
        ({"shear": 85}, "at least -80"),
        ({"p": 1.5}, "0 to 1"),
        ({"keys": "image"}, "list of image names"),
    ],
)
def test_bad_arguments_are_refused_when_the_transform_is_made(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        RandomAffine(**arguments)


def test_isotropic_shares_one_draw_between_ranges():
    rng = seeding.generator(0)
    in_plane = RandomAffine((1, 1, 0.7, 1.4, 0.7, 1.4), 0, isotropic=True)
    scales = np.array([in_plane.draw(rng, context())["scales"] for _ in range(100)])
    assert (scales[:, 0] == 1).all()
    assert (scales[:, 1] == scales[:, 2]).all()
    assert scales[:, 1].std() > 0.1


def test_scales_drawn_by_their_reciprocal():
    rng = seeding.generator(0)
    drawn = 1 / np.array([RandomAffine(Reciprocal(0.5, 2), 0).draw(rng, context())["scales"] for _ in range(1500)])
    assert abs(drawn.mean() - 1.25) < 0.03  # uniform between 0.5 and 2
    assert abs((drawn < 0.875).mean() - 0.25) < 0.03


def test_elastic_displacements_are_millimetres():
    elastic = RandomElastic((40, 40, 20), (0, 6))
    parameters = {"max_displacement": [6.0, 6.0, 6.0], "key": 5}
    (stage,) = elastic.map(parameters, context((1, 2, 4))).stages
    assert stage.spacing == (40, 20, 5)
    assert stage.amplitude == (6, 3, 1.5)
    assert stage.origin == ANCHOR
    drawn = np.array([elastic.draw(seeding.generator(n), context())["max_displacement"] for n in range(200)])
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert drawn.min() < 0.2
    assert drawn.max() > 5.8
    assert RandomElastic(40, 5).draw(seeding.generator(0), context())["max_displacement"] == [5, 5, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 10 / FOLD_BOUND), "may fold"),
        ((20, (0, 9)), "may fold"),
        (((40, 40, 10), 5), "may fold.*10 mm apart"),
        ((32, (-1, 5)), "at least 0"),
        ((32, (5, 1)), "wrong way round"),
        ((0, 0), "control_spacing must be above 0"),
    ],
)
def test_elastic_maps_that_could_fold_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        RandomElastic(*arguments)


def test_anisotropy_takes_scalars_only_unless_told(make_entry):
    entry, location = make_entry((12, 14, 16)), PatchLocation((2, 2, 2), (8, 9, 10))
    recipe, plain = Recipe([RandomAnisotropy(2, (3, 3))]), Recipe([])
    parameters = recipe.draw(seeding.generator(0), entry, location)
    assert parameters["steps"][0]["parameters"] == {"axis": 2, "downsampling": 3}
    made = recipe.apply(entry, location, parameters)
    before = plain.apply(entry, location, plain.draw(seeding.generator(0), entry, location))
    assert made["label"].equal(before["label"])
    # Samples lie 3 voxels apart from the patch's centre, at 6.5 in the volume, on: at 3.5, 6.5 and 9.5, each between two voxels.
    whole_image = plain.apply(entry, whole(entry.shape), parameters | {"steps": []})["image"][0, 2:10, 2:11].numpy()
    at = {position: (whole_image[..., int(position)] + whole_image[..., int(position) + 1]) / 2 for position in (3.5, 6.5, 9.5)}
    for k in range(2, 10):
        low, high = (3.5, 6.5) if 3.5 <= k < 6.5 else (6.5, 9.5)
        if low <= k <= high:
            expected = at[low] + (k - low) / 3 * (at[high] - at[low])
            np.testing.assert_allclose(made["image"][0, ..., k - 2].numpy(), expected, atol=1e-4)
    both = Recipe([RandomAnisotropy(2, (3, 3), keys=["image", "label"])])
    coarse = both.apply(entry, location, both.draw(seeding.generator(0), entry, location))["label"]
    assert len({coarse[0, ..., k].numpy().tobytes() for k in range(10)}) <= 5


@pytest.mark.parametrize("downsampling", [0.5, (0.9, 2), (3, 2), "2"])
def test_bad_downsampling(downsampling):
    with pytest.raises(ArgumentError, match="downsampling"):
        RandomAnisotropy(0, downsampling)
