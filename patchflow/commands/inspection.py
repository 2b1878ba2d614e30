"""Commands that look at subjects and caches: check, show, profile, export, and cache build, info and verify."""

import sys
from argparse import Namespace
from itertools import islice

from patchflow import show as drawing
from patchflow.cache.export import export as export_images
from patchflow.commands.data import build, chosen, classes, find, opened
from patchflow.commands.recipes import recipe_of
from patchflow.commands.settings import Settings
from patchflow.errors import ArgumentError
from patchflow.loading.queue import Queue
from patchflow.quality import run_check
from patchflow.sampling.config import sampler_from
from patchflow.types import count, int3


def check(options: Namespace, settings: Settings) -> int:
    """Check subjects, print what was found; 1 for errors (with --strict for warnings too)."""
    report = run_check(
        find(settings.data, guess=True),
        json=options.json,
        html=options.html,
        classes=classes(settings.data),
        skip=options.skip,
        num_workers=options.num_workers,
        progress=sys.stderr.isatty(),
    )
    print(report)
    return report.exit_code(options.strict)


def cache_build(options: Namespace, settings: Settings) -> int:
    """Build a cache, or go on with one."""
    print(build(settings, progress=sys.stderr.isatty()))
    return 0


def cache_info(options: Namespace, settings: Settings) -> int:
    """Say what a cache holds."""
    print(opened(settings.cache))
    return 0


def cache_verify(options: Namespace, settings: Settings) -> int:
    """Compare every block with its checksum; 1 for damage."""
    cache = opened(settings.cache)
    findings = cache.verify()
    for finding in findings:
        print(finding)
    damaged = len({finding.subject for finding in findings})
    if not damaged:
        print(f"{len(cache)} entries, every block as it was written")
        return 0
    print(f"{len(cache)} entries, {damaged} damaged: delete their files below {cache.folder} and build the cache again; others are kept")
    return 1


def show(options: Namespace, settings: Settings) -> int:
    """Draw patches before and after augmentation into a PNG."""
    cache, patches = opened(settings.cache), settings.patches
    if options.subjects:
        cache = cache.subset(options.subjects)
    number, size = count(options.count, "--count", 1), int3(patches.size, "patches.size")
    image, label = drawing.chosen_names(cache[0].images, options.image, options.label)
    queue = Queue(
        cache,
        drawing.foreground_sampler(cache, size, label),
        samples_per_volume=-(-number // len(cache)),
        transform=recipe_of(patches),
        seed=patches.seed,
        shuffle=False,
        keys=[image] if label is None else [image, label],
    )
    name = patches.augment if isinstance(patches.augment, str) else "of the configuration"
    title = f"{cache.folder.name}, {'no augmentation' if patches.augment is None else f'recipe {name}'}, seed {patches.seed}"
    drawing.sheet(queue, options.out, number=number, image=image, label=label, window=options.window, title=title)
    print(f"{options.out}: {number} patch{'es' if number > 1 else ''}")
    return 0


def profile(options: Namespace, settings: Settings) -> int:
    """Make batches as training would, as fast as they come, and say where the time goes."""
    patches, batches = settings.patches, count(options.batches, "--batches", 1)
    cache = build(settings, progress=sys.stderr.isatty())
    queue = Queue(
        cache,
        sampler_from(patches.sampler, patches.size),
        samples_per_volume=-(-batches * patches.batch_size // len(cache)),
        batch_size=patches.batch_size,
        transform=recipe_of(patches),
        num_workers=patches.num_workers,
        worker_kind=patches.worker_kind,
        seed=patches.seed,
        keys=patches.keys,
    )
    for _ in islice(queue, batches):
        pass
    print(queue.stats())
    return 0


def export(options: Namespace, settings: Settings) -> int:
    """Write the entries of a cache as NIfTI."""
    if options.out is None:
        raise ArgumentError("it is not said where to: patchflow export CACHE FOLDER")
    cache = opened(settings.cache)
    entries = chosen(list(cache), options.subjects) if options.subjects else cache
    files = export_images(
        entries,
        options.out,
        images=options.images,
        suffix=options.suffix,
        overwrite=options.overwrite,
        num_workers=options.num_workers,
        progress=sys.stderr.isatty(),
    )
    for paths in files.values():
        for path in paths.values():
            print(path)
    return 0
