"""From a model of patches to a prediction of a volume: windows of a grid, stitched, finished and written."""

from patchflow.inference.aggregator import GridAggregator
from patchflow.inference.grid import GridSampler
from patchflow.inference.predict import predict
from patchflow.inference.sources import PatchSource
from patchflow.inference.subjects import predict_subjects

__all__ = ["GridAggregator", "GridSampler", "PatchSource", "predict", "predict_subjects"]
