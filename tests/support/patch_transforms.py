"""Functions that workers started by "spawn" can import."""

import os
import signal
import time

import numpy as np
import torch


def add_uniform(sample, rng):
    return {**sample, "image": sample["image"] + float(rng.random())}


def add_from_global_state(sample):
    return {**sample, "image": sample["image"] + float(np.random.random()) + float(torch.rand(()))}


def nan(sample, rng):
    return {**sample, "image": sample["image"] * float("nan")}


def fail_on_rare(sample, rng):
    if rng.random() < 0.2:
        raise ValueError("no such tissue")
    return sample


def die_on_rare(sample, rng):
    if rng.random() < 0.2:
        os.kill(os.getpid(), signal.SIGKILL)
    return sample


def slow(sample, rng):
    time.sleep(0.01)
    return sample
