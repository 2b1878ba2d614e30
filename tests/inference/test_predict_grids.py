"""Predictions brought to the grid of the original, held against fields that are known in world coordinates, and against scipy."""

import nibabel as nib
import nibabel.processing
import numpy as np
import pytest
import torch
from plain_stitching import softmax
from scipy.ndimage import map_coordinates
from written_files import read

import patchflow as pf
from patchflow.geometry.space import VoxelGrid

SHAPE = (23, 19, 17)
TURN = np.array([[0.3, -0.94, 0.16], [0.93, 0.32, 0.18], [-0.22, 0.09, 0.97]])
TURN = np.linalg.qr(TURN)[0] * np.sign(np.diag(np.linalg.qr(TURN)[1]))  # a rotation by odd angles
OBLIQUE = nib.affines.from_matvec(TURN @ np.diag([1.1, -1.6, 1.9]), [-12.3, 40.1, -7.7])  # I and J swapped but for some degrees, J flipped
FLIPPED = nib.affines.from_matvec(np.array([[0, 0, -2.0], [1.3, 0, 0], [0, -1.7, 0]]), [30, -20.5, 11])  # permuted, flipped
CENTRE = {"oblique": OBLIQUE @ [11, 9, 8, 1], "flipped": FLIPPED @ [11, 9, 8, 1]}
AFFINES = {"oblique": OBLIQUE, "flipped": FLIPPED}
OPTIONS = {"patch_size": (8, 9, 10), "overlap_mode": "gaussian", "progress": False}


def derived(how: str, affine: np.ndarray) -> tuple[tuple[int, int, int], np.ndarray]:
    """The grid of what preprocessing made of a native image, by nibabel's own means."""
    native = nib.Nifti1Image(np.zeros(SHAPE, np.float32), affine)
    if how == "canonical":
        made = nib.as_closest_canonical(native)
    elif how == "resampled":
        made = nibabel.processing.resample_to_output(native, (1.4, 1.25, 2.3), order=0)
    elif how == "cropped":
        made = native.slicer[4:19, 3:, :11]
    else:
        made = nibabel.processing.resample_to_output(native, 1.5, order=0).slicer[5:-6, 6:-4, 4:-5]
    return made.shape, made.affine


DERIVED = ["canonical", "resampled", "cropped", "resampled and cropped"]


def world(shape, affine) -> np.ndarray:
    """Millimetres of all voxel centres, (3, I, J, K)."""
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return np.moveaxis(nib.affines.apply_affine(affine, voxels), -1, 0)


def inside(shape, affine, margin: float = 0) -> np.ndarray:
    """Which native voxel centres lie within a grid's voxel centres, and its places of them, (3, I, J, K)."""
    places = np.moveaxis(nib.affines.apply_affine(np.linalg.inv(affine[0]) @ affine[1], np.moveaxis(world(SHAPE, np.eye(4)), 0, -1)), -1, 0)
    ends = np.array(shape)[:, None, None, None] - 1
    return ((places >= -margin) & (places <= ends + margin)).all(0), places


