"""Stitching in a few lines of NumPy, written without a look at patchflow's own: what predictions are held against."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

PROFILES = {
    "average": lambda n: np.ones(n),
    "hann": lambda n: np.sin(np.pi * (np.arange(n) + 1) / (n + 1)) ** 2,
    "gaussian": lambda n: np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2),
}


def starts_of(n: int, size: int, overlap: int) -> list[int]:
    """First voxels of evenly spread windows."""
    if size >= n:
        return [-((size - n) // 2)]
    steps = int(np.ceil((n - size) / (size - overlap)))
    return [int(np.floor(rank * (n - size) / steps + 0.5)) for rank in range(steps + 1)]


def windows_of(shape: Sequence[int], size: Sequence[int], overlap: Sequence[int]) -> list[tuple[int, ...]]:
    """Where windows start, I slowest."""
    return list(itertools.product(*(starts_of(n, s, o) for n, s, o in zip(shape, size, overlap, strict=True))))


def weights_of(mode: str | Callable, starts: list[int], size: int, n: int) -> dict[int, np.ndarray]:
    """The weights of each window along one axis; "crop" splits overlaps at their middle."""
    if mode != "crop":
        return dict.fromkeys(starts, PROFILES[mode](size) if isinstance(mode, str) else np.asarray(mode(size), float))
    bounds = [-size, *((a + size + b) // 2 for a, b in itertools.pairwise(starts)), n + size]
    voxels = np.arange(size)
    owned = zip(starts, itertools.pairwise(bounds), strict=True)
    return {start: ((start + voxels >= low) & (start + voxels < high)).astype(float) for start, (low, high) in owned}


def stitched(
    volume: np.ndarray, model: Callable[[np.ndarray], np.ndarray], size, overlap, mode="gaussian", wanted=lambda start: True, fill=0.0
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]:
    """The stitched predictions, float64 (C, I, J, K); which voxels are covered; and the starts of the windows predicted."""
    shape, modes = volume.shape[1:], mode if isinstance(mode, tuple) else (mode,) * 3
    margin = max(size)
    padded = np.pad(volume, [(0, 0)] + [(margin, margin)] * 3, constant_values=fill)
    axes = [weights_of(m, starts_of(n, s, o), s, n) for m, n, s, o in zip(modes, shape, size, overlap, strict=True)]
    sums, total, done = None, np.zeros(padded.shape[1:]), []
    for start in windows_of(shape, size, overlap):
        if not wanted(start):
            continue
        done.append(start)
        box = tuple(slice(a + margin, a + margin + s) for a, s in zip(start, size, strict=True))
        weight = np.einsum("i,j,k->ijk", *(axis[a] for axis, a in zip(axes, start, strict=True)))
        prediction = model(padded[(slice(None), *box)])
        sums = np.zeros((len(prediction), *padded.shape[1:])) if sums is None else sums
        sums[(slice(None), *box)] += weight * prediction
        total[box] += weight
    inside = tuple(slice(margin, margin + n) for n in shape)
    sums, total = sums[(slice(None), *inside)], total[inside]
    return np.divide(sums, total, out=np.zeros_like(sums), where=total > 0), total > 0, done


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the first axis."""
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)
