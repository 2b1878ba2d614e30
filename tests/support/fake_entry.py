"""A subject in memory with the methods of a cache's entry."""

from types import SimpleNamespace

import numpy as np

from patchflow.kernels.pointwise import IntensityMap, apply_map


class FakeEntry:
    """Like a cache's entry in the contiguous layout: `region` gives read-only views of the stored voxels."""

    def __init__(self, images, labels, spacing=(1.0, 1.0, 1.0), maps=None, name="s1"):
        self.name, self.spacing = name, np.asarray(spacing, np.float64)
        self.affine = np.diag([*spacing, 1.0])
        self._stored = {**images, **labels}
        self.shape = next(iter(self._stored.values())).shape[1:]
        self.images = {}
        for key, array in self._stored.items():
            array.flags.writeable = False
            intensities = (maps or {}).get(key, IntensityMap())
            scalar = key in images
            values = apply_map(array, intensities) if scalar else array
            self.images[key] = SimpleNamespace(
                kind="scalar" if scalar else "label",
                channels=array.shape[0],
                shape=array.shape,
                dtype=np.dtype(np.float32) if scalar else array.dtype,
                map=intensities,
                statistics=_statistics(values) if scalar else None,
            )

    def read(self, name, location, *, out=None, fill=0):
        info = self.images[name]
        if out is None:
            out = np.empty((info.channels, *location.size), info.dtype)
        out[...] = fill
        overlap = location.overlap(self.shape)
        if overlap is not None:
            stored = self._stored[name][(slice(None), *overlap.volume)]
            out[(slice(None), *overlap.patch)] = apply_map(stored, info.map) if info.kind == "scalar" else stored
        return out

    def region(self, name, start, stop):
        assert all(0 <= a < b <= n for a, b, n in zip(start, stop, self.shape, strict=True))
        return self._stored[name][(slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))]


def _statistics(values):
    parts = {"minimum": values.min(), "maximum": values.max(), "mean": values.mean(dtype=np.float64), "std": values.std(dtype=np.float64)}
    return SimpleNamespace(**{name: float(value) for name, value in parts.items()})


def make_entry(shape, seed=0, dtype="int16", channels=1, spacing=(1.0, 1.0, 1.0), intensities=None):
    """An entry with the images "image" and "label"."""
    rng = np.random.default_rng(seed)
    top = 120 if np.dtype(dtype).kind in "ui" and np.dtype(dtype).itemsize == 1 else 1000
    image = rng.uniform(0, top, (channels, *shape)).astype(dtype)
    label = rng.integers(0, 5, (1, *shape)).astype(np.uint8)
    return FakeEntry({"image": image}, {"label": label}, spacing, {"image": intensities or IntensityMap(0.01, -3.0)})
