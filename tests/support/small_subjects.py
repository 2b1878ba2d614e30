"""Small random subjects that several test files share."""

import numpy as np

import patchflow as pf
from patchflow import seeding


def make_subjects(count=4, seed=0):
    """Subjects of different shapes: an int16 image of two channels and a label map with the classes 0, 1 and 2, 2 being rare."""
    rng = seeding.generator(seed)
    subjects = []
    for number in range(count):
        shape = (14 + number, 17, 12 + 2 * number)
        label = (rng.random(shape) < 0.2).astype(np.uint8)
        label[3, 4, 5] = 2
        image = rng.integers(-500, 1500, (2, *shape)).astype(np.int16)
        subjects.append(pf.Subject(f"s{number}", image=pf.ScalarImage(image), label=pf.LabelMap(label), age=50 + number))
    return subjects
