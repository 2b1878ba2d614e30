"""Synthetic CT-like subjects, the same for every contestant."""

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
SPACING = (0.8, 0.8, 1.25)
FAT = -90
FULL_SHAPE, FULL_SUBJECTS = (512, 512, 240), 4

# Centre and half axes as fractions of the volume, label, HU. Sizes are those of organs: from a liver to a nodule of a few hundred voxels.
ORGANS = (
    ((0.36, 0.48, 0.50), (0.16, 0.14, 0.24), 1, 60),  # liver
    ((0.66, 0.56, 0.52), (0.06, 0.05, 0.13), 2, 50),  # spleen
    ((0.38, 0.62, 0.40), (0.04, 0.04, 0.11), 3, 35),  # kidneys
    ((0.62, 0.62, 0.40), (0.04, 0.04, 0.11), 3, 35),
    ((0.50, 0.55, 0.50), (0.02, 0.02, 0.46), 4, 150),  # aorta
    ((0.34, 0.46, 0.55), (0.02, 0.02, 0.03), 5, 20),  # lesion
    ((0.58, 0.40, 0.80), (0.008, 0.008, 0.012), 6, 30),  # nodule
)
CLASSES = tuple(sorted({organ[2] for organ in ORGANS}))  # without the background, 0


@dataclass(frozen=True)
class Settings:
    """The work that every contestant does.

    Attributes:
        patch: voxels along each axis of a patch.
        batch: patches in a batch.
        workers: loader workers.
        augment: "nnunet" for patches augmented as nnU-Net does, or each package's nearest equivalent; empty for none.
    """

    patch: int = 128
    batch: int = 2
    workers: int = 2
    augment: str = ""


def subject(shape: tuple[int, int, int], seed: int) -> tuple[Array, Array]:
    """A body with organs: int16 HU (I, J, K) with smooth texture and noise, and its label map, uint8 (I, J, K)."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(0, 1, n, dtype=np.float32) for n in shape]
    x, y, z = axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]
    body = ((x - 0.5) / 0.42) ** 2 + ((y - 0.5) / 0.32) ** 2 + 0 * z < 1
    image = np.where(body, np.float32(FAT + 110), np.float32(-1000)) + np.maximum(_texture(shape, rng), -110) * body
    label = np.zeros(shape, np.uint8)
    for centre, half, value, level in ORGANS:
        moved = np.asarray(centre) + rng.normal(0, 0.01, 3)
        inside = sum(((a - c) / h) ** 2 for a, c, h in zip((x, y, z), moved, half, strict=True)) < 1
        label[inside] = value
        image[inside] = level
    for plane in image:  # noise plane by plane: it is of scanner strength inside the body, and slight in the air around
        plane += rng.normal(0, 12, plane.shape)
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16), label


def _texture(shape: tuple[int, int, int], rng: np.random.Generator) -> Array:
    """Smooth variation of some tens of HU, muscle to fat: coarse noise, each axis drawn out linearly."""
    field = rng.normal(0, 90, [max(n // 24, 2) for n in shape]).astype(np.float32)
    for axis, n in enumerate(shape):
        position = np.linspace(0, field.shape[axis] - 1, n)
        low = np.minimum(position.astype(int), field.shape[axis] - 2)
        weight = (position - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        field = field.take(low, axis) * (1 - weight) + field.take(low + 1, axis) * weight
    return field


def write_subjects(folder: Path, shape: tuple[int, int, int], count: int) -> list[tuple[Path, Path]]:
    """Write (or find) the subjects as .nii, the first one as .nii.gz too; gives the paths of image and label of each."""
    pairs = []
    for number in range(count):
        paths = folder / f"s{number}" / "image.nii", folder / f"s{number}" / "label.nii"
        if not (folder / f"s{number}" / "done").exists():
            paths[0].parent.mkdir(parents=True, exist_ok=True)
            for path, array in zip(paths, subject(shape, seed=number), strict=True):
                nifti = nibabel.Nifti1Image(array, np.diag([*SPACING, 1.0]))
                nibabel.save(nifti, path)
                if number == 0:
                    nibabel.save(nifti, path.with_suffix(".nii.gz"))
            (folder / f"s{number}" / "done").touch()
        pairs.append(paths)
    return pairs


def read(path: Path) -> Array:
    """The voxels of a NIfTI file in their own dtype."""
    return np.asanyarray(nibabel.load(path).dataobj)
