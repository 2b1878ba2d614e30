"""The only place that makes random generators: (seed, epoch, index) -> generator.

A generator is made from a `numpy.random.SeedSequence` whose spawn key holds the purpose, the epoch and the index, so that streams are
independent of one another and of how many workers there are (`seed + index` would repeat streams between epochs).
"""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from patchflow.errors import ArgumentError

_PATCH, _PLAN = 0, 1
_foreign_lock = threading.Lock()


def check_seed(seed: int) -> int:
    """Return `seed` if it is an int of at least 0; raises `ArgumentError` otherwise."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ArgumentError(f"seed must be an int of at least 0, not {seed!r}")
    return int(seed)


def patch_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of patch `index` of `epoch`: it draws the location and the transforms' parameters."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_PATCH, epoch, index))))


def plan_generator(seed: int, epoch: int) -> np.random.Generator:
    """The generator that orders `epoch`."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_PLAN, epoch))))


def generator(seed: int) -> np.random.Generator:
    """A generator for use outside a queue: tests, examples, demonstration data."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(check_seed(seed))))


@contextmanager
def foreign_generators(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and PyTorch for foreign code, and put their states back afterwards.

    Foreign transforms (MONAI, TorchIO, a user's function) draw from global state. One patch at a time may do so in a process: a lock is
    held. Threads other than the caller's must not draw from global state meanwhile, which is why a queue with thread workers refuses
    callables that do not take a generator.
    """
    import torch  # here, so that seeding a generator does not cost the import of torch

    with _foreign_lock:
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])
