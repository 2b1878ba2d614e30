"""Deterministic steps on whole volumes, before the cache."""

from patchflow.preprocess.base import Step
from patchflow.preprocess.intensity import Clamp, ReplaceNonFinite, Rescale, Window, ZNormalize
from patchflow.preprocess.pipeline import Pipeline

__all__ = ["Clamp", "Pipeline", "ReplaceNonFinite", "Rescale", "Step", "Window", "ZNormalize"]
