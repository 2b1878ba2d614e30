import math

import numpy as np
import pytest

from patchflow import seeding
from patchflow.augment import RandomAffine, RandomFlip, Recipe
from patchflow.augment.base import Context
from patchflow.augment.spatial import euler
from patchflow.errors import ArgumentError
from patchflow.geometry.location import PatchLocation, whole

ANCHOR = (10.0, 20.0, 30.0)


def context(spacing=(1.0, 1.0, 1.0)):
    return Context("s1", whole((21, 41, 61)), (21, 41, 61), spacing, {}, ANCHOR)


def moved(transform, parameters, millimetres, spacing=(1.0, 1.0, 1.0)):
    """Where a point of the anatomy, in millimetres from the anchor, goes: the inverse of the map from output to source."""
    matrix = transform.matrix(parameters, context(spacing))
    voxel = np.array(ANCHOR) + np.array(millimetres) / spacing
    return (np.linalg.solve(matrix, [*voxel, 1])[:3] - ANCHOR) * spacing


def affine(scales=(1.0, 1.0, 1.0), degrees=(0.0, 0.0, 0.0), translation=(0.0, 0.0, 0.0)):
    return {"scales": list(scales), "degrees": list(degrees), "translation": list(translation)}


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
        ({"scales": (0.1, 0.2, 0.1), "isotropic": True}, "isotropic"),
        ({"p": 1.5}, "0 to 1"),
        ({"image_interpolation": "cubic"}, "image_interpolation"),
        ({"label_interpolation": "linear"}, "label_interpolation"),
        ({"keys": "image"}, "list of image names"),
    ],
)
def test_bad_arguments_are_refused_when_the_transform_is_made(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        RandomAffine(**arguments)
