"""Turning and resampling agree with nibabel and scipy, and whatever is done, voxels stay where they are in space."""

import itertools
from pathlib import Path

import nibabel as nib
import nibabel.processing
import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st

import patchflow as pf
from patchflow.errors import ArgumentError, ImageError
from patchflow.geometry.space import VoxelGrid
from patchflow.images.volume import Volume
from patchflow.preprocess import CropOrPad, EnsureMultiple, Pad, Resample, ToCanonical
from patchflow.seeding import generator

OBLIQUE = np.array([[-1.9, 0.2, 0.1, 40.0], [0.3, 0.1, 2.9, -33.0], [0.1, 1.4, 0.2, -20.0], [0, 0, 0, 1]])


def smooth(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return ndi.gaussian_filter(generator(seed).normal(size=shape), 1.5).astype(np.float32) * 100


def run(step, image: np.ndarray, affine: np.ndarray, label: np.ndarray | None = None) -> dict[str, Volume]:
    images = {"image": pf.ScalarImage(image, affine=affine)}
    if label is not None:
        images["label"] = pf.LabelMap(label, affine=affine)
    return pf.Pipeline([step] if not isinstance(step, list) else step).run(pf.Subject("s1", **images))


class TestToCanonical:
    @pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
    @pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
    def test_all_48_ways_are_nibabels(self, axes: tuple, signs: tuple) -> None:
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[list(axes)] * signs @ np.diag([1.0, 2.5, 4.0])
        affine[:3, 3] = 7, -8, 9
        image = np.arange(2 * 5 * 6 * 7, dtype=np.int16).reshape(2, 5, 6, 7)
        found = run(ToCanonical(), image, affine)["image"]
        expected = nib.as_closest_canonical(nib.Nifti1Image(np.moveaxis(image, 0, -1), affine))
        np.testing.assert_array_equal(found.array, np.moveaxis(np.asanyarray(expected.dataobj), -1, 0))
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-12)
        assert found.array.dtype == np.int16
        assert found.array.flags.c_contiguous

    def test_oblique_volumes_and_label_maps(self) -> None:
        image, label = smooth((9, 8, 7)), generator(1).integers(0, 4, (9, 8, 7)).astype(np.uint8)
        found = run(ToCanonical(), image, OBLIQUE, label)
        for key, array in (("image", image), ("label", label)):
            expected = nib.as_closest_canonical(nib.Nifti1Image(array, OBLIQUE))
            np.testing.assert_array_equal(found[key].array[0], np.asanyarray(expected.dataobj))
            np.testing.assert_allclose(found[key].affine, expected.affine, atol=1e-12)

    def test_nothing_moves_where_nothing_needs_to(self) -> None:
        image = smooth((4, 5, 6))
        assert np.shares_memory(run(ToCanonical(), image, np.eye(4))["image"].array, image)

    def test_larger_volumes(self) -> None:
        image = generator(2).integers(0, 255, (70, 65, 90)).astype(np.uint8)
        for axes in itertools.permutations(range(3)):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[list(axes)] * (-1, 1, -1)
            expected = nib.as_closest_canonical(nib.Nifti1Image(image, affine))
            np.testing.assert_array_equal(run(ToCanonical(), image, affine)["image"].array[0], np.asanyarray(expected.dataobj))


def nibabels(image: np.ndarray, affine: np.ndarray, shape: tuple, target: np.ndarray, order: int) -> np.ndarray:
    return np.asanyarray(
        nib.processing.resample_from_to(nib.Nifti1Image(image, affine), (shape, target), order=order, mode="constant", cval=0).dataobj
    )


def inside(grid: VoxelGrid, target: VoxelGrid, by: float = 0) -> np.ndarray:
    """Which voxels of the target lie between the outermost voxel centres of the grid, further than `by` voxels from them."""
    voxels = np.indices(target.shape).reshape(3, -1)
    points = (np.linalg.solve(grid.affine, target.affine) @ np.vstack([voxels, np.ones(voxels.shape[1])]))[:3]
    fine = (points >= by) & (points <= np.array(grid.shape)[:, None] - 1 - by)
    return fine.all(axis=0).reshape(target.shape)