def ramp(x: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return (0.5 + np.tensordot([0.011, -0.017, 0.008], x - centre[:3, None, None, None], 1)).astype(np.float32)


def sphere(x: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Millimetres to the surface of a ball of 9 mm, positive inside."""
    return (9 - np.linalg.norm(x - centre[:3, None, None, None], axis=0)).astype(np.float32)


def source_of(field, how: str, name: str) -> tuple[pf.Subject, tuple[int, int, int], np.ndarray]:
    shape, affine = derived(how, AFFINES[name])
    return pf.Subject("s", image=pf.ScalarImage(field(world(shape, affine), CENTRE[name]), affine)), shape, affine


def identity(x: torch.Tensor) -> torch.Tensor:
    return x


def within(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([-x, x], 1)


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("how", DERIVED)
@pytest.mark.parametrize("ending", [".nii.gz", ".h5"])
def test_a_ramp_comes_back_exactly(tmp_path, name: str, how: str, ending: str) -> None:
    subject, shape, affine = source_of(ramp, how, name)
    path = pf.predict(identity, subject, output="logits", grid=VoxelGrid(SHAPE, AFFINES[name]), path=tmp_path / f"r{ending}", **OPTIONS)
    found = read(path)
    assert found.shape == (1, *SHAPE)
    shown = inside(shape, (affine, AFFINES[name]), 1e-6)[0]
    assert shown.mean() > 0.15
    np.testing.assert_allclose(found[0][shown], ramp(world(SHAPE, AFFINES[name]), CENTRE[name])[shown], rtol=0, atol=1e-5)
    beyond = ~inside(shape, (affine, AFFINES[name]), 0.5 + 1e-3)[0]
    assert (found[0][beyond] == 0).all()


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("how", DERIVED)
def test_the_file_overlays_the_original(tmp_path, name: str, how: str) -> None:
    native = nib.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINES[name])
    nib.save(native, tmp_path / "native.nii.gz")
    subject, shape, affine = source_of(sphere, how, name)
    path = pf.predict(within, subject, grid=tmp_path / "native.nii.gz", path=tmp_path / "labels.nii.gz", **OPTIONS)
    written = nib.load(path)
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_allclose(written.affine, nib.load(tmp_path / "native.nii.gz").affine, rtol=0, atol=1e-6)
    found = np.asarray(written.dataobj)
    depth = sphere(world(written.shape, written.affine), CENTRE[name])
    shown = inside(shape, (affine, AFFINES[name]))[0]
    clear = shown & (np.abs(depth) > np.linalg.norm(affine[:3, :3], axis=0).max() / 2)
    np.testing.assert_array_equal(found[clear], depth[clear] > 0)
    assert found.max() == 1
    assert (found[~inside(shape, (affine, AFFINES[name]), 0.5 + 1e-3)[0]] == 0).all()


def three(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([2 * x.sin(), x * 1.5, 1 - x**2], 1)


def interpolated(volume: np.ndarray, places: np.ndarray, shape, fill) -> np.ndarray:
    """Trilinear by scipy, (C, I, J, K), and the fill half a voxel outside."""
    values = np.stack([map_coordinates(channel.astype(np.float64), places, order=1, mode="nearest") for channel in volume])
    outside = (places < -0.5).any(0) | (places > np.array(shape)[:, None, None, None] - 0.5).any(0)
    return np.where(outside, np.reshape(fill, (-1, 1, 1, 1)), values)


def noise(x: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).normal(size=x.shape[1:]).astype(np.float32)


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("how", DERIVED)
@pytest.mark.parametrize("masked", [False, True])
def test_probabilities_are_interpolated_before_the_arg_max(name: str, how: str, masked: bool) -> None:
    subject, shape, affine = source_of(noise, how, name)
    mask = np.zeros(shape, bool)
    mask[1, 2, 3] = True
    options = OPTIONS | {"mask": mask if masked else None}
    stitched = pf.predict(three, subject, output="probabilities", **options).numpy()
    assert (stitched[0] == 1).any() == masked
    _, places = inside(shape, (affine, AFFINES[name]))
    expected = interpolated(stitched, places, shape, [1, 0, 0])
    grid = VoxelGrid(SHAPE, AFFINES[name])
    found = pf.predict(three, subject, output="probabilities", grid=grid, **options).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    labels = pf.predict(three, subject, grid=grid, **options).numpy()
    ordered = np.sort(expected, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels[0][clear], expected.argmax(0)[clear])


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_regions_are_thresholded_after_interpolation(average: str) -> None:
    subject, shape, affine = source_of(noise, "resampled and cropped", "oblique")
    stitched = pf.predict(three, subject, output="probabilities", activation="sigmoid", average=average, **OPTIONS).numpy()
    _, places = inside(shape, (affine, OBLIQUE))
    expected = interpolated(stitched, places, shape, [0, 0, 0])
    assert (expected == 0).any()
    options = {"activation": "sigmoid", "average": average, "grid": VoxelGrid(SHAPE, OBLIQUE), **OPTIONS}
    np.testing.assert_allclose(pf.predict(three, subject, output="probabilities", **options).numpy(), expected, rtol=0, atol=2e-5)
    found = pf.predict(three, subject, **options).numpy()
    assert found.dtype == np.uint8
    clear = np.abs(expected - 0.5) > 1e-4
    np.testing.assert_array_equal(found[clear], expected[clear] > 0.5)


def steps(slab: torch.Tensor) -> torch.Tensor:
    return torch.cat([slab.mul(3).round(), slab.abs().mul(5).floor()]).to(torch.int16)


@pytest.mark.parametrize("how", ["resampled", "resampled and cropped"])
def test_integers_take_the_nearest_voxel(how: str) -> None:
    subject, shape, affine = source_of(noise, how, "oblique")
    options = OPTIONS | {"overlap_mode": "crop", "grid": VoxelGrid(SHAPE, OBLIQUE)}
    shown, places = inside(shape, (affine, OBLIQUE), 0.5)
    nearest = np.clip(np.rint(places).astype(int), 0, np.array(shape)[:, None, None, None] - 1)
    clear = (np.abs(places - np.floor(places) - 0.5) > 1e-3).all(0)
    expected = steps(torch.from_numpy(subject["image"].data)).numpy()[(slice(None), *nearest)] * shown
    of_the_model = pf.predict(lambda x: steps(x.transpose(0, 1)).transpose(0, 1), subject, **options).numpy()  # (1, 2, ...) of (1, 1, ...)
    of_a_function = pf.predict(identity, subject, output=steps, **options).numpy()
    for found in (of_the_model, of_a_function):
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found[:, clear], expected[:, clear])


def test_a_function_s_floats_are_interpolated_and_bfloat16_becomes_float32() -> None:
    subject, shape, affine = source_of(noise, "resampled", "oblique")
    _, places = inside(shape, (affine, OBLIQUE))
    expected = interpolated(softmax(three(torch.from_numpy(subject["image"].data[None]))[0].numpy()), places, shape, [0, 0, 0])
    for dtype, error in ((torch.float64, 2e-5), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)):
        found = pf.predict(
            three, subject, output=lambda slab, to=dtype: torch.softmax(slab, 0).to(to), grid=VoxelGrid(SHAPE, OBLIQUE), **OPTIONS
        )
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=error)


@pytest.mark.parametrize("scale", [0.5, 2])
def test_outputs_of_other_resolutions_come_to_the_same_grid(scale: float) -> None:
    subject, shape, affine = source_of(ramp, "resampled", "oblique")

    def model(x: torch.Tensor) -> torch.Tensor:
        if scale == 0.5:
            return torch.nn.functional.avg_pool3d(x, 2)
        slopes = torch.tensor(np.array([0.011, -0.017, 0.008]) @ affine[:3, :3]).float()
        fine = x.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
        quarters = [torch.tensor([-0.25, 0.25]).repeat(n) for n in x.shape[2:]]
        i, j, k = (slope * quarter for slope, quarter in zip(slopes, quarters, strict=True))
        return fine + i[:, None, None] + j[:, None] + k

    options = OPTIONS | {"patch_size": 8, "outside": "border"}
    found = pf.predict(model, subject, output="logits", scale=scale, grid=VoxelGrid(SHAPE, OBLIQUE), **options).numpy()[0]
    shown = inside([n // 2 * 2 for n in shape], (affine, OBLIQUE), -0.5)[0]  # within the centres of whole pairs of voxels
    assert shown.mean() > 0.8
    np.testing.assert_allclose(found[shown], ramp(world(SHAPE, OBLIQUE), CENTRE["oblique"])[shown], rtol=0, atol=1e-5)


def test_a_grid_may_be_given_in_five_ways(tmp_path) -> None:
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), OBLIQUE), tmp_path / "native.nii")
    image = pf.LabelMap(tmp_path / "native.nii")
    original = pf.Subject("native", image=pf.ScalarImage(np.zeros(SHAPE, np.float32), image.affine))
    entry = pf.build_cache([original], tmp_path / "cache", progress=False)[0]
    subject, _, _ = source_of(noise, "resampled", "oblique")
    expected = pf.predict(three, subject, grid=VoxelGrid(SHAPE, image.affine), **OPTIONS)
    for grid in (tmp_path / "native.nii", str(tmp_path / "native.nii"), image, original, entry):
        assert torch.equal(pf.predict(three, subject, grid=grid, **OPTIONS), expected)


def test_a_cache_of_resampled_files_is_written_over_the_originals(tmp_path) -> None:
    native = nib.Nifti1Image(sphere(world(SHAPE, OBLIQUE), CENTRE["oblique"]), OBLIQUE)
    nib.save(native, tmp_path / "native.nii.gz")
    nib.save(nibabel.processing.resample_to_output(native, 1.3, order=1, cval=-30), tmp_path / "resampled.nii.gz")
    subject = pf.Subject("s", image=pf.ScalarImage(tmp_path / "resampled.nii.gz"))
    entry = pf.build_cache([subject], tmp_path / "cache", progress=False)[0]
    original = pf.Subject("s", image=pf.ScalarImage(tmp_path / "native.nii.gz"))
    path = pf.predict(within, entry, grid=original, path=tmp_path / "labels.nii.gz", **OPTIONS)
    np.testing.assert_allclose(nib.load(path).affine, nib.load(tmp_path / "native.nii.gz").affine, rtol=0, atol=1e-6)
    found, depth = np.asarray(nib.load(path).dataobj), native.get_fdata()
    clear = np.abs(depth) > 1
    np.testing.assert_array_equal(found[clear], depth[clear] > 0)


def test_a_grid_far_from_the_source_is_background() -> None:
    grid = VoxelGrid((4, 5, 6), nib.affines.from_matvec(np.eye(3), [1000, 0, 0]))
    subject, _, _ = source_of(noise, "resampled", "oblique")
    found = pf.predict(three, subject, output="probabilities", grid=grid, **OPTIONS)
    np.testing.assert_array_equal(found.numpy(), np.eye(3)[0].reshape(3, 1, 1, 1) * np.ones((1, 4, 5, 6)))
    assert pf.predict(three, subject, grid=grid, **OPTIONS).eq(0).all()
