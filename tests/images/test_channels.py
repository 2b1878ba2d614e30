"""Several files as the channels of one image."""

import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import patchflow as pf
from patchflow.errors import ArgumentError, ImageError, ImageFileError
from patchflow.kernels.pointwise import IntensityMap
from patchflow.quality import check_subjects

AFFINE = np.array([[0.0, 2, 0, 5], [-3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
VOXELS = np.arange(3 * 24, dtype=np.int16).reshape(3, 2, 3, 4)


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, slope: float | None = None) -> Path:
    image = nib.Nifti1Image(array, affine)
    content = bytearray(image.to_bytes())
    if slope is not None:
        content[112:116] = np.float32(slope).tobytes()  # nibabel itself would scale the voxels
    path.write_bytes(content)
    return path


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / f"{number}.nii", array) for number, array in enumerate(VOXELS)]


def test_files_follow_one_another(paths: list[Path]) -> None:
    image = pf.ScalarImage([paths[2], str(paths[0]), paths[1]])
    assert image.shape == (3, 2, 3, 4)
    assert image.dtype == np.int16
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert image.spacing == (3, 2, 4)
    volume, digest = image.load_with_digest()
    np.testing.assert_array_equal(volume.array, VOXELS[[2, 0, 1]])
    assert volume.array.dtype == np.int16
    assert digest == image.digest()
    assert (image.paths, image.path) == ((paths[2], paths[0], paths[1]), None)
    assert repr(image) == f"ScalarImage({paths[2]}, {paths[0]}, {paths[1]})"


def test_files_of_several_channels(tmp_path: Path, paths: list[Path]) -> None:
    write(tmp_path / "two.nii", np.moveaxis(VOXELS[:2], 0, -1))
    np.testing.assert_array_equal(pf.ScalarImage([paths[2], tmp_path / "two.nii"]).data, VOXELS[[2, 0, 1]])


def test_one_file_is_that_file(paths: list[Path]) -> None:
    image = pf.ScalarImage(paths[:1])
    assert image.path == paths[0]
    assert image.digest() == pf.ScalarImage(paths[0]).digest()


def test_the_digest_follows_every_file_and_their_order(paths: list[Path]) -> None:
    images = [pf.ScalarImage(chosen) for chosen in (paths, paths[::-1], paths[:2], [paths[0], paths[0]])]
    before = [image.digest() for image in images]
    assert len(set(before)) == 4
    write(paths[2], VOXELS[2] + 1)
    after = [image.digest() for image in images]
    assert [one == two for one, two in zip(before, after, strict=True)] == [False, False, True, True]


def test_one_scaling_for_all_keeps_the_integers(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}.nii", array, slope=0.5) for number, array in enumerate(VOXELS)]
    volume = pf.ScalarImage(paths).load()
    assert volume.array.dtype == np.int16
    assert volume.map == IntensityMap(0.5, 0)
    np.testing.assert_array_equal(volume.values(), VOXELS * np.float32(0.5))


@pytest.mark.parametrize(
    "second", [{"array": VOXELS[1].astype(np.uint8)}, {"array": VOXELS[1], "slope": 0.1}, {"array": VOXELS[1] / np.float64(3)}]
)
def test_files_stored_in_different_ways_become_floats(tmp_path: Path, paths: list[Path], second: dict[str, Any]) -> None:
    other = write(tmp_path / "other.nii", **second)
    image = pf.ScalarImage([paths[0], other])
    assert image.dtype == np.float32
    volume = image.load()
    assert (volume.array.dtype, volume.map) == (np.float32, IntensityMap())
    np.testing.assert_array_equal(volume.values(), np.concatenate([pf.ScalarImage(path).data for path in (paths[0], other)]))


def test_affines_that_differ_by_rounding(tmp_path: Path, paths: list[Path]) -> None:
    other = write(tmp_path / "other.nii", VOXELS[1], AFFINE + 1e-3 * np.eye(4, k=3))
    np.testing.assert_array_equal(pf.ScalarImage([paths[0], other]).affine, AFFINE)


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (VOXELS[1][:, :2], AFFINE, r"their shapes are \(2, 3, 4\) and \(2, 2, 4\)"),
        (VOXELS[1], AFFINE + np.eye(4, k=3), r"corners are up to 1 mm apart, and 0\.2 mm are allowed"),
        (VOXELS[1], AFFINE * [[-1], [1], [1], [1]], "corners are up to"),
    ],
)
def test_files_on_different_grids(tmp_path: Path, paths: list[Path], array: np.ndarray, affine: np.ndarray, message: str) -> None:
    other = write(tmp_path / "other.nii", array, affine)
    for use in (lambda image: image.shape, lambda image: image.load(), lambda image: image.data):
        with pytest.raises(ImageError, match=message) as caught:
            use(pf.ScalarImage([*paths, other]))
        assert f"{paths[0]} and {other} cannot be channels" in str(caught.value)


