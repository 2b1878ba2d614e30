"""From a model of patches to a prediction of a volume: windows of a grid, stitched, finished and written."""

from patchflow.inference.aggregator import GridAggregator
from patchflow.inference.grid import GridSampler, PatchSource
from patchflow.inference.predict import predict

__all__ = ["GridAggregator", "GridSampler", "PatchSource", "predict"]
