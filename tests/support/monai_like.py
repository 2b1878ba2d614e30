"""Small transforms with the interface of MONAI's: random ones hold a state `R`, which `set_random_state` gives them."""

import numpy as np
import torch


class Shift:
    """Adds a normal number to "image", and remembers it."""

    R = np.random.RandomState()

    def __init__(self, std=1.0):
        self.std, self.calls = std, 0

    def set_random_state(self, seed=None, state=None):
        self.R = np.random.RandomState(seed)
        return self

    def __call__(self, data):
        self.calls += 1
        return {**data, "image": data["image"] + float(self.R.normal(0, self.std)) + 100 * (self.calls - 1)}


class Chain:
    """Transforms one after the other, seeded from its own state."""

    def __init__(self, *transforms):
        self.transforms = list(transforms)

    def set_random_state(self, seed=None, state=None):
        self.R = np.random.RandomState(seed)
        for transform in self.transforms:
            if hasattr(transform, "set_random_state"):
                transform.set_random_state(seed=int(self.R.randint(2**32, dtype="uint32")))
        return self

    def __call__(self, data):
        for transform in self.transforms:
            data = transform(data)
        return data


class Holder:
    """Is not random itself, so that seeding does not reach what it holds."""

    def __init__(self, inner):
        self.settings = {"inner": [inner]}

    def __call__(self, data):
        return self.settings["inner"][0](data)


class InPlace:
    """Is seeded without getting a new state."""

    def __init__(self):
        self.R = np.random.RandomState(0)

    def set_random_state(self, seed=None, state=None):
        self.R.seed(seed)
        return self

    def __call__(self, data):
        data["image"] += float(self.R.normal())
        return data


class Globally(Shift):
    """Draws from NumPy's global state besides."""

    def __call__(self, data):
        data = super().__call__(data)
        return {**data, "image": data["image"] + float(np.random.normal()) + float(torch.randn(()))}


class Returns(Shift):
    """Returns what a function makes of the sample."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def __call__(self, data):
        return self.function(data)


class Keyed(Shift):
    """A dictionary transform."""

    def __init__(self, keys, allow_missing_keys=False, **more):
        super().__init__()
        self.keys, self.allow_missing_keys = tuple(keys), allow_missing_keys
        vars(self).update(more)
