"""Sliding-window inference of patchflow against its peers, as ratios in one run: python -m benchmarks.inference [--quick] [--part PART].

The work: a 512x512x240 CT, windows of 128^3 that overlap by half, two classes, two threads, and a model that costs next to nothing.
Parts, of which "stitch" and "memory" are run if none is chosen:

- stitch: seconds to the stitched logits in memory, and to a label map in memory (MONAI's by AsDiscrete(argmax=True), the others' by
  torch.argmax). "rest" is reading and stitching: the whole less the model's own time, as measured in the call. Where windows are read and
  stitched while the model runs, that hides what they take from it; so "strict" is the whole less what the model takes when nothing else
  runs. Then the worst error of the stitched logits against the input, relative to the input's range.
- memory: the most that a prediction holds above what was held before it (the interpreter, packages, the input): memory that the kernel
  cannot take back, sampled, and beside it ru_maxrss over VmRSS, which counts pages of mapped files too.
- classes: the same for patchflow with --classes many classes, to a label map in a file, with a memory budget of 1 GiB.
- unet: a 3D U-Net on 256x256x128 to a .nii.gz, against the same windows through the model alone.

Each contestant runs in a process of its own; rounds take all in turn (A B C A B C), those that do not run are stopped, and the tables give
medians. `benchmarks/contestants/inference/` says how each is set up. Peers come with the extra "bench"; one that is not installed is
reported so.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.contestants.inference.registry import AGAINST, ALL, CACHED, MONAI, OURS, TIGHT
from benchmarks.memory import Peak, unreclaimable
from benchmarks.process import REPOSITORY, Child

MIB = 2**20
PARTS = ("stitch", "memory", "classes", "unet")
PRODUCTS = ("logits", "labels")
FULL, FULL_PATCH, UNET_SHAPE = "512x512x240", 128, "256x256x128"
Numbers = dict[str, Any]


def main(arguments: list[str] | None = None) -> Numbers:
    """Run the parts chosen; returns the numbers printed, by part and name."""
    options = _options(arguments)
    names, numbers = installed(options.only or list(ALL)), {}
    for shape in {options.shape, options.unet_shape} if "unet" in options.part else {options.shape}:
        command = [sys.executable, "-m", "benchmarks.inference_child", *_arguments(options, "prepare", shape)]
        subprocess.run(command, check=True, cwd=REPOSITORY)
    settings: dict[str, int] = {}
    if "stitch" in options.part:
        numbers["stitch"] = _stitch(options, names, settings)
    if "memory" in options.part:
        numbers["memory"] = _memory(options, names, settings)
    if "classes" in options.part:
        numbers["classes"] = _classes(options)
    if "unet" in options.part:
        numbers["unet"] = _unet(options)
    if options.json:
        course = {"shape": options.shape, "patch": options.patch, "threads": options.threads, "rounds": options.rounds}
        options.json.write_text(json.dumps({"course": course, "numbers": numbers}, indent=2) + "\n")
    return numbers


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description="inference of patchflow against its peers")
    parser.add_argument("--data", type=Path, default=Path("bench_data"), help="where data are made, once (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a tiny volume and one round: shows that it runs, measures nothing")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument("--only", action="append", metavar="NAME", choices=list(ALL), help="only this contestant; may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", default=FULL, metavar="IxJxK", help="voxels of the volume (default: %(default)s)")
    parser.add_argument("--patch", type=int, default=FULL_PATCH, help="voxels along each axis of a window (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: %(default)s)")
    parser.add_argument("--classes", type=int, metavar="N", help='classes of the part "classes", which this chooses (default: 100)')
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args(arguments)
    options.part = options.part or ([] if options.classes else ["stitch", "memory"])
    options.part += ["classes"] if options.classes and "classes" not in options.part else []
    options.classes, options.unet_shape = options.classes or 100, UNET_SHAPE
    if options.quick:
        options.shape, options.patch, options.rounds, options.unet_shape = "40x36x28", 16, 1, "24x24x20"
    options.data = options.data.resolve() / "inference"
    options.data.mkdir(parents=True, exist_ok=True)
    return options


def installed(names: list[str]) -> list[str]:
    found = []
    for name in names:
        missing = ALL[name].missing()
        if missing:
            print(f"{name}: not installed: {', '.join(missing)} (pip install -c constraints.txt -e '.[bench]')", flush=True)
        else:
            found.append(name)
    return found


def _arguments(options: argparse.Namespace, name: str, shape: str, model: str = "cheap", setting: int = 0) -> list[str]:
    return [name, str(options.data), shape, str(options.patch), str(options.threads), model, str(setting)]


def _start(options: argparse.Namespace, name: str, model: str = "cheap", setting: int = 0, shape: str = "") -> Child:
    arguments = _arguments(options, name, shape or options.shape, model, setting)
    return Child("benchmarks.inference_child", arguments, options.data / "log")


def _stitch(options: argparse.Namespace, names: list[str], settings: dict[str, int]) -> Numbers:
    """Seconds of each contestant to each product, and its worst error; `settings` gets the fastest of each."""
    rounds: dict[str, list[Numbers]] = {name: [] for name in names}
    with ExitStack() as stack:
        children = {name: stack.enter_context(_start(options, name)) for name in names}
        for name, child in children.items():
            tuned = child.ask("tune")
            settings[name] = tuned["setting"]
            tried = f", of those tried, in seconds: {', '.join(f'{each:.2f}' for each in tuned['seconds'])}" if tuned["seconds"] else ""
            print(f"{name}: {tuned['is'] or 'defaults'}{tried}", flush=True)
        for _ in range(options.rounds):
            for name, child in children.items():
                rounds[name].append({product: child.ask(f"time {product}") | child.ask("alone") for product in PRODUCTS})
        numbers = {name: seconds(rounds[name]) | child.ask("error") for name, child in children.items()}
    for peer, (ours, _) in AGAINST.items():
        if peer in numbers and ours in numbers:
            for product in PRODUCTS:
                theirs, own = numbers[peer][product], numbers[ours][product]
                theirs["ratio"], theirs["strict ratio"] = theirs["rest"] / own["rest"], theirs["strict"] / own["strict"]
    _print_stitch(numbers)
    return numbers


def seconds(rounds: list[Numbers]) -> Numbers:
    """Medians over rounds, by product; "least" is the least rest."""
    numbers = {}
    for product in PRODUCTS:
        runs = [each[product] for each in rounds]
        rest, strict = [run["whole"] - run["model"] for run in runs], [run["whole"] - run["alone"] for run in runs]
        medians = {key: statistics.median(run[key] for run in runs) for key in ("whole", "model", "alone", "calls")}
        numbers[product] = medians | {"rest": statistics.median(rest), "strict": statistics.median(strict), "least": min(rest)}
    return numbers


def _print_stitch(numbers: Numbers) -> None:
    for product in PRODUCTS:
        heads = "".join(f"{head:>9}" for head in ("whole", "model", "rest", "least", "alone", "strict"))
        print(f"\n{f'seconds to {product}':34}{heads}   patchflow is, by rest (strict)", flush=True)
        for name, row in numbers.items():
            cells = "".join(f"{row[product][key]:>9.2f}" for key in ("whole", "model", "rest", "least", "alone", "strict"))
            ratio = f"   {row[product]['ratio']:.1f} ({row[product]['strict ratio']:.1f}) x as fast" if "ratio" in row[product] else ""
            bound = f" (bound {AGAINST[name][1]:g}; against {AGAINST[name][0]})" if ratio else ""
            print(f"{name:34}{cells}{ratio}{bound}", flush=True)
    print(f"\n{'worst error of logits, of the range':34}", flush=True)
    for name, row in numbers.items():
        print(f"{name:34}{row['error']:>12.1e}{'  (bound 1e-6)' * (name in OURS)}", flush=True)


def _memory(options: argparse.Namespace, names: list[str], settings: dict[str, int]) -> Numbers:
    """The most that a prediction of two classes holds above what was held before it."""
    print(
        f"\n{'MiB above what was held before':34}" + "".join(f"{f'{product}, held':>14}{'maxrss':>10}" for product in PRODUCTS), flush=True
    )
    numbers: Numbers = {}
    for name in names:
        numbers[name] = {product: _peak(options, name, product, settings.get(name, 0)) for product in PRODUCTS}
        cells = "".join(f"{row['held'] / MIB:>14.0f}{row['maxrss'] / MIB:>10.0f}" for row in numbers[name].values())
        print(f"{name:34}{cells}", flush=True)
    if CACHED in numbers:
        numbers[CACHED]["file"] = row = _peak(options, CACHED, "file")
        print(f"{f'{CACHED}, labels to a file':34}{'':>24}{row['held'] / MIB:>14.0f}{row['maxrss'] / MIB:>10.0f}", flush=True)
    for name in (name for name in OURS if name in numbers and MONAI in numbers):
        for product in numbers[name]:
            against = numbers[MONAI]["labels" if product == "file" else product]
            share = numbers[name][product]["held"] / max(against["held"], 1)
            numbers[name][product]["of MONAI's"] = share
            print(f"{f'{name}, to {product}':34}{share:>14.1%} of MONAI's{' (bound 15%)' * (product != 'logits')}", flush=True)
    return numbers


def _peak(options: argparse.Namespace, name: str, product: str, setting: int = 0, model: str = "cheap") -> Numbers:
    """Of one prediction in a fresh process, in bytes."""
    with _start(options, name, model, setting) as child:
        before = unreclaimable(child.pid)
        with Peak(child.pid, interval=0.01) as peak:
            answer = child.ask(f"memory {product}")
        return {"held": max(peak.bytes - before, 0), "maxrss": max(answer["maxrss"] - answer["rss_before"], 0)}


def _classes(options: argparse.Namespace) -> Numbers:
    """Many classes to labels: what that holds, beside the size of all logits in float32."""
    i, j, k = map(int, options.shape.split("x"))
    (name,) = TIGHT
    numbers = _peak(options, name, "file", model=f"classes {options.classes}")
    numbers |= {"all logits": 4 * options.classes * i * j * k, "window": 4 * options.classes * options.patch**3}
    held, maxrss, full, window = (numbers[key] / MIB for key in ("held", "maxrss", "all logits", "window"))
    print(
        f"\n{options.classes} classes to a label map in a file, {name}: {held:.0f} MiB held (bound 2048), {maxrss:.0f} by ru_maxrss",
        end="; ",
    )
    print(f"all logits would be {full:.0f}, and the model's own output for one window is {window:.0f}", flush=True)
    return numbers


def _unet(options: argparse.Namespace) -> Numbers:
    """What reading, stitching and writing add to the time of a real network."""
    wholes, alones = [], []
    with _start(options, CACHED, "unet", shape=options.unet_shape) as child:
        for _ in range(options.rounds):
            wholes.append(child.ask("time file")["whole"])
            alones.append(child.ask("alone")["alone"])
    added = statistics.median(whole / alone for whole, alone in zip(wholes, alones, strict=True)) - 1
    print(f"\n3D U-Net, {options.unet_shape}, to .nii.gz: {statistics.median(wholes):.2f} s", end=", ")
    print(f"its windows alone {statistics.median(alones):.2f} s: reading, stitching and writing add {added:.1%} (bound 5%)", flush=True)
    return {"whole": wholes, "alone": alones, "added": added}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that children which are stopped do not stay
    main()
