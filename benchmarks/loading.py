"""Loading speed, memory and start-up of patchflow against its peers, as ratios: python -m benchmarks.loading [--quick] [--augment nnunet].

The work: label-balanced 128^3 patches of image and label from int16 512x512x240 synthetic CTs in the page cache, batch 2, two workers.
With --augment nnunet, nnU-Net augments as its trainer does, patchflow with the preset of that name, the others with their nearest
equivalent. Each contestant runs in a process of its own, warmed up; rounds of patchflow and of the contestant alternate (A B A B), the one
that is not running is stopped, and the table gives ratios of medians. `benchmarks/contestants/` says how each is set up and why.
Peers come with the extra "bench"; one that is not installed is reported so.
"""

import argparse
import json
import statistics
from dataclasses import asdict
from pathlib import Path

from benchmarks import once
from benchmarks.contestants.registry import OURS, PEERS
from benchmarks.data import FULL_SHAPE, FULL_SUBJECTS
from benchmarks.memory import of_torch_alone
from benchmarks.race import Course, Result, Runner, race

REFERENCE = "patchflow, threads"
NNUNET = "nnU-Net v2"
BOUNDS = {NNUNET: "10, aim 20"}  # of the ratio under augmentation; 1 for other peers
MIB = 2**20


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run all; returns the numbers printed, by name."""
    options = _options(arguments)
    course = _course(options)
    once.clean(course.folder)
    numbers = _measure_races(course, options.only or [*OURS, *PEERS], options.growth if not options.quick else 50)
    if not options.races_only:
        numbers |= _measure_first_augmented(course) if options.augment else _measure_once(course, 2 if options.quick else 3)
    if options.json:
        options.json.write_text(json.dumps({"course": asdict(course) | {"folder": None}, "numbers": numbers}, indent=2) + "\n")
    return numbers


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description="patchflow against its peers, as ratios")
    parser.add_argument("--data", type=Path, default=Path("bench_data"), help="where data are made, once (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny volumes and short rounds: shows that it runs, measures nothing")
    parser.add_argument("--only", action="append", metavar="NAME", choices=[*OURS, *PEERS], help="only this contestant; may be repeated")
    parser.add_argument("--augment", choices=["nnunet"], default="", help="augment patches as nnU-Net does")
    parser.add_argument("--races-only", action="store_true", help="leave out what is paid once: first batch, build, import")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, help="least length of a round (default: 3, augmented 12)")
    parser.add_argument("--growth", type=int, default=2000, help="batches over which memory must not grow")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    return parser.parse_args(arguments)


def _course(options: argparse.Namespace) -> Course:
    data = options.data.resolve()
    if options.quick:
        return Course(data / "quick", "64x64x48", subjects=2, patch=32, rounds=1, seconds=0.2, augment=options.augment)
    shape = "x".join(map(str, FULL_SHAPE))
    seconds = options.seconds or (12 if options.augment else 3)  # random transforms make for uneven patches
    return Course(data / "full", shape, FULL_SUBJECTS, patch=128, rounds=options.rounds, seconds=seconds, augment=options.augment)


def _measure_races(course: Course, names: list[str], growth: int) -> dict[str, float]:
    torch_bytes = of_torch_alone()
    reference = Runner(course, REFERENCE)
    try:
        print(f"{'':40}{'patches/s':>10}{'patchflow is':>16}{'peak MiB':>10}{'CPU ms/patch':>14}", flush=True)
        own = Result(REFERENCE, rates=[reference.round() for _ in range(course.rounds)], peak_bytes=reference.peak_bytes)
        own.cpu_ms = statistics.median(reference.cpu_ms)
        _print(own, torch_bytes)
        results = {REFERENCE: own}
        for name in names:
            if name != REFERENCE:
                results[name] = race(course, reference, name)
                _print(results[name], torch_bytes, BOUNDS.get(name, "1") if course.augment and name in PEERS else "")
        before = reference.draw(200)
        after = reference.draw(growth)
    finally:
        reference.close()
    numbers = {f"growth over {growth} batches, MiB": (after - before) / MIB}
    for name, result in results.items():
        if not result.problem:
            numbers[f"{name}: patches/s"] = result.rate
            numbers[f"{name}: CPU ms per patch"] = result.cpu_ms
            numbers[f"{name}: peak MiB over torch"] = (result.peak_bytes - torch_bytes) / MIB
        if result.reference:
            numbers[f"{name}: {REFERENCE} is this many times as fast"] = result.ratio
    _print_memory(numbers, results)
    print(f"{f'memory grown over {growth} batches':54}{numbers[f'growth over {growth} batches, MiB']:>10.1f} MiB", flush=True)
    return numbers


def _print(result: Result, torch_bytes: int, bound: str = "") -> None:
    if result.problem:
        print(f"{result.name:40}{result.problem}", flush=True)
        return
    ratio = f"{result.ratio:.1f} x as fast" if result.reference else ""
    memory = f"{(result.peak_bytes - torch_bytes) / MIB:>10.0f}"
    print(f"{result.name:40}{result.rate:>10.1f}{ratio:>16}{memory}{result.cpu_ms:>14.2f}{f'  (bound {bound})' * bool(bound)}", flush=True)


def _print_memory(numbers: dict[str, float], results: dict[str, Result]) -> None:
    if NNUNET in results and not results[NNUNET].problem:
        for name in (name for name in results if name in OURS):
            share = numbers[f"{name}: peak MiB over torch"] / numbers[f"{NNUNET}: peak MiB over torch"]
            numbers[f"{name}: peak memory over nnU-Net's"] = share
            print(f"{f'peak memory of {name}':54}{share:>10.2f} of {NNUNET}'s (bound 0.40)", flush=True)


def _measure_once(course: Course, rounds: int) -> dict[str, float]:
    numbers = {}
    for layout in ("contiguous", "compressed"):
        first = once.first_batch_seconds(course, f"thread {layout}")
        numbers[f"first batch, {layout}, s"] = first
        print(f"{f'first batch after open_cache, {layout}':54}{first:>10.2f} s (bound 1)", flush=True)
    numbers["stats, share of a patch"] = share = once.stats_share(course)
    print(f"{'counting for queue.stats(), of making a patch':54}{share:>10.2%} (bound 1%)", flush=True)
    for layout in ("contiguous", "compressed"):
        warm, first = once.build_ratios(course, layout, rounds)
        numbers |= {f"build, {layout}, over reading": warm, f"first build of a process, {layout}, over reading": first}
        name = f"building the cache, {layout}"
        print(f"{name:54}{warm:>10.2f} of reading the .nii.gz (bound 1.5); {first:.2f} the first time in a process", flush=True)
    over = once.import_seconds(rounds)
    numbers["import over torch, s"] = over
    print(f"{'import patchflow, over import torch':54}{over:>10.2f} s (bound 0.5)", flush=True)
    names = once.names_seconds(rounds)
    numbers["names of a training script over torch, s"] = names
    print(f"{'the names of a training script, over import torch':54}{names:>10.2f} s", flush=True)
    return numbers


def _measure_first_augmented(course: Course) -> dict[str, float]:
    first, every = once.first_augmented_seconds(course)
    print(f"{'first augmented batch after open_cache':54}{first:>10.2f} s (bound 1)", flush=True)
    print(f"{'the same, every transform happening':54}{every:>10.2f} s (bound 1)", flush=True)
    return {"first augmented batch, s": first, "first augmented batch, every transform happening, s": every}


if __name__ == "__main__":
    main()
