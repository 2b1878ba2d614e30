"""The sections of a configuration. Every command takes all of them, and uses those that it needs; configs/ holds whole examples.

A step, a transform or a sampler is written as its class's name, or its name: {arguments}. Sizes and overlaps are voxels, lengths
millimetres. Paths are relative to the folder in which the command is run.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Size = int | list[int]
"""Voxels along all three axes, or along I, J and K."""

Layout = Literal["auto", "contiguous", "compressed"]


@dataclass(kw_only=True)
class DataSettings:
    """Where subjects are found: one of folder (with images), table, bids and nnunet.

    Args:
        folder: holds the files that the patterns of `images` match.
        table: a CSV or TSV file; `images` gives the column of each image, other columns become metadata.
        bids: a BIDS data set; `images` gives the suffix of each image, with entities before it, such as acq-mprage_T1w.
        nnunet: a raw data set of nnU-Net, with dataset.json.
        images: name to pattern (folder: * is the subject's name, {word} becomes metadata), to column (table), or to suffix (bids).
        label_maps: the images that are label maps; by default those with label, mask or seg in their names.
        name: the table's column of subject names.
        part: of an nnU-Net data set, train or test.
        subjects: these subjects alone; all of them by default.
        classes: label to name, or a list of labels; other labels are errors of `check`. By default what dataset.json declares.
    """

    folder: str | None = None
    table: str | None = None
    bids: str | None = None
    nnunet: str | None = None
    images: dict[str, Any] = field(default_factory=dict)
    label_maps: list[str] | None = None
    name: str = "subject"
    part: Literal["train", "test"] = "train"
    subjects: list[str] | None = None
    classes: dict[int, str] | list[int] | None = None


@dataclass(kw_only=True)
class SplitSettings:
    """Who trains and who validates: one of held_out, folds, column and file; without any, all train and nobody validates.

    Args:
        held_out: the subjects that validate; all others train.
        folds: the number of seeded folds, of which `fold` validates.
        column: a piece of metadata whose values are train, val and test.
        file: splits in a file as nnU-Net's splits_final.json, of which `fold` is taken.
        fold: which fold validates, from 0.
        seed: of the folds.
        group: a piece of metadata; subjects that share it stay together (a patient's visits).
        stratify: a piece of metadata; each fold gets its share of every value (a diagnosis).
    """

    held_out: list[str] | None = None
    folds: int | None = None
    column: str | None = None
    file: str | None = None
    fold: int = 0
    seed: int = 0
    group: str | None = None
    stratify: str | None = None


@dataclass(kw_only=True)
class CacheSettings:
    """Where preprocessed subjects are kept.

    Args:
        folder: of the cache; a build goes on with what is there.
        layout: contiguous (fastest), compressed (smaller), or auto by size against memory.
        num_workers: processes that build; 0 for none beside this one.
    """

    folder: str | None = None
    layout: Layout = "auto"
    num_workers: int = 0


@dataclass(kw_only=True)
class PatchSettings:
    """How patches are drawn and made.

    Args:
        size: voxels of a patch, one number or three.
        sampler: where patches lie, such as LabelSampler: {label: label, probabilities: {0: 1, 1: 2}}; by default UniformSampler.
        augment: nnunet, mri, ct, the path of a recipe's YAML file, or a recipe: {transforms: [...]}; none by default.
        augment_on: worker, or device for augmentation on the Trainer's device.
        samples_per_volume: patches per subject and epoch.
        batch_size: patches per batch.
        num_workers: threads or processes that make patches; 0 for none.
        worker_kind: thread or process.
        seed: of everything random.
        keys: the images in a batch; all by default.
        overlap: voxels that windows of the validation grid share.
        more: any other argument of patchflow.PatchDataModule.
    """

    size: Size = 96
    sampler: Any = "UniformSampler"
    augment: Any = None
    augment_on: Literal["worker", "device"] = "worker"
    samples_per_volume: int = 8
    batch_size: int = 2
    num_workers: int = 1
    worker_kind: Literal["thread", "process"] = "thread"
    seed: int = 0
    keys: list[str] | None = None
    overlap: Size = 0
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class PredictionSettings:
    """Whom to predict, with which weights, and into which folder.

    Args:
        data: other subjects than those that `data` describes, in the same way; they need no labels.
        part: of the split, those to predict: all, train, val or test. Other subjects (`prediction.data`) are in no part: all of them.
        checkpoints: weights, several for an ensemble; by default the last that `fit` left.
        folder: gets NAME.nii.gz and NAME.json; subjects that have both are not predicted again.
        suffix: .nii.gz, .nii or .h5.
        grid: native for the voxels of the subject's files, or processed for those after preprocessing.
        patch_size: voxels of a window; by default patches.size.
        patch_overlap: voxels that windows share; half of the window by default.
        overlap_mode: crop, average, hann or gaussian.
        output: labels, probabilities or logits.
        mirror_axes: each window is predicted mirrored along these axes too.
        batch_size: windows at a time.
        device: such as cuda or cpu; by default the GPU, if there is one.
        label_names: label to name, kept in NAME.json; by default data.classes.
        more: any other argument of patchflow.predict.
    """

    data: DataSettings | None = None
    part: Literal["all", "train", "val", "test"] = "all"
    checkpoints: list[str] | None = None
    folder: str = "predictions"
    suffix: Literal[".nii.gz", ".nii", ".h5"] = ".nii.gz"
    grid: Literal["native", "processed"] = "native"
    patch_size: Size | None = None
    patch_overlap: Size | None = None
    overlap_mode: Literal["crop", "average", "hann", "gaussian"] = "gaussian"
    output: Literal["labels", "probabilities", "logits"] = "labels"
    mirror_axes: list[int] = field(default_factory=list)
    batch_size: int = 1
    device: str | None = None
    label_names: dict[int, str] | None = None
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Settings:
    """All sections. `model` is a class and its arguments, and `trainer` holds those of lightning.Trainer."""

    data: DataSettings = field(default_factory=DataSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    preprocess: list[Any] | str = field(default_factory=list)
    cache: CacheSettings = field(default_factory=CacheSettings)
    patches: PatchSettings = field(default_factory=PatchSettings)
    model: Any = None
    trainer: Any = None
    prediction: PredictionSettings = field(default_factory=PredictionSettings)
