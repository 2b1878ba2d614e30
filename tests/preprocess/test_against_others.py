"""Steps against SimpleITK, voxel by voxel and place by place, and chains of them against TorchIO where that is installed.

`test_spatial.py` holds resampling against nibabel and scipy, and `test_crops.py`, `test_intensity.py`, `test_robust.py` and
`test_label_steps.py` the others against NumPy and scipy.
"""

import numpy as np
import pytest
import scipy.ndimage as ndi
import SimpleITK as sitk  # noqa: N813  the name that its own pages give it

import patchflow as pf
from patchflow import preprocess as pre
from patchflow.geometry.space import VoxelGrid
from patchflow.images.volume import Volume
from patchflow.seeding import generator

SHAPE = (27, 23, 21)  # odd: points of other grids seldom lie halfway between two voxels
OBLIQUE = np.array([[-1.9, 0.2, 0.1, 40.0], [0.3, 0.1, 2.9, -33.0], [0.1, 1.4, 0.2, -20.0], [0, 0, 0, 1]])
OBLIQUE[:3, :3] = np.linalg.qr(OBLIQUE[:3, :3])[0] @ np.diag([1.9, 1.4, 2.9])  # SimpleITK's axes are at right angles
LPS = np.diag([-1.0, -1, 1, 1])


def smooth() -> np.ndarray:
    return ndi.gaussian_filter(generator(0).normal(size=SHAPE), 1.5).astype(np.float32) * 1000


def labels() -> np.ndarray:
    return ndi.zoom(generator(1).integers(0, 5, (7, 6, 6)), 4, order=0)[: SHAPE[0], : SHAPE[1], : SHAPE[2]].astype(np.uint8)


def run(*steps: pre.Step, image: np.ndarray | None = None, label: np.ndarray | None = None) -> dict[str, Volume]:
    images = {
        "image": pf.ScalarImage(smooth() if image is None else image, affine=OBLIQUE),
        "label": pf.LabelMap(labels() if label is None else label, affine=OBLIQUE),
    }
    return pf.Pipeline(steps).run(pf.Subject("s1", **images))


def itk(array: np.ndarray, affine: np.ndarray = OBLIQUE) -> sitk.Image:
    image = sitk.GetImageFromArray(array.T)
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def array_of(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image).T


def affine_of(image: sitk.Image) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return LPS @ affine


def resampled(array: np.ndarray, to: Volume, interpolator: int, outside: float = 0) -> np.ndarray:
    reference = itk(np.zeros(to.spatial_shape, np.uint8), to.affine)
    return array_of(sitk.Resample(itk(array), reference, sitk.Transform(), interpolator, outside))


def between_centres(to: Volume, by: float = 1e-6) -> np.ndarray:
    """Which voxels lie between the outermost voxel centres of the source: beyond them libraries differ."""
    points = np.linalg.solve(OBLIQUE, to.affine) @ np.vstack([np.indices(to.spatial_shape).reshape(3, -1), np.ones(to.array[0].size)])
    return ((points[:3] > by) & (points[:3] < np.array(SHAPE)[:, None] - 1 - by)).all(axis=0).reshape(to.spatial_shape)


TARGET = VoxelGrid((31, 36, 28), np.array([[1.6, 0.1, 0, -5], [0, -1.7, 0.2, 30], [0.1, 0, 1.9, -25], [0, 0, 0, 1.0]]))
TARGET.affine[:3, :3] = np.linalg.qr(TARGET.affine[:3, :3])[0] @ np.diag([1.6, 1.7, 1.9])
TARGET.affine[:3, 3] = (OBLIQUE @ [*(np.array(SHAPE) - 1) / 2, 1])[:3] - TARGET.affine[:3, :3] @ ((np.array(TARGET.shape) - 1) / 2)