class TestResample:
    @pytest.mark.parametrize(("spacing", "shape"), [(1.5, (13, 12, 18)), ((3, 2, 2.5), (7, 9, 11)), (1.0, (20, 18, 27))])
    def test_the_grid(self, spacing: object, shape: tuple) -> None:
        """As many voxels as come nearest to the extent, about the same centre."""
        affine = np.diag([-2.0, 1.8, 3, 1])
        affine[:3, 3] = 50, 60, 70
        found = run(Resample(spacing=spacing), smooth((10, 10, 9)), affine)["image"]
        assert found.spatial_shape == shape
        np.testing.assert_allclose(np.abs(np.diag(found.affine)[:3]), spacing)
        centre = affine @ [4.5, 4.5, 4, 1]
        np.testing.assert_allclose(found.affine @ [*(np.array(shape) - 1) / 2, 1], centre, atol=1e-10)

    def test_a_shape_keeps_the_borders(self) -> None:
        found = run(Resample(shape=(5, 20, 9)), smooth((10, 10, 9)), np.diag([1.0, 2, 3, 1]))["image"]
        assert found.spatial_shape == (5, 20, 9)
        np.testing.assert_allclose(np.diag(found.affine)[:3], [2, 1, 3])
        np.testing.assert_allclose(found.affine @ [-0.5, -0.5, -0.5, 1], np.diag([1.0, 2, 3, 1]) @ [-0.5, -0.5, -0.5, 1], atol=1e-12)

    def test_axes_of_one_voxel_stay(self) -> None:
        found = run(Resample(spacing=0.5), smooth((10, 10, 1)), np.diag([1.0, 1, 5, 1]))["image"]
        assert found.spatial_shape == (20, 20, 1)
        np.testing.assert_allclose(np.diag(found.affine)[:3], [0.5, 0.5, 5])

    @pytest.mark.parametrize(("name", "order"), [("linear", 1), ("cubic", 3)])
    @pytest.mark.parametrize("affine", [np.diag([2.0, 1.8, 3, 1]), OBLIQUE], ids=["straight", "oblique"])
    def test_values_are_nibabels(self, name: str, order: int, affine: np.ndarray) -> None:
        """nibabel.processing.resample_from_to, to 1e-5 of the range, on the grid of the step."""
        image = smooth((30, 28, 26))
        found = run(Resample(spacing=1.4, image_interpolation=name, anti_alias=False), image, affine)["image"]
        grid = VoxelGrid((30, 28, 26), affine)
        expected = nibabels(image, affine, found.spatial_shape, found.affine, order)
        fine = inside(grid, VoxelGrid(found.spatial_shape, found.affine))
        assert fine.mean() > 0.8
        np.testing.assert_allclose(found.array[0][fine], expected[fine], atol=1e-5 * np.ptp(image))

    @pytest.mark.parametrize(("name", "order"), [("linear", 1), ("cubic", 3)])
    def test_like_is_nibabels(self, name: str, order: int, tmp_path: Path) -> None:
        image, target = smooth((20, 22, 24)), np.diag([1.5, 2, 2.5, 1])
        target[:3, 3] = -18, -30, -22
        nib.save(nib.Nifti1Image(np.zeros((40, 20, 25), np.uint8), target), tmp_path / "reference.nii.gz")
        step = Resample(like=tmp_path / "reference.nii.gz", image_interpolation=name, anti_alias=False, fill=-77)
        found = run(step, image, OBLIQUE)["image"]
        np.testing.assert_allclose(found.affine, target, atol=1e-9)
        grid = VoxelGrid((20, 22, 24), OBLIQUE)
        fine, far = inside(grid, VoxelGrid((40, 20, 25), target)), ~inside(grid, VoxelGrid((40, 20, 25), target), -0.501)
        expected = nibabels(image, OBLIQUE, (40, 20, 25), target, order)
        assert min(fine.sum(), far.sum()) > 1000
        np.testing.assert_allclose(found.array[0][fine], expected[fine], atol=1e-5 * np.ptp(image))
        assert (found.array[0][far] == -77).all()

    def test_conform(self) -> None:
        """nibabel.processing.conform, to 1e-5 of the range."""
        image = smooth((20, 22, 24))
        conformed = nib.processing.conform(nib.Nifti1Image(image, OBLIQUE), (32, 32, 32), (1.5, 1.5, 1.5), order=3)
        step = Resample(like=VoxelGrid(conformed.shape, conformed.affine), image_interpolation="cubic", anti_alias=False)
        found = run(step, image, OBLIQUE)["image"]
        fine = inside(VoxelGrid(image.shape, OBLIQUE), VoxelGrid(conformed.shape, conformed.affine))
        np.testing.assert_allclose(found.array[0][fine], np.asanyarray(conformed.dataobj)[fine], atol=1e-5 * np.ptp(image))

    def test_anti_aliasing_is_scipys_gaussian(self) -> None:
        """To 2e-4 of the range: what is beyond 4 standard deviations is cut."""
        image = generator(3).normal(size=(40, 36, 30)).astype(np.float32)
        found = run(Resample(spacing=(2.5, 1, 1.3)), image, np.eye(4))["image"]
        stds = [np.sqrt((k * k - 1) / (8 * np.log(2))) for k in (2.5, 1, 1.3)]
        smoothed = ndi.gaussian_filter(image.astype(np.float64), stds, mode="nearest", truncate=8)
        points = np.linalg.solve(np.eye(4), found.affine) @ np.vstack(
            [np.indices(found.spatial_shape).reshape(3, -1), np.ones(found.array.size)]
        )
        expected = ndi.map_coordinates(smoothed, points[:3], order=1, mode="nearest").reshape(found.spatial_shape)
        np.testing.assert_allclose(found.array[0], expected, atol=2e-4 * np.ptp(image))
        sharp = run(Resample(spacing=(2.5, 1, 1.3), anti_alias=False), image, np.eye(4))["image"]
        assert sharp.array.std() > 1.5 * found.array.std()

    @pytest.mark.parametrize("name", ["linear", "cubic"])
    def test_thick_slices_as_nnunet(self, name: str) -> None:
        """Slices one by one in their plane, and along the thick axis the nearest."""
        image, affine = smooth((16, 7, 14)), np.diag([1.0, 5, 1.2, 1])
        found = run(Resample(spacing=(0.8, 2, 0.8), image_interpolation=name, thick_ratio=3), image, affine)["image"]
        i, j, k = (
            (np.arange(m) + 0.5) * step - 0.5 + (n - m * step) / 2
            for n, m, step in zip(image.shape, found.spatial_shape, (0.8, 2 / 5, 0.8 / 1.2), strict=True)
        )
        places = np.clip(np.floor(j + 0.5).astype(int), 0, 6)
        plane = np.stack(np.meshgrid(i.clip(0, 15), k.clip(0, 13), indexing="ij"))
        slices = [
            ndi.map_coordinates(image[:, n].astype(np.float64), plane, order=1 if name == "linear" else 3, mode="mirror") for n in range(7)
        ]
        np.testing.assert_allclose(found.array[0], np.stack([slices[n] for n in places], axis=1), atol=1e-5 * np.ptp(image))

    def test_thick_slices_are_told_from_the_spacings(self) -> None:
        image, label = smooth((12, 12, 12)), generator(4).integers(0, 3, (12, 12, 12))
        for affine, separate in ((np.diag([1.0, 1, 2.9, 1]), False), (np.diag([1.0, 4, 4, 1]), False), (np.diag([4.0, 1, 1, 1]), True)):
            with_ratio, without = (run(Resample(spacing=0.9, thick_ratio=ratio), image, affine, label) for ratio in (3, None))
            assert (with_ratio["image"].array != without["image"].array).any() == separate
            np.testing.assert_array_equal(with_ratio["label"].array, without["label"].array)
        with pytest.raises(ImageError, match=r"subject 's1'.*not parallel"):
            run(Resample(like=VoxelGrid((9, 9, 9), OBLIQUE), thick_ratio=3), image, np.diag([4.0, 1, 1, 1]))

    def test_labels(self) -> None:
        """Nearest against scipy's order 0, and the arg-max of interpolated one-hot labels."""
        label = ndi.zoom(generator(5).integers(0, 4, (5, 5, 5)), 4, order=0).astype(np.uint8)
        for name in ("nearest", "linear"):
            found = run(Resample(spacing=0.83, label_interpolation=name), smooth(label.shape), np.eye(4), label)["label"]
            points = found.affine @ np.vstack([np.indices(found.spatial_shape).reshape(3, -1), np.ones(found.array.size)])
            points = points[:3].clip(0, 19)
            if name == "nearest":
                expected = ndi.map_coordinates(label, points, order=0)
            else:
                votes = [ndi.map_coordinates((label == n).astype(np.float64), points, order=1) for n in range(4)]
                expected = np.argmax(votes, axis=0)
            assert found.array.dtype == np.uint8
            assert (found.array.reshape(-1) == expected).mean() > 0.9995  # ties by rounding

    def test_dtypes_and_maps(self) -> None:
        stored = generator(6).integers(-1000, 1000, (9, 9, 9)).astype(np.int16)
        steps = [pf.preprocess.Window(0, 500, (0, 1))]
        nearest = run([*steps, Resample(spacing=0.7, image_interpolation="nearest")], stored, np.eye(4))["image"]
        assert nearest.array.dtype == np.int16
        assert nearest.values().max() == 1
        linear = run([*steps, Resample(spacing=0.7)], stored, np.eye(4))["image"]
        assert linear.array.dtype == np.float32
        first = run([pf.preprocess.Window(0, 500, (0, 1)), lambda d: d, Resample(spacing=0.7)], stored, np.eye(4))["image"]
        np.testing.assert_allclose(linear.array, first.array, atol=1e-6)  # limited first, then interpolated
        shifted = np.diag([1.0, 1, 1, 1])
        shifted[:3, 3] = 2, -1, 0
        moved = run(Resample(like=VoxelGrid((9, 9, 4), shifted), fill=5), stored, np.eye(4))["image"]
        assert moved.array.dtype == np.int16
        np.testing.assert_array_equal(moved.array[0, :7, 1:], stored[2:, :8, :4])
        assert (moved.array[0, 7:] == 5).all()
        assert (moved.array[0, :, 0] == 5).all()
        odd = run([*steps, Resample(like=VoxelGrid((9, 9, 4), shifted), fill=-3)], stored, np.eye(4))["image"]
        assert (odd.values()[0, 7:] == -3).all()
        np.testing.assert_array_equal(odd.values()[0, :7, 1:], np.clip(stored[2:, :8, :4] / 500 + 0.5, 0, 1).astype(np.float32))

    def test_several_channels(self) -> None:
        image = np.stack([smooth((8, 9, 10), 1), smooth((8, 9, 10), 2)])
        found = run(Resample(spacing=1.7), image, np.eye(4))["image"].array
        for n in range(2):
            np.testing.assert_array_equal(found[n], run(Resample(spacing=1.7), image[n], np.eye(4))["image"].array[0])

    def test_there_already(self) -> None:
        image = smooth((8, 9, 10))
        assert np.shares_memory(run(Resample(spacing=2), image, np.diag([2.0, 2, 2, 1]))["image"].array, image)

    def test_a_reference_elsewhere_is_refused(self) -> None:
        """One whose voxels all lie further than half a voxel from the image; one voxel within is enough."""
        image, target = smooth((8, 9, 10)), np.diag([1.0, 1, 1, 1])
        for shift, reaches in ((7.45, True), (7.55, False), (-4.45, True), (-4.55, False)):
            target[0, 3] = shift
            step = Resample(like=VoxelGrid((5, 6, 7), target.copy()), fill=-9, anti_alias=False)
            if reaches:
                assert (run(step, image, np.eye(4))["image"].array != -9).sum() == 6 * 7
                continue
            with pytest.raises(ImageError, match=r"subject 's1': no voxel of the reference.*\(3\.5, 4\.0, 4\.5\) and"):
                run(step, image, np.eye(4))
        between = VoxelGrid((2, 2, 1), np.diag([40.0, 40, 40, 1]) + np.array([[0, 0, 0, -20.0], [0, 0, 0, -20], [0] * 4, [0] * 4]))
        with pytest.raises(ImageError, match="no voxel of the reference"):  # around the image, with no voxel in it
            run(Resample(like=between), image, np.eye(4))

    def test_what_does_not_fit_into_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Refused before anything is allocated: a spacing in centimetres, say, and smoothing over a whole volume."""
        image, label = smooth((20, 20, 20)), np.ones((20, 20, 20), np.uint8)
        for step, makes in (
            (Resample(spacing=1e-4), r"Resample would make \(200000, 200000, 200000\) voxels of \(20, 20, 20\)"),
            (Resample(spacing=1e9), r"Resample would make \(1, 1, 1\)"),
            (Resample(like=VoxelGrid((10**6,) * 3, np.eye(4))), "Resample would make"),
            (Pad(10**6), r"Pad would make \(2000020"),
            (CropOrPad(10**6), "CropOrPad would make"),
            (EnsureMultiple(10**6), "EnsureMultiple would make"),
        ):
            with pytest.raises(ImageError, match=rf"subject 's1': {makes}.*check its numbers against the spacing, 1 x 1 x 1 mm"):
                run(step, image, np.eye(4), label)
        monkeypatch.setattr("patchflow.preprocess.base.machine_memory", lambda: 30**3 * 5)
        run(Pad(5), image, np.eye(4), label)
        with pytest.raises(ImageError, match=r"Pad would make \(31, 30, 30\)"):
            run(Pad(5, (6, 5, 5)), image, np.eye(4), label)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "exactly one"),
            ({"spacing": 1, "shape": 4}, "exactly one"),
            ({"spacing": 0}, "spacing must be above 0"),
            ({"spacing": (1, 2)}, "it has 2 values"),
            ({"spacing": "1"}, "must be a number"),
            ({"spacing": float("nan")}, "must be finite"),
            ({"shape": 2.5}, "must be an int"),
            ({"shape": (3, 0, 3)}, "at least 1"),
            ({"like": 3}, "a path, an image or a VoxelGrid"),
            ({"like": VoxelGrid((3, 3, 3), np.zeros((4, 4)))}, "like must have the last row"),
            ({"spacing": 1, "image_interpolation": "bspline"}, "'linear', 'cubic' or 'nearest'"),
            ({"spacing": 1, "label_interpolation": "cubic"}, "'nearest' or 'linear'"),
            ({"spacing": 1, "thick_ratio": 1}, "thick_ratio must be above 1"),
            ({"spacing": 1, "label_fill": 0.5}, "must be an integer"),
        ],
    )
    def test_what_cannot_be(self, arguments: dict, message: str) -> None:
        with pytest.raises(ArgumentError, match=message):
            Resample(**arguments)

    def test_a_fill_that_labels_do_not_hold(self) -> None:
        step = Resample(like=VoxelGrid((9, 9, 9), np.eye(4)), label_fill=300)
        with pytest.raises(ArgumentError, match=r"subject 's1', image 'label'.*uint8, which does not hold the fill 300"):
            run(step, smooth((4, 4, 4)), np.eye(4), np.zeros((4, 4, 4), np.uint8))

    def test_a_reference_counts_by_its_grid(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), OBLIQUE), tmp_path / f"{name}.nii")
        one, two = (pf.Pipeline([Resample(like=tmp_path / f"{name}.nii")]).fingerprint() for name in ("a", "b"))
        other = pf.Pipeline([Resample(like=pf.LabelMap(np.zeros((4, 5, 7), np.uint8), OBLIQUE))]).fingerprint()
        assert one == two != other


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["canonical", "spacing", "shape", "like"]),
    st.sampled_from(["linear", "cubic"]),
    st.booleans(),
)
def test_a_field_in_space_stays_where_it_is(seed: int, kind: str, name: str, anti_alias: bool) -> None:
    """A linear function of world coordinates survives every interpolation, to 1e-4 of its range, away from the border."""
    rng = generator(seed)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(rng.uniform(0.7, 3, 3))
    affine[:3, 3] = rng.uniform(-50, 50, 3)
    shape = tuple(int(n) for n in rng.integers(18, 26, 3))
    slope = rng.normal(size=3)

    def field(grid_affine: np.ndarray, size: tuple) -> np.ndarray:
        voxels = np.vstack([np.indices(size).reshape(3, -1), np.ones(int(np.prod(size)))])
        return (slope @ (grid_affine @ voxels)[:3]).reshape(size)

    target = affine.copy()
    target[:3, :3] = affine[:3, :3] @ np.linalg.qr(np.eye(3) + 0.2 * rng.normal(size=(3, 3)))[0]
    how = {"image_interpolation": name, "anti_alias": anti_alias}
    steps: dict[str, list] = {
        "canonical": [ToCanonical(), CropOrPad(15)],
        "spacing": [ToCanonical(), Resample(spacing=tuple(rng.uniform(0.8, 4, 3)), **how)],
        "shape": [Resample(shape=tuple(int(n) for n in rng.integers(9, 40, 3)), **how), ToCanonical()],
        "like": [Resample(like=VoxelGrid((20, 19, 18), target), **how)],
    }
    image = field(affine, shape).astype(np.float32)
    found = run(steps[kind], image, affine)["image"]
    fine = inside(VoxelGrid(shape, affine), VoxelGrid(found.spatial_shape, found.affine), 8 if name == "cubic" or anti_alias else 0)
    np.testing.assert_allclose(found.array[0][fine], field(found.affine, found.spatial_shape)[fine], atol=1e-4 * np.ptp(image))
