"""Deterministic steps on whole volumes, before the cache."""

from patchflow.preprocess.base import GridChange, SpatialStep, Step
from patchflow.preprocess.crops import CropOrPad, CropToForeground, EnsureMultiple, Pad
from patchflow.preprocess.histogram import HistogramStandardize
from patchflow.preprocess.intensity import Clamp, ReplaceNonFinite, Rescale, Window, ZNormalize
from patchflow.preprocess.labels import KeepLargest, OneHotRegions, RemapLabels
from patchflow.preprocess.pipeline import Pipeline, Processed, ProcessedSubject
from patchflow.preprocess.robust import RobustNormalize
from patchflow.preprocess.spatial import Resample, ToCanonical

__all__ = [
    "Clamp",
    "CropOrPad",
    "CropToForeground",
    "EnsureMultiple",
    "GridChange",
    "HistogramStandardize",
    "KeepLargest",
    "OneHotRegions",
    "Pad",
    "Pipeline",
    "Processed",
    "ProcessedSubject",
    "RemapLabels",
    "ReplaceNonFinite",
    "Resample",
    "Rescale",
    "RobustNormalize",
    "SpatialStep",
    "Step",
    "ToCanonical",
    "Window",
    "ZNormalize",
]
