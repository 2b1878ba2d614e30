"""torch itself: `affine_grid` and `grid_sample`, the region in memory as float32, one interpolation."""

import math

import torch

from benchmarks.contestants.augment import rows
from benchmarks.contestants.augment.rows import Call, Material, Row

NEEDS = ("torch",)
MODES = {"affine, linear, against torch": "bilinear", "affine, nearest, against torch": "nearest"}


def build(row: Row, material: Material) -> Call | None:
    if row.name not in MODES:
        return None
    mode, shape = MODES[row.name], (1, 1, *(material.size,) * 3)
    theta = torch.cat([_rotation() / rows.SCALE, torch.zeros(3, 1)], dim=1)[None]

    def run(patch: torch.Tensor) -> torch.Tensor:
        grid = torch.nn.functional.affine_grid(theta, shape, align_corners=False)
        return torch.nn.functional.grid_sample(patch, grid, mode=mode, padding_mode="zeros", align_corners=False)

    return Call(lambda: material.fresh(row)["image"][None], run)


def _rotation() -> torch.Tensor:
    c, s = math.cos(math.radians(rows.DEGREES)), math.sin(math.radians(rows.DEGREES))
    about_x = torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]])
    about_y = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    about_z = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
