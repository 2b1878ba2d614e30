"""What each command takes on the command line beside the sections of a configuration, and where it is carried out."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from patchflow.commands.settings import Settings
from patchflow.errors import ArgumentError

Arguments = dict[str, dict[str, Any]]
"""Name of an argument ("folder", or "--strict") to what `add_argument` takes."""


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        help: one line.
        home: the module below `patchflow.commands`, and its function of (options, settings) that returns the exit code. The module is
            imported when the command runs.
        arguments: its own, in order.
        place: puts positional arguments into the sections.
        runs_model: whether `model` and `trainer` are made into objects before it runs.
    """

    help: str
    home: tuple[str, str]
    arguments: Arguments = field(default_factory=dict)
    place: Callable[[Namespace, Settings], None] | None = None
    runs_model: bool = False


def _place_data(options: Namespace, settings: Settings) -> None:
    """FOLDER NAME=PATTERN ..."""
    if options.folder is not None:
        for other in ("table", "bids", "nnunet"):
            setattr(settings.data, other, None)
        settings.data.folder, settings.data.images = options.folder, _pairs(options.images) or settings.data.images


def _place_build(options: Namespace, settings: Settings) -> None:
    """DATA CACHE NAME=PATTERN ..., or without CACHE where the configuration names it."""
    if "=" in (options.cache_folder or ""):
        options.images, options.cache_folder = [options.cache_folder, *options.images], None
    _place_data(options, settings)
    _place_cache(options, settings)


def _place_cache(options: Namespace, settings: Settings) -> None:
    """CACHE"""
    if options.cache_folder is not None:
        settings.cache.folder = options.cache_folder


def _place_show(options: Namespace, settings: Settings) -> None:
    """CACHE RECIPE"""
    _place_cache(options, settings)
    if options.recipe is not None:
        settings.patches.augment = options.recipe


def _place_profile(options: Namespace, settings: Settings) -> None:
    """CACHE: subjects are not looked for then."""
    if options.cache_folder is not None:
        settings.cache.folder, settings.data = options.cache_folder, Settings().data


def _place_export(options: Namespace, settings: Settings) -> None:
    """CACHE FOLDER, or FOLDER alone where the configuration names the cache."""
    if len(options.folders) > 2:
        raise ArgumentError(f"export takes a cache and a folder, not {' '.join(options.folders)}")
    *cache, options.out = options.folders or [None]
    if cache:
        settings.cache.folder = cache[0]


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals and value):
            raise ArgumentError(f"expected NAME=PATTERN, not {text!r}, such as image='*/t1.nii.gz'")
        if name in pairs:
            raise ArgumentError(f"an image is named twice in {' '.join(texts)}: give each name one pattern")
        pairs[name] = value
    return pairs


_CACHE: Arguments = {"cache_folder": {"nargs": "?", "metavar": "CACHE", "help": "the cache's folder (else cache.folder)"}}
_IMAGES: Arguments = {
    "images": {"nargs": "*", "metavar": "NAME=PATTERN", "help": "such as image='*/t1.nii.gz' label='*/seg.nii.gz'; * is the subject's name"}
}
_FOLDER: Arguments = {"folder": {"nargs": "?", "metavar": "FOLDER", "help": "the folder with the subjects (else the section data)"}}
_SUBJECTS: Arguments = {"--subjects": {"nargs": "+", "metavar": "NAME", "help": "these subjects alone"}}
_RESUME: Arguments = {"--ckpt_path": {"metavar": "PATH", "help": "a checkpoint, or last for the newest in trainer.default_root_dir"}}

COMMANDS: dict[str, Command] = {
    "check": Command(
        "look for what is wrong with subjects, before training",
        ("inspection", "check"),
        {
            **_FOLDER,
            **_IMAGES,
            "--strict": {"action": "store_true", "help": "exit with 1 on warnings too"},
            "--json": {"metavar": "FILE", "help": "write the findings as JSON"},
            "--html": {"metavar": "FILE", "help": "write one page with findings, histograms and pictures"},
            "--skip": {"nargs": "+", "default": [], "metavar": "CHECK", "help": "leave these checks out"},
            "--num_workers": {"type": int, "default": 0, "help": "threads that read and check"},
        },
        _place_data,
    ),
    "cache build": Command(
        "preprocess subjects into a cache, or go on with one",
        ("inspection", "cache_build"),
        {**_FOLDER, **_CACHE, **_IMAGES},
        _place_build,
    ),
    "cache info": Command("what a cache holds", ("inspection", "cache_info"), _CACHE, _place_cache),
    "cache verify": Command("compare every block of a cache with its checksum", ("inspection", "cache_verify"), _CACHE, _place_cache),
    "show": Command(
        "draw patches of a cache before and after augmentation into a PNG",
        ("inspection", "show"),
        {
            **_CACHE,
            "recipe": {"nargs": "?", "metavar": "RECIPE", "help": "nnunet, mri, ct or a YAML file (else patches.augment)"},
            "--out": {"default": "sheet.png", "metavar": "PNG", "help": "the picture"},
            **_SUBJECTS,
            "--count": {"type": int, "default": 6, "help": "how many patches"},
            "--image": {"metavar": "NAME", "help": "the image to show (else the first)"},
            "--label": {"metavar": "NAME", "help": "the label map to outline (else the first, if there is one)"},
            "--window": {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH"), "help": "values shown black and white"},
        },
        _place_show,
    ),
    "export": Command(
        "write a cache's preprocessed images as NIfTI",
        ("inspection", "export"),
        {
            "folders": {"nargs": "*", "metavar": "[CACHE] FOLDER", "help": "the cache (else cache.folder), and where files go"},
            **_SUBJECTS,
            "--images": {"nargs": "+", "metavar": "NAME", "help": "these images alone"},
            "--suffix": {"default": ".nii.gz", "choices": [".nii.gz", ".nii"], "help": "of the files"},
            "--overwrite": {"action": "store_true", "help": "replace files that are another's"},
            "--num_workers": {"type": int, "default": 1, "help": "threads, each of which holds a subject"},
        },
        _place_export,
    ),
    "profile": Command(
        "make batches as training would, and say where the time goes",
        ("inspection", "profile"),
        {**_CACHE, "--batches": {"type": int, "default": 50, "help": "how many"}},
        _place_profile,
    ),
    "fit": Command("train", ("training", "fit"), _RESUME, runs_model=True),
    "validate": Command("validate a checkpoint", ("training", "validate"), _RESUME, runs_model=True),
    "predict": Command("predict subjects with what was trained", ("prediction", "predict"), runs_model=True),
    "demo": Command(
        "real data, a trained network and a label map, in minutes and without a download",
        ("demonstration", "demo"),
        {
            "--folder": {"default": "patchflow-demo", "help": "where its files go"},
            "--steps": {"type": int, "help": "training steps of eight patches"},
            "--seed": {"type": int, "default": 0, "help": "of everything random"},
        },
    ),
}
