"""Processed volumes in NIfTI files: stored dtypes where they give the same values."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import patchflow as pf
from patchflow.errors import ArgumentError, ImageFileError
from patchflow.images.scaled import StoredForm, stored_form, write_volume
from patchflow.images.volume import Volume
from patchflow.images.write import write_nifti
from patchflow.kernels.pointwise import IntensityMap, plain_apply_map

AFFINE = np.array([[0.0, 2, 0.5, 5], [-3, 0, 0, 6], [0, 0.25, 4, 7], [0, 0, 0, 1]])
CT = np.array([-2000, -1024, -200, 0, 77, 240, 3000, 32767], np.int16).reshape(1, 2, 2, 2)


def volume(array: np.ndarray, *parts: float) -> Volume:
    return Volume(array, AFFINE, "scalar", IntensityMap(*parts))


@pytest.mark.parametrize(
    ("array", "parts", "form"),
    [
        (CT, (), StoredForm()),
        (CT.astype(np.float64) / 3, (), StoredForm()),
        (CT, (0.5, -1024), StoredForm(0.5, -1024)),
        (CT, (1, 0, -1000, 1000), StoredForm(1, 0, -1000, 1000)),
        (CT, (1, 0, -1000), StoredForm(1, 0, -1000, 32767)),
        (CT, (-1, 0, -1000), StoredForm(-1, 0, -32768, 1000)),
        (CT, (0.5, 10, 0, 100), StoredForm(0.5, 10, -20, 180)),
        (CT, (1, 0, -1000.5, 40000.5), None),  # -1000.5 is no value of a stored voxel
        (CT, (1, 0, -2000.5, 40000.5), StoredForm(1, 0)),  # which no voxel reaches
        (CT, (0.1, 0), None),  # no float32
        (CT, (1, 0.1), None),
        (CT, (1e300, 0), None),
        (CT, (1, 0, 1e300, np.inf), None),
        (CT, (1, 0, -np.inf, -40000), None),
        (CT.astype(np.float32), (2, 0), None),
        (CT.astype(np.float32), (1, 0, 0), None),
        (np.array([[[[0, 2**64 - 1]]]], np.uint64), (1, 0, 5, 1000), StoredForm(1, 0, 5, 1000)),
    ],
)
def test_how_voxels_are_stored(array: np.ndarray, parts: tuple[float, ...], form: StoredForm | None) -> None:
    assert stored_form(volume(array, *parts)) == form


_FLOATS = st.sampled_from([1.0, 0.5, -2.0, 0.1, 1e-3, 3.0, -1.0])


@given(
    st.sampled_from([np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32]),
    _FLOATS,
    st.sampled_from([0.0, -1024.0, 0.3, 17.0]),
    st.sampled_from([-np.inf, -1000.0, -3.5, 0.0, 12.0]),
    st.sampled_from([np.inf, 12.0, 100.0, 55.25, 1e6]),
    st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_values_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, dtype: type, gain: float, bias: float, low: float, high: float, seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "scaled.nii"
    given_volume = volume(
        (pf.seeding.generator(seed).random((2, 3, 4, 5)) * 250 - 60).astype(np.int64).astype(dtype), gain, bias, low, high
    )
    write_volume(path, given_volume)
    wanted = plain_apply_map(given_volume.array, given_volume.map)
    assert pf.ScalarImage(path).data.tobytes() == wanted.tobytes()
    by_nibabel = np.moveaxis(nib.load(path).get_fdata(), -1, 0)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(by_nibabel.astype(np.float32), wanted)


def test_what_stands_in_the_file(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii.gz", volume(CT, 0.5, -1024, -2000, 100))
    image = nib.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == np.int16  # type: ignore[attr-defined]
    assert (image.dataobj.slope, image.dataobj.inter) == (0.5, -1024)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(image.dataobj.get_unscaled(), np.clip(CT[0], -1952, 2248))  # type: ignore[attr-defined]
    np.testing.assert_allclose(image.affine, AFFINE, rtol=1e-6)


def test_a_volume_without_scaling_is_what_write_nifti_makes(tmp_path: Path) -> None:
    labels = Volume(np.arange(24, dtype=np.int32).reshape(1, 2, 3, 4), AFFINE, "label")
    for ending in (".nii", ".nii.gz"):
        write_volume(tmp_path / f"a{ending}", labels)
        write_nifti(tmp_path / f"b{ending}", labels.array, AFFINE)
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"must end in \.nii or \.nii\.gz"):
        write_volume(tmp_path / "a.mha", volume(CT))
    with pytest.raises(ImageFileError, match="cannot be written"):
        write_volume(tmp_path / "none" / "a.nii", volume(CT))
    assert list(tmp_path.iterdir()) == []
