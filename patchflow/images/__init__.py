"""Files and arrays to volumes, and volumes to files."""

from patchflow.images.image import Image, LabelMap, ScalarImage
from patchflow.images.volume import Volume
from patchflow.images.write import write_nifti

__all__ = ["Image", "LabelMap", "ScalarImage", "Volume", "write_nifti"]
