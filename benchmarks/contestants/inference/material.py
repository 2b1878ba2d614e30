"""What all contestants are given: one volume, as a tensor and as an entry of a cache, and models."""

import time
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

import patchflow as pf
from benchmarks.data import write_subjects
from patchflow.cache.entry import Entry

Shape = tuple[int, int, int]


class Material:
    """One volume, the windows' size, and where it lies; neighbouring windows share half of themselves."""

    def __init__(self, folder: Path, patch: int, classes: int = 2) -> None:
        self.folder, self.patch, self.classes = folder, patch, classes

    @cached_property
    def tensor(self) -> torch.Tensor:
        """The normalised volume in memory, float32 (1, I, J, K)."""
        return torch.from_numpy(np.load(self.folder / "input.npy"))

    @property
    def entry(self) -> Entry:
        """The same in a contiguous cache: int16, normalised when it is read."""
        return pf.open_cache(self.folder / "cache")[0]


def prepare(folder: Path, shape: Shape) -> None:
    """A synthetic CT in a cache, and what is read from it as input.npy, so that all see the same values."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    image, _ = write_subjects(folder / "nifti", shape, 1)[0]
    preprocess = pf.Pipeline([pf.preprocess.ZNormalize()])
    cache = pf.build_cache(
        [pf.Subject("case0", image=pf.ScalarImage(image))], folder / "cache", preprocess=preprocess, layout="contiguous", progress=False
    )
    np.save(folder / "input.npy", cache[0].read("image", pf.PatchLocation((0, 0, 0), shape)))
    (folder / "done").touch()


class Timed(nn.Module):
    """A model, the seconds spent in it, and the shapes that it was called with."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seconds = model, 0.0
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        start = time.perf_counter()
        returned: torch.Tensor = self.model(x)
        self.seconds += time.perf_counter() - start
        self.shapes.append(tuple(x.shape))
        return returned

    def reset(self) -> None:
        self.seconds, self.shapes = 0.0, []


class Cheap(nn.Module):
    """Two classes for next to nothing: the image and its negative, in fresh memory as any model's output is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((x, -x), 1)


class Many(nn.Module):
    """Many classes for little: the image, times a number for each."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.linspace(-1, 1, classes).view(1, -1, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weights


class UNet(nn.Module):
    """A modest 3D U-Net (Cicek et al., MICCAI 2016) of 16, 32 and 64 channels, with instance normalisation."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = _block(1, 16), _block(16, 32), _block(32, 64)
        self.pool = nn.MaxPool3d(2)
        self.up2, self.up1 = nn.ConvTranspose3d(64, 32, 2, 2), nn.ConvTranspose3d(32, 16, 2, 2)
        self.join2, self.join1 = _block(64, 32), _block(32, 16)
        self.head = nn.Conv3d(16, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.down1(x)
        middle = self.down2(self.pool(fine))
        middle = self.join2(torch.cat((middle, self.up2(self.bottom(self.pool(middle)))), 1))
        logits: torch.Tensor = self.head(self.join1(torch.cat((fine, self.up1(middle)), 1)))
        return logits


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv3d(channels, after, 3, padding=1), nn.InstanceNorm3d(after), nn.LeakyReLU(inplace=True)]
    return nn.Sequential(*layers)


def model(name: str) -> Timed:
    """By name: "cheap", "unet", or "classes N"."""
    kind, _, number = name.partition(" ")
    return Timed({"cheap": Cheap, "unet": UNet}[kind]() if not number else Many(int(number)))
