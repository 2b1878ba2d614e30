"""Subjects and labels of a raw data set in the format of nnU-Net v2.

F. Isensee et al., Nature Methods 18:203 (2021); the format is described at
https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from patchflow.errors import ArgumentError, SubjectError
from patchflow.images.image import LabelMap, ScalarImage
from patchflow.subjects.gather import listed
from patchflow.subjects.subject import Subject

_FILE = "dataset.json"
_IGNORE = "ignore"
_FOLDERS = {"train": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set says of its images and labels.

    Attributes:
        name: of the data set.
        channels: the names of the image's channels, in order.
        label_names: label value to name, of the labels that have one: `patchflow.predict(label_names=)` takes it. Background is 0.
        labels: every value that a label map may hold, `ignore_label` included.
        regions: region name to the label values that it is made of, in the order of the model's outputs; empty where labels are learnt.
        region_labels: for each region, the value that stands for it when predicted regions are put into one label map, later ones over
            earlier ones (nnU-Net's regions_class_order).
        ignore_label: the value of voxels that count for nothing, or None.
        file_ending: of images and label maps.
        training_cases: how many there are.
    """

    name: str
    channels: tuple[str, ...]
    label_names: Mapping[int, str]
    labels: tuple[int, ...]
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    region_labels: tuple[int, ...] = ()
    ignore_label: int | None = None
    file_ending: str = ".nii.gz"
    training_cases: int | None = None


def read_dataset_info(folder: str | Path) -> DatasetInfo:
    """What dataset.json says, in a raw data set's folder.

    Raises:
        SubjectError: for a file that is not there, no JSON, of version 1 of the format, or that says something that cannot be used.
    """
    return _info(_read(Path(folder)), Path(folder))


def subjects_from_nnunet(
    folder: str | Path, part: Literal["train", "test"] = "train", *, image: str = "image", label: str = "label"
) -> list[Subject]:
    """The subjects of a raw data set: imagesTr/CASE_0000.nii.gz, ... and labelsTr/CASE.nii.gz.

    Args:
        folder: holds dataset.json; see `read_dataset_info`.
        part: "train" for imagesTr and labelsTr; "test" for imagesTs, with labelsTs where that folder is there.
        image: what the image is called. Its channels are those of dataset.json, in their order, each in a file of its own;
            nnU-Net normalises MR channels each by itself, as `ZNormalize(per_channel=True)` does.
        label: what the label map is called.

    Returns:
        Subjects sorted by name. No image is opened.

    Raises:
        ArgumentError: for another part, or one name for the image and the label map.
        SubjectError: for a dataset.json that cannot be used, a case that lacks a channel or its labels, labels without a case, another
            number of training cases than declared, or a file in the folder of images that has no channel number.
    """
    if part not in _FOLDERS:
        raise ArgumentError(f'part must be "train" or "test", not {part!r}')
    root = Path(folder)
    content = _read(root)
    info = _info(content, root)
    if label == image:
        raise ArgumentError(f"the label map cannot be called {label!r}, as the image is: give it another name")
    declared = part == "train" and "dataset" in content
    cases = _declared(root, content["dataset"], len(info.channels)) if declared else _listed(root, part, info)
    if part == "train" and info.training_cases not in (None, len(cases)):
        raise SubjectError(f"{root / _FILE} declares {info.training_cases} training cases, and there are {len(cases)}: mend numTraining")
    return [
        Subject(name, **{image: ScalarImage(files)}, **({} if truth is None else {label: LabelMap(truth)}))
        for name, (files, truth) in sorted(cases.items())
    ]


_Cases = dict[str, tuple[list[Path], Path | None]]


def _listed(root: Path, part: str, info: DatasetInfo) -> _Cases:
    """The cases that stand in the folders of a part."""
    images, labels = (root / name for name in _FOLDERS[part])
    if not images.is_dir():
        raise SubjectError(f"{images} is not there: a raw data set of nnU-Net keeps its images in it")
    channels: dict[str, dict[int, Path]] = {}
    for name, path in _files(images, info.file_ending).items():
        match = re.fullmatch(r"(.+)_(\d{4})", name)
        if match is None or int(match[2]) >= len(info.channels):
            numbers = ", ".join(f"_{number:04d}" for number in range(len(info.channels)))
            raise SubjectError(
                f"{path} is no image of a case: before the ending stands one of {numbers}, for {info.channels}: rename or remove it"
            )
        channels.setdefault(match[1], {})[int(match[2])] = path
    if not channels:
        raise SubjectError(
            f"{images} holds no file that ends in {info.file_ending!r}, as {_FILE} says: mend file_ending, or add the images"
        )
    lacking = [
        f"{name!r} lacks channel {number} ({images / f'{name}_{number:04d}{info.file_ending}'})"
        for name, found in sorted(channels.items())
        for number in range(len(info.channels))
        if number not in found
    ]
    truths = _files(labels, info.file_ending) if part == "train" or labels.is_dir() else None
    if truths is not None:
        lacking += [f"{name!r} lacks its labels ({labels / (name + info.file_ending)})" for name in sorted(channels) if name not in truths]
        lacking += [f"{path} is of no case in {images}" for name, path in sorted(truths.items()) if name not in channels]
    if lacking:
        raise SubjectError(f"{len(lacking)} files are missing or belong to no case: {listed(lacking)}: add, rename or remove them")
    return {name: ([found[number] for number in sorted(found)], truths[name] if truths else None) for name, found in channels.items()}


