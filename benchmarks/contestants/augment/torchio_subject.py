"""TorchIO 1: its transforms on a Subject. The copy that each transform makes of its subject by default is left out: it is handed one."""

import math
from collections.abc import Callable
from typing import Any

from benchmarks.contestants.augment import rows
from benchmarks.contestants.augment.rows import Call, Material, Row

NEEDS = ("torchio",)


def build(row: Row, material: Material) -> Call | None:
    if row.name not in TRANSFORMS:
        return None
    import torchio

    kinds = {"image": torchio.ScalarImage, "label": torchio.LabelMap}

    def fresh() -> Any:
        return torchio.Subject(**{name: kinds[name](tensor=tensor) for name, tensor in material.fresh(row).items()})

    return Call(fresh, TRANSFORMS[row.name](material.size))


def _make(name: str, **settings: Any) -> Callable[[int], Callable[[Any], Any]]:
    def make(size: int) -> Callable[[Any], Any]:
        import torchio

        return getattr(torchio, name)(copy=False, **settings)

    return make


def _elastic(size: int) -> Callable[[Any], Any]:
    points = max(size // rows.CONTROL_SPACING + 3, 7)
    displacement = rows.MAX_DISPLACEMENT * size / 128
    return _make("RandomElasticDeformation", num_control_points=points, max_displacement=displacement)(size)


def _swap(size: int) -> Callable[[Any], Any]:
    return _make("RandomSwap", patch_size=rows.SWAPPED * size // 128, num_iterations=rows.SWAPS)(size)


AFFINE = {"scales": (rows.SCALE,) * 2, "degrees": (rows.DEGREES,) * 2, "isotropic": True, "default_pad_value": 0}
LOG_GAMMA = (math.log(rows.GAMMA),) * 2
TRANSFORMS: dict[str, Callable[[int], Callable[[Any], Any]]] = {
    "flip, image and label": _make("RandomFlip", axes=(0, 1, 2), flip_probability=1),
    "affine, linear, image": _make("RandomAffine", **AFFINE),
    "affine, nearest, label": _make("RandomAffine", **AFFINE),
    "affine, linear image, nearest label": _make("RandomAffine", **AFFINE),
    "affine, cubic, image": _make("RandomAffine", image_interpolation="bspline", **AFFINE),
    "elastic, linear image, nearest label": _elastic,
    "anisotropy": _make("RandomAnisotropy", axes=(2,), downsampling=(rows.DOWNSAMPLING,) * 2),
    "noise, Gaussian": _make("RandomNoise", std=(rows.STD,) * 2),
    "blur": _make("RandomBlur", std=(rows.SIGMA,) * 2),
    "gamma": _make("RandomGamma", log_gamma=LOG_GAMMA),
    "swap": _swap,
    "bias field": _make("RandomBiasField", coefficients=0.5, order=3),
    "motion": _make("RandomMotion", degrees=(5.0, 5.0), translation=(3.0, 3.0), num_transforms=2),
    "ghosting": _make("RandomGhosting", num_ghosts=(4, 4), axes=(1,), intensity=(0.7, 0.7)),
    "spike": _make("RandomSpike", num_spikes=(1, 1), intensity=(2.0, 2.0)),
}
