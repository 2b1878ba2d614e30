"""The rows of the table, the strengths that all packages are given, and the patch that they work on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import patchflow as pf
from benchmarks.data import Array, subject

DEGREES = 15.0  # about each axis
SCALE = 1.15  # the anatomy becomes this many times larger
CONTROL_SPACING, MAX_DISPLACEMENT = 32, 7.5  # voxels, which are millimetres here
DOWNSAMPLING = 3.0
STD = 0.1  # of noise
SIGMA = 1.0  # of blurring
FACTOR = 1.2  # of brightness and contrast
GAMMA = 1.3
ZOOM = 0.5
HOLES, HOLE = 8, 32  # boxes that are cut out, and their edge in voxels at 128
SWAPS, SWAPPED = 100, 15
BOTH = ("image", "label")


class Row(NamedTuple):
    """A transform.

    Attributes:
        name: what the table calls it.
        images: what is changed: "image", "label" or both.
        labels: how many labels the label map has, the background included.
        spatial: whether patchflow interpolates what it reads, so that reading is part of the work; a flip copies, as a plain read does.
        bound: what the ratio must exceed.
    """

    name: str
    images: tuple[str, ...] = ("image",)
    labels: int = 8
    spatial: bool = False
    bound: float = 1


ROWS = (
    Row("flip, image and label", BOTH),
    Row("affine, linear, image", spatial=True),
    Row("affine, nearest, label", ("label",), spatial=True),
    Row("affine, linear image, nearest label", BOTH, spatial=True),
    Row("affine, linear image, arg-max of 2 labels", BOTH, labels=2, spatial=True),
    Row("affine, linear image, arg-max of 8 labels", BOTH, labels=8, spatial=True),
    Row("affine, cubic, image", spatial=True),
    Row("elastic, linear image, nearest label", BOTH, spatial=True),
    Row("anisotropy", spatial=True),
    Row("noise, Gaussian"),
    Row("noise, Rician"),
    Row("blur"),
    Row("sharpen"),
    Row("brightness"),
    Row("contrast"),
    Row("contrast, range kept"),
    Row("gamma"),
    Row("gamma, inverted, statistics kept"),
    Row("low resolution"),
    Row("histogram shift"),
    Row("cutout"),
    Row("swap"),
    Row("bias field"),
    Row("motion"),
    Row("ghosting"),
    Row("spike"),
    Row("Gibbs"),
    Row("affine, linear, against torch", spatial=True, bound=3),
    Row("affine, nearest, against torch", spatial=True, bound=6),
)


class Call(NamedTuple):
    """What is timed, `run(fresh())`, without the making of its fresh input."""

    fresh: Callable[[], Any]
    run: Callable[[Any], Any]


@dataclass(frozen=True)
class Material:
    """A patch in the middle of a larger volume: in memory for peers, in a cache for patchflow.

    Attributes:
        cache: contiguous, with the subjects "labels2" and "labels8" that differ in their label maps; int16 voxels that are read z-scored.
        location: of the patch.
        image: the patch, float32 (1, n, n, n).
        labels: its label map by number of labels, uint8 (1, n, n, n).
    """

    cache: pf.Cache
    location: pf.PatchLocation
    image: torch.Tensor
    labels: dict[int, torch.Tensor]

    @property
    def size(self) -> int:
        """Voxels along each axis of the patch."""
        return int(self.image.shape[-1])

    def entry(self, row: Row) -> Any:
        """The subject of a row."""
        return self.cache[f"labels{row.labels}"]

    def fresh(self, row: Row) -> dict[str, torch.Tensor]:
        """Copies of what a row works on."""
        return {name: (self.image if name == "image" else self.labels[row.labels]).clone() for name in row.images}


def make_material(folder: Path, size: int, shape: tuple[int, int, int]) -> Material:
    """Build the cache in `folder` and read the patch of `size`^3 voxels in the middle, and the whole volume once."""
    image, _ = subject(shape, seed=0)
    organs = _organs(shape, size)
    maps = {2: (organs > 0).astype(np.uint8), 8: organs}
    affine = np.eye(4)
    subjects = [
        pf.Subject(f"labels{number}", image=pf.ScalarImage(image[None], affine), label=pf.LabelMap(label[None], affine))
        for number, label in maps.items()
    ]
    preprocess = pf.Pipeline([pf.preprocess.ZNormalize()])
    cache = pf.build_cache(subjects, folder / "cache", preprocess=preprocess, layout="contiguous", progress=False)
    location = pf.PatchLocation(tuple((n - size) // 2 for n in shape), (size,) * 3)
    for number in maps:  # every block is touched, so that no checksum is left to verify
        for name in BOTH:
            cache[f"labels{number}"].read(name, pf.PatchLocation((0, 0, 0), shape))
    patch = torch.from_numpy(cache["labels2"].read("image", location))
    labels = {number: torch.from_numpy(cache[f"labels{number}"].read("label", location)) for number in maps}
    return Material(cache, location, patch, labels)


def _organs(shape: tuple[int, int, int], size: int) -> Array:
    """Seven balls about the middle of the volume, most of them touching others, as uint8 (I, J, K): what a label map of organs is like."""
    label = np.zeros(shape, np.uint8)
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    rng = np.random.default_rng(0)
    for value, radius in enumerate((0.32, 0.28, 0.22, 0.18, 0.14, 0.10, 0.07), start=1):
        centre = [n / 2 + size * float(rng.uniform(-0.3, 0.3)) for n in shape]
        label[sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) < (radius * size) ** 2] = value
    return label