def _files(folder: Path, ending: str) -> dict[str, Path]:
    """The files with the ending, in any case, by their names without it."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.lower().endswith(ending.lower()) and not path.name.startswith("."):
            if not path.exists():
                raise SubjectError(f"{path} is a link to {path.readlink()}, which is not there: mend or remove it")
            if path.name[: -len(ending)] in found:
                raise SubjectError(f"{path} and {found[path.name[: -len(ending)]].name} are files of one name: remove one")
            found[path.name[: -len(ending)]] = path
    return found


def _declared(root: Path, dataset: Any, channels: int) -> _Cases:
    """The cases that dataset.json lists itself, relative to its folder; environment variables stand for their values."""
    cases: _Cases = {}
    missing = []
    for name, case in dataset.items() if isinstance(dataset, dict) else ():
        try:
            *files, truth = (root / os.path.expandvars(text) for text in (*case["images"], case["label"]))
        except (TypeError, KeyError, ValueError) as error:
            raise SubjectError(f"{root / _FILE}: dataset[{name!r}] must hold a list of images and a label, not {case!r:.200}") from error
        if len(files) != channels:
            raise SubjectError(f"{root / _FILE}: dataset[{name!r}] has {len(files)} images, and there are {channels} channels")
        missing += [f"{name!r}: {path}" for path in (*files, truth) if not path.is_file()]
        cases[name] = files, truth
    if missing or not cases:
        raise SubjectError(f"{root / _FILE}: {len(missing)} files of {len(cases)} cases are not there: {listed(missing)}: mend dataset")
    return cases


def _read(root: Path) -> dict[str, Any]:
    path = root / _FILE
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise SubjectError(f"{path} cannot be read ({error.strerror}): a raw data set of nnU-Net has it") from error
    except ValueError as error:
        raise SubjectError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise SubjectError(f"{path} must hold an object, not {content!r:.80}")
    return content


def _info(content: Mapping[str, Any], root: Path) -> DatasetInfo:
    path = root / _FILE
    labels = _mapping(content, "labels", path)
    if "background" not in labels and all(str(key).isdecimal() for key in labels):
        raise SubjectError(
            f"{path} is in the format of nnU-Net v1 or the Medical Segmentation Decathlon (labels from values to names): convert the data "
            "set to v2, or use pf.find_subjects"
        )
    channels = _channels(content, path)
    parts = {name: _values(value, name, path) for name, value in labels.items()}
    ignore = _single(parts.pop(_IGNORE, None), _IGNORE, path)
    if parts.get("background") != (0,):
        raise SubjectError(f"{path}: labels must have background, which is 0, not {labels.get('background')!r}")
    values = sorted({value for part in parts.values() for value in part})
    if ignore is not None and ignore <= values[-1]:
        raise SubjectError(f"{path}: the ignore label must be the highest, {values[-1] + 1}, not {ignore}")
    by_regions = any(len(part) > 1 for part in parts.values())
    regions = {name: part for name, part in parts.items() if set(part) != {0}} if by_regions else {}
    order = tuple(content.get("regions_class_order") or ()) if by_regions else ()
    if len(order) != len(regions) or not set(order) <= set(values):
        raise SubjectError(
            f"{path}: regions_class_order must give one of the labels {values} for each of {list(regions)}, not {list(order)}"
        )
    count, ending = content.get("numTraining"), content.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise SubjectError(f"{path}: file_ending must be text such as '.nii.gz', not {ending!r}")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
        raise SubjectError(f"{path}: numTraining must be an int, not {count!r}")
    return DatasetInfo(
        str(content.get("name", root.absolute().name)),
        channels,
        {part[0]: name for name, part in parts.items() if len(part) == 1},
        tuple(values if ignore is None else [*values, ignore]),
        regions,
        order,
        ignore,
        ending,
        count,
    )


def _channels(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    named = _mapping(content, "channel_names" if "channel_names" in content else "modality", path)
    if sorted(named) != sorted(str(number) for number in range(len(named))):
        raise SubjectError(f"{path}: channel_names must be numbered from '0' on, not {list(named)}")
    return tuple(str(named[str(number)]) for number in range(len(named)))


def _mapping(content: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    value = content.get(key)
    if not isinstance(value, dict) or not value:
        raise SubjectError(f"{path}: {key} must be an object that is not empty, not {value!r:.80}")
    return value


def _values(value: Any, name: str, path: Path) -> tuple[int, ...]:
    """The label values of a label or region."""
    parts = value if isinstance(value, list) and value else [value]
    try:
        numbers = tuple(int(part) for part in parts if not isinstance(part, (bool, float)))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != len(parts) or min(numbers) < 0:
        raise SubjectError(f"{path}: label {name!r} must be an int of at least 0 or a list of those, not {value!r}")
    return numbers


def _single(values: tuple[int, ...] | None, name: str, path: Path) -> int | None:
    if values is not None and len(values) != 1:
        raise SubjectError(f"{path}: label {name!r} must be one int, not {list(values)}")
    return None if values is None else values[0]
