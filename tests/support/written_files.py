"""What a prediction's file holds, read by other packages."""

from pathlib import Path

import h5py
import nibabel as nib
import numpy as np


def read(path: Path) -> np.ndarray:
    """A written volume, (C, I, J, K)."""
    if path.name.endswith(".h5"):
        with h5py.File(path) as file:
            return file["volume"][...]
    array = np.asarray(nib.load(path).dataobj)
    return array[None] if array.ndim == 3 else array.transpose(3, 0, 1, 2)


def affine_of(path: Path) -> np.ndarray:
    if path.name.endswith(".h5"):
        with h5py.File(path) as file:
            return file["volume"].attrs["affine"]
    return nib.load(path).affine