def test_a_file_that_is_missing_damaged_or_changed(tmp_path: Path, paths: list[Path]) -> None:
    with pytest.raises(ImageFileError, match=r"none\.nii does not exist"):
        _ = pf.ScalarImage([*paths, tmp_path / "none.nii"]).shape
    image = pf.ScalarImage(paths)
    assert image.shape == (3, 2, 3, 4)
    write(paths[1], VOXELS[1][:, :2])
    with pytest.raises(ImageFileError, match=r"1\.nii has changed"):
        image.load()
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    with pytest.raises(ImageFileError, match=r"1\.nii is truncated"):
        pf.ScalarImage(paths).load()


def test_files_without_an_affine_share_the_one_given(tmp_path: Path, paths: list[Path]) -> None:
    arrays = [tmp_path / f"{number}.npy" for number in (0, 1)]
    for path, array in zip(arrays, VOXELS, strict=False):
        np.save(path, array)
    image = pf.ScalarImage(arrays, affine=AFFINE)
    np.testing.assert_array_equal(image.data, VOXELS[:2])
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert image.digest() == image.load_with_digest()[1] != pf.ScalarImage(arrays, affine=np.eye(4)).digest()
    for wrong, affine in ((arrays, None), ([arrays[0], paths[0]], AFFINE)):
        with pytest.raises(ArgumentError, match="affine"):
            pf.ScalarImage(wrong, affine=affine)


@pytest.mark.parametrize("source", [[], [np.zeros((2, 2, 2))], ["a.nii", None], ["a.nii", ["b.nii"]], {"a.nii", "b.nii"}])
def test_other_lists_are_refused(source: Any) -> None:
    with pytest.raises(ArgumentError, match="a list of paths"):
        pf.ScalarImage(source)


def test_label_maps_and_series_are_refused(paths: list[Path]) -> None:
    with pytest.raises(ArgumentError, match="a label map is read from one file, not from 3"):
        pf.LabelMap(paths)
    assert pf.LabelMap(paths[:1]).path == paths[0]
    with pytest.raises(ArgumentError, match="series="):
        pf.ScalarImage(paths, series="1")


def test_a_cache_holds_all_channels_and_is_used_again_until_a_file_changes(tmp_path: Path, paths: list[Path]) -> None:
    def build(workers: int = 0) -> tuple[np.ndarray, int]:
        subject = pf.Subject("s", image=pf.ScalarImage(paths), label=pf.LabelMap(VOXELS[0] % 2, affine=AFFINE))
        cache = pf.build_cache([subject], tmp_path / "cache", num_workers=workers)
        return cache[0].read("image", pf.PatchLocation((0, 0, 0), (2, 3, 4))), cache[0].path.stat().st_mtime_ns

    values, made = build(workers=1)  # in another process
    np.testing.assert_array_equal(values, VOXELS)
    assert build()[1] == made
    write(paths[2], VOXELS[2] + 1)
    values, again = build()
    np.testing.assert_array_equal(values[2], VOXELS[2] + 1)
    assert again != made


def test_checks_read_all_channels(paths: list[Path]) -> None:
    write(paths[2], np.where(VOXELS[2] == 50, np.nan, VOXELS[2]).astype(np.float32))
    report = check_subjects([pf.Subject("s", image=pf.ScalarImage(paths))], num_workers=0)
    assert any("nan" in finding.sentence.lower() for finding in report.findings)
    write(paths[1], VOXELS[1], AFFINE + np.eye(4, k=3))
    report = check_subjects([pf.Subject("s", image=pf.ScalarImage(paths))], num_workers=0)
    assert any(finding.level == "error" and "cannot be channels of one image" in finding.sentence for finding in report.findings)


def test_pickles(paths: list[Path]) -> None:
    image = pf.ScalarImage(paths)
    copy = pickle.loads(pickle.dumps(image))
    assert copy.digest() == image.digest()
    np.testing.assert_array_equal(copy.data, VOXELS)