@pytest.mark.parametrize(
    ("name", "interpolator"), [("linear", sitk.sitkLinear), ("cubic", sitk.sitkBSpline3), ("nearest", sitk.sitkNearestNeighbor)]
)
@pytest.mark.parametrize(
    "how", [{"spacing": (1.31, 1.93, 1.67)}, {"shape": (19, 41, 31)}, {"like": TARGET}], ids=["spacing", "shape", "like"]
)
def test_resampling(name: str, interpolator: int, how: dict) -> None:
    """1e-5 of the range; nearest: equal but where a point lies halfway. The arg-max of one-hot labels is SimpleITK's sitkLabelLinear."""
    found = run(pre.Resample(**how, image_interpolation=name, label_interpolation="linear", anti_alias=False))
    fine = between_centres(found["image"])
    assert fine.sum() > 3000
    expected = resampled(smooth(), found["image"], interpolator)
    if name == "nearest":
        assert (found["image"].array[0] == expected)[fine].mean() > 0.999
    else:
        np.testing.assert_allclose(found["image"].array[0][fine], expected[fine], atol=1e-5 * np.ptp(smooth()))
    assert (found["label"].array[0] == resampled(labels(), found["label"], sitk.sitkLabelLinear))[fine].mean() > 0.999


def test_labels_by_nearest_neighbours() -> None:
    for dtype, factor in (("uint8", 50), ("uint16", 12001), ("int32", 500_000_003)):
        label = labels().astype(dtype) * np.dtype(dtype).type(factor)
        found = run(pre.Resample(like=TARGET), label=label)["label"]
        fine = between_centres(found)
        assert found.array.max() == label.max()
        assert (found.array[0] == resampled(label, found, sitk.sitkNearestNeighbor))[fine].mean() > 0.999


def test_what_lies_outside_a_reference() -> None:
    """The fill, further than half a voxel from the outermost voxel centres, as SimpleITK has it."""
    far = VoxelGrid((40, 40, 40), TARGET.affine + np.array([[0, 0, 0, 25.0], [0, 0, 0, 9], [0] * 4, [0] * 4]))
    found = run(pre.Resample(like=far, fill=-5000, anti_alias=False, label_fill=9))
    outside = resampled(smooth(), found["image"], sitk.sitkNearestNeighbor, -5000) == -5000
    assert 10000 < outside.sum() < 60000
    assert ((found["image"].array[0] == -5000) == outside).mean() > 0.9999
    np.testing.assert_array_equal(found["label"].array[0] == 9, found["image"].array[0] == -5000)


def test_anti_aliasing() -> None:
    """SimpleITK's recursive Gaussian, an approximation, to 0.7 % of the range."""
    found = run(pre.Resample(spacing=(5.7, 1.4, 4.0)))["image"]
    smoothed = itk(smooth())
    for axis, (old, new) in enumerate(zip((1.9, 1.4, 2.9), (5.7, 1.4, 4.0), strict=True)):
        if new > old:
            smoothed = sitk.RecursiveGaussian(smoothed, float(old * np.sqrt(((new / old) ** 2 - 1) / (8 * np.log(2)))), direction=axis)
    fine = between_centres(found)
    expected = array_of(
        sitk.Resample(smoothed, itk(np.zeros(found.spatial_shape, np.uint8), found.affine), sitk.Transform(), sitk.sitkLinear)
    )
    np.testing.assert_allclose(found.array[0][fine], expected[fine], atol=0.007 * np.ptp(smooth()))
    sharp = run(pre.Resample(spacing=(5.7, 1.4, 4.0), anti_alias=False))["image"]
    assert np.abs(sharp.array[0] - expected)[fine].max() > 0.05 * np.ptp(smooth())


