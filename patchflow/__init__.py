"""patchflow feeds 3D medical images to neural networks: cached subjects, streams of augmented patches, stitched predictions.

    import patchflow as pf

    subjects = pf.find_subjects("data", image="*/image.nii.gz", label="*/label.nii.gz")
    cache = pf.build_cache(subjects, "cache", preprocess=pf.Pipeline([pf.preprocess.ZNormalize()]))
    queue = pf.Queue(cache, pf.LabelSampler(96, label="label"), batch_size=2, num_workers=2)
    for batch in queue:
        batch["image"], batch["label"]  # tensors (B, C, I, J, K)

Names are imported where they are first used, so that `import patchflow` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from patchflow.errors import (
    ArgumentError,
    CacheDamagedError,
    CacheError,
    CacheFormatError,
    ImageError,
    ImageFileError,
    InferenceError,
    MemoryBudgetError,
    PatchflowError,
    SamplerError,
    SubjectError,
    TransformError,
    UnknownNameError,
    WorkerError,
)

if TYPE_CHECKING:  # what type checkers and editors see; `_HOMES` says the same to the interpreter, and a test holds the two together
    from patchflow import augment, preprocess, quality, sampling, show, testing
    from patchflow.adapters.monai import from_monai
    from patchflow.adapters.torchio import from_torchio
    from patchflow.augment.recipe import Recipe
    from patchflow.cache.build import build_cache
    from patchflow.cache.export import export
    from patchflow.cache.read import Cache, open_cache
    from patchflow.callbacks import PredictionWriter, WholeVolumeDice
    from patchflow.datamodule import PatchDataModule
    from patchflow.geometry.location import PatchLocation
    from patchflow.images.image import LabelMap, ScalarImage
    from patchflow.inference.aggregator import GridAggregator
    from patchflow.inference.grid import GridSampler
    from patchflow.inference.predict import predict
    from patchflow.inference.subjects import predict_subjects
    from patchflow.loading.queue import Queue
    from patchflow.preprocess.pipeline import Pipeline
    from patchflow.quality import Report, check_subjects
    from patchflow.sampling.base import Sampler
    from patchflow.sampling.label import LabelSampler
    from patchflow.sampling.mixed import MixedSampler
    from patchflow.sampling.uniform import UniformSampler
    from patchflow.sampling.weighted import WeightedSampler
    from patchflow.subjects import (
        DatasetInfo,
        Split,
        Subject,
        find_subjects,
        folds_by_column,
        k_fold,
        read_dataset_info,
        read_splits,
        split_by_column,
        subjects_from_bids,
        subjects_from_nnunet,
        subjects_from_table,
        write_splits,
    )

__all__ = [
    "ArgumentError",
    "Cache",
    "CacheDamagedError",
    "CacheError",
    "CacheFormatError",
    "DatasetInfo",
    "GridAggregator",
    "GridSampler",
    "ImageError",
    "ImageFileError",
    "InferenceError",
    "LabelMap",
    "LabelSampler",
    "MemoryBudgetError",
    "MixedSampler",
    "PatchDataModule",
    "PatchLocation",
    "PatchflowError",
    "Pipeline",
    "PredictionWriter",
    "Queue",
    "Recipe",
    "Report",
    "Sampler",
    "SamplerError",
    "ScalarImage",
    "Split",
    "Subject",
    "SubjectError",
    "TransformError",
    "UniformSampler",
    "UnknownNameError",
    "WeightedSampler",
    "WholeVolumeDice",
    "WorkerError",
    "augment",
    "build_cache",
    "check_subjects",
    "export",
    "find_subjects",
    "folds_by_column",
    "from_monai",
    "from_torchio",
    "k_fold",
    "open_cache",
    "predict",
    "predict_subjects",
    "preprocess",
    "quality",
    "read_dataset_info",
    "read_splits",
    "sampling",
    "show",
    "split_by_column",
    "subjects_from_bids",
    "subjects_from_nnunet",
    "subjects_from_table",
    "testing",
    "write_splits",
]

_HOMES = {
    "Cache": "patchflow.cache.read",
    "DatasetInfo": "patchflow.subjects",
    "GridAggregator": "patchflow.inference.aggregator",
    "GridSampler": "patchflow.inference.grid",
    "LabelMap": "patchflow.images.image",
    "LabelSampler": "patchflow.sampling.label",
    "MixedSampler": "patchflow.sampling.mixed",
    "PatchDataModule": "patchflow.datamodule",
    "PatchLocation": "patchflow.geometry.location",
    "Pipeline": "patchflow.preprocess.pipeline",
    "PredictionWriter": "patchflow.callbacks",
    "Queue": "patchflow.loading.queue",
    "Recipe": "patchflow.augment.recipe",
    "Report": "patchflow.quality",
    "Sampler": "patchflow.sampling.base",
    "ScalarImage": "patchflow.images.image",
    "Split": "patchflow.subjects",
    "Subject": "patchflow.subjects",
    "UniformSampler": "patchflow.sampling.uniform",
    "WeightedSampler": "patchflow.sampling.weighted",
    "WholeVolumeDice": "patchflow.callbacks",
    "build_cache": "patchflow.cache.build",
    "check_subjects": "patchflow.quality",
    "export": "patchflow.cache.export",
    "find_subjects": "patchflow.subjects",
    "folds_by_column": "patchflow.subjects",
    "from_monai": "patchflow.adapters.monai",
    "from_torchio": "patchflow.adapters.torchio",
    "k_fold": "patchflow.subjects",
    "open_cache": "patchflow.cache.read",
    "predict": "patchflow.inference.predict",
    "predict_subjects": "patchflow.inference.subjects",
    "read_dataset_info": "patchflow.subjects",
    "read_splits": "patchflow.subjects",
    "split_by_column": "patchflow.subjects",
    "subjects_from_bids": "patchflow.subjects",
    "subjects_from_nnunet": "patchflow.subjects",
    "subjects_from_table": "patchflow.subjects",
    "write_splits": "patchflow.subjects",
}
_ROOMS = ("augment", "preprocess", "quality", "sampling", "show", "testing")


if not TYPE_CHECKING:  # type checkers would take it that every name exists

    def __getattr__(name: str) -> Any:
        if name in _ROOMS:
            return import_module(f"patchflow.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module 'patchflow' has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value  # the next look-up does not come here
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
