"""Subjects, and where they come from: folders, tables, BIDS and nnU-Net data sets; and who trains and who validates."""

from patchflow.subjects.bids import subjects_from_bids
from patchflow.subjects.folders import find_subjects
from patchflow.subjects.folds import k_fold
from patchflow.subjects.guess import guess_subjects
from patchflow.subjects.nnunet import DatasetInfo, read_dataset_info, subjects_from_nnunet
from patchflow.subjects.splits import Split, folds_by_column, read_splits, split_by_column, write_splits
from patchflow.subjects.subject import Subject
from patchflow.subjects.tables import subjects_from_table

__all__ = [
    "DatasetInfo",
    "Split",
    "Subject",
    "find_subjects",
    "folds_by_column",
    "guess_subjects",
    "k_fold",
    "read_dataset_info",
    "read_splits",
    "split_by_column",
    "subjects_from_bids",
    "subjects_from_nnunet",
    "subjects_from_table",
    "write_splits",
]
