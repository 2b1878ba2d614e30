"""Subjects in HDF5, read as memory."""

from patchflow.cache.build import build_cache
from patchflow.cache.entry import Entry
from patchflow.cache.index import LabelIndex, WeightIndex
from patchflow.cache.read import Cache, open_cache
from patchflow.cache.records import ImageRecord, Statistics
from patchflow.cache.verify import Finding

__all__ = ["Cache", "Entry", "Finding", "ImageRecord", "LabelIndex", "Statistics", "WeightIndex", "build_cache", "open_cache"]
