"""The command line: `patchflow demo`, `patchflow show`, `patchflow predict` and `patchflow cache build|info|verify`.

An error that patchflow raises on purpose is one line on stderr and exit code 2; `--debug` shows the traceback.
"""

import argparse
import sys
from collections.abc import Sequence

from patchflow import show
from patchflow.augment.config import load_recipe
from patchflow.cache.build import build_cache
from patchflow.cache.read import open_cache
from patchflow.errors import ArgumentError, PatchflowError
from patchflow.inference.config import predict_as_configured
from patchflow.loading.queue import Queue
from patchflow.preprocess.config import step_from
from patchflow.preprocess.pipeline import Pipeline
from patchflow.subjects import find_subjects
from patchflow.types import count, int3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 where `verify` found damage, 2 for an error."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except PatchflowError as error:
        if options.debug:
            raise
        print(f"patchflow: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("patchflow: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(prog="patchflow", description="Feeds 3D medical images to neural networks.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo", parents=[common], help="real data, a trained network and a label map, in minutes and without a download"
    )
    demo.add_argument("--folder", default="patchflow-demo", help="where its files go (default: %(default)s)")
    demo.add_argument("--steps", type=int, default=None, help="training steps of eight patches")
    demo.add_argument("--seed", type=int, default=0)
    demo.set_defaults(run=_demo)

    drawing = commands.add_parser("show", parents=[common], help="draw patches of a cache before and after a recipe into a PNG")
    drawing.add_argument("cache", help="the cache's folder")
    drawing.add_argument("recipe", nargs="?", help="nnunet, mri, ct or a YAML file (default: no augmentation)")
    drawing.add_argument("--out", default="sheet.png", help="the PNG (default: %(default)s)")
    drawing.add_argument("--subjects", nargs="+", metavar="NAME", help="of these subjects alone")
    drawing.add_argument("--count", type=int, default=6, help="how many patches (default: %(default)s)")
    drawing.add_argument("--seed", type=int, default=0)
    drawing.add_argument("--patch-size", type=int, nargs="+", default=[96], metavar="VOXELS", help="one number or three (default: 96)")
    drawing.add_argument("--image", metavar="NAME", help="the image to show (default: the first)")
    drawing.add_argument("--label", metavar="NAME", help="the label map to outline (default: the first, if there is one)")
    drawing.add_argument("--window", type=float, nargs=2, metavar=("LOW", "HIGH"), help="values shown black and white")
    drawing.set_defaults(run=_show)

    predicting = commands.add_parser("predict", parents=[common], help="predict the subjects of a folder or a cache, as a YAML file says")
    predicting.add_argument("config", help="the YAML file, such as configs/predict.yaml, which explains what it may hold")
    predicting.set_defaults(run=_predict)

    cache = commands.add_parser("cache", help="build, describe or check a cache").add_subparsers(required=True, metavar="COMMAND")
    build = cache.add_parser("build", parents=[common], help="build a cache of the subjects in a folder, or go on with one")
    build.add_argument("data", help="the folder with the images")
    build.add_argument("cache", help="the cache's folder")
    build.add_argument(
        "images", nargs="+", metavar="NAME=PATTERN", help="such as image='*/t1.nii.gz' label='*/seg.nii.gz'; * is the subject"
    )
    build.add_argument(
        "--preprocess", nargs="+", default=[], metavar="STEP", help="such as ZNormalize or 'Window(center=40, width=400)', in this order"
    )
    build.add_argument("--layout", default="auto", choices=("auto", "contiguous", "compressed"))
    build.add_argument("--workers", type=int, default=0, help="worker processes (default: none)")
    build.set_defaults(run=_build)
    info = cache.add_parser("info", parents=[common], help="what a cache holds")
    info.add_argument("cache", help="the cache's folder")
    info.set_defaults(run=_info)
    verify = cache.add_parser("verify", parents=[common], help="read every block of a cache and compare it with its checksum")
    verify.add_argument("cache", help="the cache's folder")
    verify.set_defaults(run=_verify)
    return parser


def _demo(options: argparse.Namespace) -> int:
    from patchflow import demo  # imports lightning, which no other command needs

    scores = demo.run(options.folder, seed=options.seed, **({} if options.steps is None else {"steps": options.steps}))
    return 0 if scores else 1


def _show(options: argparse.Namespace) -> int:
    cache = open_cache(options.cache)
    if options.subjects:
        cache = cache.subset(options.subjects)
    number = count(options.count, "--count", 1)
    size = options.patch_size[0] if len(options.patch_size) == 1 else options.patch_size
    size = int3(size, "--patch-size")
    image, label = show.chosen_names(cache[0].images, options.image, options.label)
    queue = Queue(
        cache,
        show.foreground_sampler(cache, size, label),
        samples_per_volume=-(-number // len(cache)),
        transform=None if options.recipe is None else load_recipe(options.recipe, size),
        seed=options.seed,
        shuffle=False,
        keys=[image] if label is None else [image, label],
    )
    title = f"{cache.folder.name}, {'no augmentation' if options.recipe is None else f'recipe {options.recipe}'}, seed {options.seed}"
    show.sheet(queue, options.out, number=number, image=image, label=label, window=options.window, title=title)
    print(f"{options.out}: {number} patch{'es' if number > 1 else ''}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    for results in predict_as_configured(options.config, progress=sys.stderr.isatty()).values():
        for path in results.values() if isinstance(results, dict) else [results]:
            print(path)
    return 0


def _build(options: argparse.Namespace) -> int:
    pairs = [_pair(text, "NAME=PATTERN") for text in options.images]
    patterns = dict(pairs)
    if len(patterns) < len(pairs):
        raise ArgumentError(f"an image is named twice in {' '.join(options.images)}: give each name one pattern")
    subjects = find_subjects(options.data, **patterns)
    steps = [step_from(text) for text in options.preprocess]
    cache = build_cache(
        subjects, options.cache, preprocess=Pipeline(steps) if steps else None, layout=options.layout, num_workers=options.workers
    )
    print(cache)
    return 0


def _info(options: argparse.Namespace) -> int:
    print(open_cache(options.cache))
    return 0


def _verify(options: argparse.Namespace) -> int:
    cache = open_cache(options.cache)
    findings = cache.verify()
    for finding in findings:
        print(finding)
    damaged = len({finding.subject for finding in findings})
    if not damaged:
        print(f"{len(cache)} entries, every block as it was written")
        return 0
    print(f"{len(cache)} entries, {damaged} damaged: delete their files below {cache.folder} and build the cache again; others are kept")
    return 1


def _pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals and value):
        raise ArgumentError(f"expected {form}, not {text!r}")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
