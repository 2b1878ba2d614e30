"""Small DICOM files written by pydicom: slices of a volume, and enhanced files of many frames; and what others read of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

import patchflow as pf
from patchflow.errors import ImageFileError

LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])

Change = Callable[[int, Dataset], None]
"""Changes the dataset of slice k before it is written."""


def digits(numbers: Any) -> list[str]:
    """Decimal strings of at most 16 characters, as DICOM has them."""
    return [f"{number:.10g}"[:16] for number in np.ravel(numbers)]


def oblique(shear: float = 0.0) -> np.ndarray:
    """A 4x4 affine, voxel index to LPS+ millimetres: turned about two axes, of spacing 0.7, 0.9, 2.5; `shear` moves slices along J."""
    a, b = 0.3, -0.2
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn * (0.7, 0.9, 2.5)
    affine[:3, 2] += shear * turn[:, 1]
    affine[:3, 3] = -31.25, 17.5, -120.75
    return affine


def base(uid: str, rows: int, columns: int, dtype: Any) -> Dataset:
    """What all files of a series share."""
    dtype = np.dtype(dtype)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = CTImageStorage, generate_uid(entropy_srcs=[uid, "instance"]), uid
    ds.Modality, ds.SeriesDescription, ds.ImageType = "CT", "made up", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8 * dtype.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(dtype.kind == "i")
    return ds


def save(ds: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> None:
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)


def write_series(
    folder: Path,
    volume: np.ndarray,
    affine: np.ndarray,
    uid: str = "1.2.826.0.1.3680043.8.498.1",
    order: Sequence[int] | None = None,
    change: Change | None = None,
    syntax: str = ExplicitVRLittleEndian,
) -> list[Path]:
    """Write the slices of a volume (I, J, K) one file each, named in the order given, not that of their places; returns the files by k."""
    ni, nj, nk = volume.shape
    spacing = np.linalg.norm(affine[:3, :2], axis=0)
    directions = affine[:3, :2] / spacing
    paths = []
    for k in range(nk):
        ds = base(uid, nj, ni, volume.dtype)
        ds.SOPInstanceUID = f"{uid}.{k + 1}"
        ds.ImageOrientationPatient, ds.PixelSpacing = digits(directions.T), digits(spacing[::-1])
        ds.ImagePositionPatient = digits(affine[:3, 3] + k * affine[:3, 2])
        ds.SliceThickness, ds.RescaleSlope, ds.RescaleIntercept = "2.5", "2", "-1024"
        ds.InstanceNumber = k + 1
        ds.PixelData = np.ascontiguousarray(volume[:, :, k].T).tobytes().ljust(-(-volume[:, :, k].nbytes // 2) * 2, b"\0")
        if change is not None:
            change(k, ds)
        paths.append(folder / f"{(order or range(nk))[k]:03}.dcm")
        save(ds, paths[-1], syntax)
    return paths


def write_enhanced(path: Path, volume: np.ndarray, affine: np.ndarray, order: Sequence[int], change: Change | None = None) -> None:
    """Write a volume (I, J, K) as one enhanced file, its slices in the order given."""
    ni, nj, nk = volume.shape
    spacing = np.linalg.norm(affine[:3, :2], axis=0)
    ds = base("1.2.826.0.1.3680043.8.498.2", nj, ni, volume.dtype)
    ds.SOPClassUID, ds.Modality, ds.NumberOfFrames = EnhancedMRImageStorage, "MR", nk
    shared, orientation, measures, values = Dataset(), Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = digits((affine[:3, :2] / spacing).T)
    measures.PixelSpacing, measures.SliceThickness = digits(spacing[::-1]), "2.5"
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = "0.5", "3", "US"
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Items([orientation]), Items([measures])
    shared.PixelValueTransformationSequence = Items([values])
    ds.SharedFunctionalGroupsSequence = Items([shared])
    groups = []
    for k in order:
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = digits(affine[:3, 3] + k * affine[:3, 2])
        group.PlanePositionSequence = Items([position])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Items(groups)
    ds.PixelData = b"".join(np.ascontiguousarray(volume[:, :, k].T).tobytes() for k in order)
    if change is not None:
        change(0, ds)
    save(ds, path)


def with_simpleitk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values (I, J, K) and the affine to RAS+."""
    sitk = pytest.importorskip("SimpleITK")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return values_and_affine(reader.Execute())


def values_and_affine(image: Any) -> tuple[np.ndarray, np.ndarray]:
    sitk = pytest.importorskip("SimpleITK")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), LPS_TO_RAS @ affine


def corners_apart(one: np.ndarray, two: np.ndarray, shape: tuple[int, ...]) -> float:
    """Millimetres between the places that two affines give a corner voxel, at most."""
    corners = np.array([[i, j, k, 1] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)])
    return float(np.linalg.norm((corners @ (one - two).T)[:, :3], axis=1).max())


def refuse(source: Path, message: str, **more: Any) -> str:
    for use in ("load", "digest"):
        with pytest.raises(ImageFileError, match=message) as caught:
            getattr(pf.ScalarImage(source, **more), use)()
        assert str(source) in str(caught.value)
    with pytest.raises(ImageFileError, match=message):
        _ = pf.ScalarImage(source, **more).shape
    return str(caught.value)