@pytest.mark.parametrize("key", ["image", "label"])
def test_whole_voxels_and_where_they_are(key: str) -> None:
    """Exact, and affines to 1e-9 mm: margins, crops and turns."""
    source = itk(smooth() if key == "image" else labels())
    cases = {
        "turned": (
            run(pre.ToCanonical()),
            sitk.DICOMOrient(source, "LPS"),
        ),  # where I leads left in LPS it leads right in RAS: mirrored below
        "constant": (run(pre.Pad((1, 2, 3), (4, 0, 5), fill=7, label_fill=7)), sitk.ConstantPad(source, (1, 2, 3), (4, 0, 5), 7)),
        "border": (run(pre.Pad(4, outside="border")), sitk.ZeroFluxNeumannPad(source, (4, 4, 4), (4, 4, 4))),
        "crop": (run(pre.CropOrPad((21, 21, 11))), sitk.Crop(source, (3, 1, 5), (3, 1, 5))),
        "both": (run(pre.CropOrPad((31, 21, 11))), sitk.Crop(sitk.ConstantPad(source, (2, 0, 0), (2, 0, 0)), (0, 1, 5), (0, 1, 5))),
        "multiple": (run(pre.EnsureMultiple((29, 1, 25))), sitk.ConstantPad(source, (1, 0, 2), (1, 0, 2))),
        "smaller": (run(pre.EnsureMultiple((25, 7, 19), "crop")), sitk.Crop(source, (1, 1, 1), (1, 1, 1))),
    }
    for name, (volumes, expected) in cases.items():
        expected = sitk.Flip(expected, (True, True, False)) if name == "turned" else expected
        np.testing.assert_array_equal(volumes[key].array[0], array_of(expected), err_msg=name)
        np.testing.assert_allclose(volumes[key].affine, affine_of(expected), atol=1e-9, err_msg=name)


def test_the_box_of_the_foreground() -> None:
    shape = sitk.LabelShapeStatisticsImageFilter()
    for threshold in (100.0, 250.0):
        shape.Execute(sitk.Cast(itk(smooth()) > threshold, sitk.sitkUInt8))
        box = shape.GetBoundingBox(1)
        expected = sitk.RegionOfInterest(itk(smooth()), box[3:], box[:3])
        found = run(pre.CropToForeground("image", threshold))["image"]
        np.testing.assert_array_equal(found.array[0], array_of(expected))
        np.testing.assert_allclose(found.affine, affine_of(expected), atol=1e-9)


def test_intensities() -> None:
    """1e-6 of the range; SimpleITK's variance is divided by the voxels less one."""
    image, count = itk(smooth()), smooth().size
    window = sitk.IntensityWindowing(image, -100, 300, 0.0, 1.0)
    mean, std = sitk.GetArrayFromImage(image).mean(), sitk.GetArrayFromImage(image).std()
    low, high = np.percentile(smooth(), (1, 99))
    cases = [
        (pre.Clamp(-200, 350), sitk.Clamp(image, sitk.sitkFloat32, -200, 350)),
        (pre.Rescale((-1, 2)), sitk.RescaleIntensity(image, -1, 2)),
        (pre.Rescale(percentiles=(1, 99)), sitk.IntensityWindowing(image, float(low), float(high), 0.0, 1.0)),
        (pre.Window(100, 400, (0, 1)), window),
        (pre.ZNormalize(), sitk.Normalize(image) * float(np.sqrt(count / (count - 1)))),
        (pre.ZNormalize(mean=float(mean), std=float(std)), (image - float(mean)) / float(std)),
    ]
    for step, expected in cases:
        values = array_of(expected)
        np.testing.assert_allclose(run(step)["image"].values()[0], values, atol=2e-6 * np.ptp(values), err_msg=str(step))


def test_statistics_of_a_mask() -> None:
    statistics = sitk.LabelStatisticsImageFilter()
    statistics.Execute(itk(smooth()), sitk.Cast(itk(labels()) > 0, sitk.sitkUInt8))
    count = statistics.GetCount(1)
    std = statistics.GetSigma(1) * np.sqrt((count - 1) / count)
    expected = (smooth() - statistics.GetMean(1)) / std
    np.testing.assert_allclose(run(pre.ZNormalize(mask="label"))["image"].values()[0], expected, atol=1e-5)


def test_labels() -> None:
    image = itk(labels())
    changed = sitk.ChangeLabel(image, {1: 3, 3: 1, 4: 200})
    np.testing.assert_array_equal(run(pre.RemapLabels({1: 3, 3: 1, 4: 200}))["label"].array[0], array_of(changed))
    largest = np.zeros_like(labels())
    for label in (1, 2, 3, 4):
        parts = sitk.RelabelComponent(sitk.ConnectedComponent(image == label, False), sortByObjectSize=True)
        sizes = np.bincount(array_of(parts).ravel())[1:]
        assert len(sizes) > 1
        assert sizes[0] > sizes[1]
        largest[array_of(parts) == 1] = label
    np.testing.assert_array_equal(run(pre.KeepLargest())["label"].array[0], largest)
    regions = [(1, 2, 3), (2, 3), (3,)]
    expected = [array_of(sum((image == label for label in region[1:]), image == region[0])) for region in regions]
    np.testing.assert_array_equal(run(pre.OneHotRegions(regions))["label"].array, np.stack(expected))


