"""A sound cohort that tests break, one thing at a time."""

import gzip

import nibabel as nib
import numpy as np

import patchflow as pf
from patchflow import seeding
from patchflow.images.write import write_nifti

AFFINE = np.array([[0.9, 0, 0, -20], [0, 0.9, 0, -30], [0, 0, 1.5, 10], [0, 0, 0, 1.0]])
SHAPE = (24, 22, 18)


def voxels(number, shape=SHAPE):
    """An int16 image of a bright ball on noise, and its label map of two regions."""
    rng = seeding.generator(number)
    centre = np.array(shape) / 2 + rng.normal(0, 0.3, 3)
    distance = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - centre, axis=-1)
    image = 100 + 300 * np.exp(-((distance / 5) ** 2)) + rng.normal(0, 15, shape)
    label = (distance < 6).astype(np.uint8) + (distance < 3).astype(np.uint8)
    return np.rint(image).astype(np.int16), label


def write(folder, number, image=None, label=None, affine=AFFINE, label_affine=None):
    """A subject of files; what is not given is sound."""
    name, sound = f"s{number}", voxels(number)
    (folder / name).mkdir(parents=True)
    write_nifti(folder / name / "image.nii.gz", sound[0] if image is None else image, affine)
    write_nifti(folder / name / "label.nii.gz", sound[1] if label is None else label, affine if label_affine is None else label_affine)
    return subject(folder, number)


def subject(folder, number):
    """The subject of files that are there."""
    name = f"s{number}"
    return pf.Subject(name, image=pf.ScalarImage(folder / name / "image.nii.gz"), label=pf.LabelMap(folder / name / "label.nii.gz"))


def of_arrays(name, image=None, label=None, **others):
    """A subject of arrays; what is not given is sound."""
    sound = voxels(0)
    parts = {"image": pf.ScalarImage(sound[0] if image is None else image), "label": pf.LabelMap(sound[1] if label is None else label)}
    return pf.Subject(name, **parts, **others)


def set_header(path, **fields):
    """Change fields of the header of a .nii.gz file, and nothing else."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    header = np.frombuffer(content, nib.nifti1.header_dtype.newbyteorder("<"), 1)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(gzip.compress(bytes(content), 1))


def told(report, level=None):
    """What was found, as (check, subject, image)."""
    return [(finding.check, finding.subject, finding.image) for finding in report.of(level=level)]
