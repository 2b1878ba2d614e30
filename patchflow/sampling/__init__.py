"""Samplers: (entry, generator) -> location. They never touch pixels."""

from patchflow.sampling.base import Sampler
from patchflow.sampling.label import LabelSampler
from patchflow.sampling.mixed import MixedSampler
from patchflow.sampling.uniform import UniformSampler
from patchflow.sampling.weighted import WeightedSampler

__all__ = ["LabelSampler", "MixedSampler", "Sampler", "UniformSampler", "WeightedSampler"]