class TestTorchIO:
    """Of TorchIO 1.2, which is among the requirements of the benchmarks."""

    @pytest.fixture
    def tio(self):
        return pytest.importorskip("torchio")

    def theirs(self, tio, *steps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, label = tio.ScalarImage(tensor=smooth()[None], affine=OBLIQUE), tio.LabelMap(tensor=labels()[None], affine=OBLIQUE)
        done = tio.Compose(steps)(tio.Subject(image=image, label=label))
        return done.image.numpy()[0], done.label.numpy()[0], done.image.affine

    @pytest.mark.parametrize("anti_alias", [False, True])
    def test_turned_resampled_and_normalised(self, tio, anti_alias: bool) -> None:
        """On TorchIO's grid, which may have a voxel more; 1e-4 of the range, and 1 % where both smooth: its Gaussian is approximate."""
        spacing = (2.1, 4.0, 3.1)
        values, _, affine = self.theirs(tio, tio.ToCanonical(), tio.Resample(spacing, antialias=anti_alias))
        like = VoxelGrid(values.shape, affine)
        found = run(pre.ToCanonical(), pre.Resample(like=like, anti_alias=anti_alias))["image"]
        fine = between_centres(found, 0.01)
        np.testing.assert_allclose(found.array[0][fine], values[fine], atol=(1e-2 if anti_alias else 1e-4) * np.ptp(smooth()))

    def test_intensities(self, tio) -> None:
        n = smooth().size
        pairs = [
            (pre.ZNormalize(), tio.ZNormalization(), np.sqrt(n / (n - 1))),
            (pre.Rescale(percentiles=(0.5, 99.5)), tio.RescaleIntensity((0, 1), percentiles=(0.5, 99.5)), 1),
            (pre.Clamp(-100, 200), tio.Clamp(-100, 200), 1),
        ]
        for step, transform, factor in pairs:
            values = self.theirs(tio, transform)[0] * factor
            np.testing.assert_allclose(run(step)["image"].values()[0], values, atol=1e-5 * np.ptp(values))

    def test_whole_voxels(self, tio) -> None:
        pairs = [
            (pre.CropOrPad((21, 29, 11)), tio.CropOrPad((21, 29, 11))),
            (pre.Pad((1, 2, 3), (4, 5, 6)), tio.Pad((1, 4, 2, 5, 3, 6))),
            (pre.EnsureMultiple((29, 1, 25)), tio.EnsureShapeMultiple((29, 1, 25), method="pad")),
            (pre.EnsureMultiple((25, 7, 19), "crop"), tio.EnsureShapeMultiple((25, 7, 19), method="crop")),
            (pre.ToCanonical(), tio.ToCanonical()),
        ]
        for step, transform in pairs:
            image, label, affine = self.theirs(tio, transform)
            found = run(step)
            np.testing.assert_array_equal(found["image"].values()[0], image, err_msg=str(step))
            np.testing.assert_array_equal(found["label"].array[0], label)
            np.testing.assert_allclose(found["image"].affine, affine, atol=1e-9)

    def test_labels(self, tio) -> None:
        for step, transform in (
            (pre.RemapLabels({1: 3, 3: 1}), tio.RemapLabels({1: 3, 3: 1})),
            (pre.KeepLargest(labels=2), tio.KeepLargestComponent()),
        ):
            given = (labels() == 2) * np.uint8(2) if isinstance(step, pre.KeepLargest) else labels()
            done = transform(tio.Subject(label=tio.LabelMap(tensor=(given > 0 if given.max() == 2 else given)[None].astype(np.uint8))))
            found = run(step, label=given)["label"].array[0]
            np.testing.assert_array_equal(found > 0 if given.max() == 2 else found, done.label.numpy()[0])
