"""Recipes that are known to work, ready to use: `nnunet`, `mri`, `ct`. `configs/recipes/` holds the same as YAML, to be changed."""

from collections.abc import Sequence

from patchflow.augment.artefacts import RandomBiasField, RandomGhosting, RandomSpike
from patchflow.augment.choice import OneOf
from patchflow.augment.intensity import RandomBrightness, RandomContrast, RandomGamma
from patchflow.augment.kspace import RandomGibbs, RandomMotion
from patchflow.augment.noise import RandomNoise
from patchflow.augment.ranges import Balanced, Range, Reciprocal, Uniform
from patchflow.augment.recipe import Recipe
from patchflow.augment.sharpness import RandomBlur, RandomLowResolution, RandomSharpen
from patchflow.augment.spatial import RandomAffine, RandomAnisotropy, RandomElastic, RandomFlip
from patchflow.types import SizeLike, int3

ANISOTROPY = 3
"""Patches whose longest side is more than this times their shortest are rotated and scaled within their thin planes only, as in nnU-Net."""


def nnunet(patch_size: SizeLike, *, mirror_axes: Sequence[int] = (0, 1, 2)) -> Recipe:
    """The augmentation of nnU-Net v2 for 3D: the transforms, probabilities and ranges of `nnUNetTrainer.get_training_transforms`.

    Source: Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nature Methods 18,
    2021, and the code of nnunetv2 2.8. What differs: rotation is in millimetres; blur, noise and low resolution see the voxels around the
    patch instead of a reflection of it, and the noise of a voxel belongs to the voxel; contrast and gamma work with the statistics of the
    patch, as there, so that this recipe is not `exact`. Region-based labels and cascades are no augmentation and are left out.

    Args:
        patch_size: voxels (I, J, K). Where the longest side is more than 3 times the shortest, the shortest is taken for the thick axis,
            and rotation (any angle), scaling and low resolution keep to the planes across it (nnU-Net's "dummy 2D").
        mirror_axes: voxel axes that may be mirrored; empty for none.

    Returns:
        A recipe; nnU-Net pads with 0, and so does it.
    """
    size = int3(patch_size, "patch_size")
    thick = size.index(min(size)) if max(size) / min(size) > ANISOTROPY else None
    still = Uniform(1.0, 1.0)
    scaled = Reciprocal(1 / 1.4, 1 / 0.7)  # 0.7 to 1.4, uniform, is how far apart nnU-Net takes its samples
    scales: list[Range] = [still if axis == thick else scaled for axis in range(3)]
    degrees = [(180.0 if axis == thick else 0.0) if thick is not None else 30.0 for axis in range(3)]
    planes = [axis for axis in range(3) if axis != thick]
    factor, gamma = Balanced(0.75, 1.25), Balanced(0.7, 1.5)
    flips = [RandomFlip(mirror_axes)] if len(mirror_axes) else []
    return Recipe(
        [
            RandomAffine(scales=0, degrees=degrees, p=0.2),
            RandomAffine(scales=scales, degrees=0, isotropic=True, p=0.2),
            RandomNoise(std=(0, 0.1), p=0.1),
            RandomBlur(std=(0.5, 1.0), unit="voxel", p=0.2, per_channel=True, p_per_channel=0.5),
            RandomBrightness(factor, p=0.15, per_channel=True),
            RandomContrast(factor, preserve_range=True, statistics="patch", p=0.15, per_channel=True),
            RandomLowResolution(zoom=(0.5, 1.0), axes=planes, p=0.25, per_channel=True, p_per_channel=0.5),
            RandomGamma(gamma=gamma, invert=True, retain_stats=True, statistics="patch", p=0.1, per_channel=True),
            RandomGamma(gamma=gamma, retain_stats=True, statistics="patch", p=0.3, per_channel=True),
            *flips,
        ],
        label_interpolation="linear",
    )


def mri() -> Recipe:
    """Augmentation for MRI: what differs between scanners, protocols and patients who move.

    Anatomy is turned, scaled, deformed and mirrored along I (left and right, in images in RAS+); fields are uneven, slices thick; one patch
    in seven has an artefact of k-space. Values are taken to be z-scored. Beyond the volume its border goes on.
    """
    return Recipe(
        [
            RandomFlip(axes=(0,)),
            RandomElastic(control_spacing=40, max_displacement=(0, 8), p=0.2),
            RandomAffine(scales=0.1, degrees=15, translation=5, p=0.5),
            RandomAnisotropy(downsampling=(1.5, 4), p=0.15),
            RandomBiasField(coefficients=0.4, p=0.3),
            OneOf([RandomGhosting(), RandomMotion(), RandomSpike(), RandomGibbs()], p=0.15),
            OneOf([RandomBlur(std=(0.3, 1.5)), RandomLowResolution(zoom=(0.5, 1.0))], p=0.2),
            RandomGamma(log_gamma=0.3, p=0.3),
            RandomNoise(std=(0, 0.1), p=0.2),
        ],
        outside="border",
    )


def ct() -> Recipe:
    """Augmentation for CT: patients who lie differently, doses, reconstruction kernels and slice thicknesses.

    Hounsfield units mean something, so intensities change little. Nothing is mirrored: organs lie on their side. Values are taken to be
    windowed or z-scored, with a standard deviation of about 1. Beyond the volume its border goes on.
    """
    return Recipe(
        [
            RandomElastic(control_spacing=48, max_displacement=(0, 8), p=0.2),
            RandomAffine(scales=0.15, degrees=15, translation=10, p=0.5),
            RandomAnisotropy(axes=2, downsampling=(1.5, 4), p=0.2),
            OneOf([RandomBlur(std=(0.3, 1.2)), RandomSharpen(amount=(0.3, 1.0))], p=0.3),
            RandomContrast(factor=(0.9, 1.1), p=0.2),
            RandomBrightness(factor=(1, 1), shift=0.1, p=0.2),
            RandomNoise(std=(0, 0.15), p=0.3),
        ],
        outside="border",
    )
