"""How fast .nii.gz files are read: by patchflow with ISA-L, by patchflow with plain zlib, and by nibabel.

    python -m benchmarks.reading [--folder FOLDER] [--rounds 7] [--small] [--json FILE]

All voxels of a file, warm, one way after another in rounds, in one process. patchflow reads to the very end, checks gzip's checksum, takes
the sha256 of the file and puts the voxels into C order; nibabel gives the array as it lies in the file. "decompressing" is patchflow's
stream alone, read to its end into memory that is used again.
"""

import argparse
import json
import statistics
import time
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import patchflow as pf
from benchmarks.check import read as decompress
from benchmarks.check import read_by_nibabel
from benchmarks.data import FULL_SHAPE, write_subjects
from patchflow.images import stream

SMALL_SHAPE = (96, 96, 40)


def files(folder: Path, small: bool) -> dict[str, Path]:
    """What is read: by name, a file."""
    shape = SMALL_SHAPE if small else FULL_SHAPE
    text = "x".join(map(str, shape))
    image, label = (path.with_suffix(".nii.gz") for path in write_subjects(folder / text, shape, 1)[0])
    found = {f"image {text} int16": image, f"label {text} uint8": label}
    nilearn = find_spec("nilearn")
    if nilearn is not None and nilearn.submodule_search_locations:
        data = Path(nilearn.submodule_search_locations[0]) / "datasets" / "data"
        found["MNI152 template uint8"] = data / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    return found


def undone_by(deflate: object, work: Callable[[], object]) -> Callable[[], object]:
    """`work`, with deflate undone by isal's module or zlib."""

    def with_it() -> object:
        before = stream._deflate
        stream._deflate = deflate
        try:
            return work()
        finally:
            stream._deflate = before

    return with_it


def ways(path: Path) -> dict[str, Callable[[], object]]:
    """What is timed for a file."""
    found: dict[str, Callable[[], object]] = {}
    both = {"zlib": zlib}
    if find_spec("isal"):
        from isal import isal_zlib

        both = {"isal": isal_zlib, **both}
    for name, module in both.items():
        found[f"patchflow, {name}"] = undone_by(module, lambda: pf.ScalarImage(path).load())
    found["nibabel"] = lambda: read_by_nibabel(path)
    for name, module in both.items():
        found[f"decompressing, {name}"] = undone_by(module, lambda: decompress(path))
    return found


def measure(path: Path, rounds: int) -> dict[str, float]:
    """Median seconds of each way."""
    every = ways(path)
    for work in every.values():
        work()  # compiles kernels, and brings the file into memory
    times: dict[str, list[float]] = {way: [] for way in every}
    for _ in range(rounds):
        for way, work in every.items():
            began = time.perf_counter()
            work()
            times[way].append(time.perf_counter() - began)
    return {way: statistics.median(found) for way, found in times.items()}


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    """How many times as fast patchflow is; only what was measured."""
    pairs = {
        "isal against zlib": ("patchflow, zlib", "patchflow, isal"),
        "isal against nibabel": ("nibabel", "patchflow, isal"),
        "zlib against nibabel": ("nibabel", "patchflow, zlib"),
        "decompressing, isal against zlib": ("decompressing, zlib", "decompressing, isal"),
    }
    return {name: seconds[slow] / seconds[fast] for name, (slow, fast) in pairs.items() if slow in seconds and fast in seconds}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench_data"), help="keeps the data")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="small volumes: to see that it runs")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args()
    if not find_spec("isal"):
        print("isal is not installed: pip install 'patchflow[fast]' to compare with it")
    numbers = {}
    print(f"seconds, medians of {options.rounds} rounds that alternate")
    for name, path in files(options.folder, options.small).items():
        seconds = measure(path, options.rounds)
        times = ratios(seconds)
        numbers[name] = {"bytes": path.stat().st_size, "seconds": seconds, "times as fast": times}
        print(f"{name} ({path.stat().st_size / 1e6:.1f} MB): " + ", ".join(f"{way} {found:.3f}" for way, found in seconds.items()))
        print("  times as fast: " + ", ".join(f"{what} {ratio:.2f}" for what, ratio in times.items()))
    if options.json is not None:
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
