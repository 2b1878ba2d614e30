"""Each transform against its peers' version, on one core: python -m benchmarks.augment [--quick] [--json PATH] [--only NAME].

The work: one transform, always applied, with fixed strengths that are the same for all (`contestants/augment/rows.py`), random draws
included, on one 128^3 patch of one channel and, where it changes too, its label map. All libraries are held to one thread. The contestants
of a row take turns in one process (A B A B), and the table gives medians in milliseconds.

Peers are handed the patch in memory as float32. patchflow is timed doing what its queue does for a patch: draw, read int16 voxels of a
larger volume from a contiguous cache, normalise, change. The column "read" is what that costs without the transform. The ratio is that of
the fastest peer to patchflow: where it interpolates what it reads, to all that it does; for flips and intensity transforms to what it does
beyond the read, which peers have done before, with the ratio to all beside it. A dash: no such transform. Peers come with the extra
"bench"; one that is not installed is reported so.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from importlib import import_module, util
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.contestants.augment.rows import Call, Material, Row

THREADS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA")
OURS, READ = "patchflow", "read"
PEERS = {"bgv2": "bgv2", "MONAI": "monai_array", "TorchIO": "torchio_subject", "torch": "torch_grid"}
COLUMNS = (OURS, READ, *PEERS)
Times = dict[str, float]


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float | str]]:
    """Run all; returns the numbers printed, by row."""
    options = _options(arguments)
    _hold_to_one_thread()
    from benchmarks.contestants.augment import rows  # torch and numba come with it, and read the number of threads when they are imported

    chosen = [row for row in rows.ROWS if not options.only or any(word in row.name for word in options.only)]
    if not chosen:
        raise SystemExit(f"no row has {' or '.join(options.only)} in its name; the rows are {', '.join(row.name for row in rows.ROWS)}")
    peers = installed_peers()
    with tempfile.TemporaryDirectory() as folder:
        size, shape = (32, (64, 64, 48)) if options.quick else (128, (256, 256, 200))
        material = rows.make_material(Path(folder), size, shape)
        _print_header(size)
        numbers = {row.name: measure(row, material, peers, 1 if options.quick else options.rounds) for row in chosen}
    missed = [name for name, row in numbers.items() if "ratio" in row and float(row["ratio"]) <= float(row["bound"])]
    print(f"not above their bound: {', '.join(missed) or 'none'}" + " (a quick run measures nothing)" * options.quick)
    if options.json:
        options.json.write_text(json.dumps({"size": size, "volume": shape, "rows": numbers}, indent=2) + "\n")
    return numbers


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.augment", description="each transform against its peers' version")
    parser.add_argument("--quick", action="store_true", help="a tiny patch and one round: shows that it runs, measures nothing")
    parser.add_argument("--only", action="append", metavar="NAME", help="only rows with this in their name; may be repeated")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contestant in a row (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    return parser.parse_args(arguments)


def _hold_to_one_thread() -> None:
    os.environ.update({f"{name}_NUM_THREADS": "1" for name in THREADS})
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # peers warn of their own future


def installed_peers() -> dict[str, ModuleType]:
    """The peers that are installed."""
    found = {}
    for name, module in PEERS.items():
        peer = import_module(f"benchmarks.contestants.augment.{module}")
        missing = [package for package in peer.NEEDS if util.find_spec(package) is None]
        if missing:
            print(f"{name}: not installed: {', '.join(missing)} (pip install -c constraints.txt -e '.[bench]')")
        else:
            found[name] = peer
    return found


def measure(row: "Row", material: "Material", peers: dict[str, ModuleType], rounds: int) -> dict[str, float | str]:
    """One row: milliseconds by contestant, or why there are none; printed too."""
    from benchmarks.contestants.augment import patchflow_recipe

    calls: dict[str, Call] = {}
    numbers: dict[str, float | str] = {}
    builders = {OURS: patchflow_recipe.build, READ: patchflow_recipe.build_read, **{name: peer.build for name, peer in peers.items()}}
    for name, build in builders.items():
        try:
            call = build(row, material)
            if call is not None:
                for _ in range(2):  # compiles, benchmarks itself, fills caches
                    call.run(call.fresh())
                calls[name] = call
        except Exception as error:  # a transform that is not there in the version at hand: the other rows are still worth having
            numbers[name] = f"not there: {type(error).__name__}: {error}".splitlines()[0]
    numbers |= _race(calls, rounds)
    numbers |= ratios(row, numbers)
    _print_row(row, numbers)
    return numbers


def _race(calls: dict[str, "Call"], rounds: int) -> Times:
    """Median milliseconds of each contestant, in turns; quick ones have several goes in a turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            spent, goes = 0.0, 0
            while goes < 1 or (spent < 0.03 and goes < 5):
                given = call.fresh()
                start = time.perf_counter()
                call.run(given)
                times[name].append(time.perf_counter() - start)
                spent, goes = spent + times[name][-1], goes + 1
    return {name: 1000 * statistics.median(each) for name, each in times.items()}


def ratios(row: "Row", numbers: dict[str, float | str]) -> Times:
    """The fastest peer over patchflow, and over patchflow without the read; the one that counts is "ratio"."""
    fastest = min((value for name, value in numbers.items() if name in PEERS and isinstance(value, float)), default=None)
    ours, read = numbers.get(OURS), numbers[READ]
    ratios = {"bound": float(row.bound)}
    if isinstance(ours, float) and isinstance(read, float):
        ratios["without read"] = ours - read
        if fastest is not None:
            ratios["ratio with read"] = fastest / ours
            ratios["ratio"] = fastest / (ours if row.spatial else max(ours - read, 0.01))
    return ratios


def _print_header(size: int) -> None:
    print(f"Milliseconds for one {size}^3 patch on one core, medians; ratio: the fastest peer's to patchflow's, without read if shown.")
    heads = "".join(f"{name:>10}" for name in (OURS, READ, "without", *PEERS))
    print(f"{'':42}{heads}{'ratio':>9}{'with read':>11}{'bound':>7}", flush=True)


def _print_row(row: "Row", numbers: dict[str, float | str]) -> None:
    shown = (OURS, READ, *(() if row.spatial else ("without read",)), *PEERS)
    cells = {name: numbers.get(name) for name in (OURS, READ, "without read", *PEERS)}
    times = "".join(_cell(cell if name in shown else None, 10) for name, cell in cells.items())
    ratios = _cell(numbers.get("ratio"), 9) + _cell(None if row.spatial else numbers.get("ratio with read"), 11)
    print(f"{row.name:42}{times}{ratios}{row.bound:>7g}", flush=True)
    for name, value in numbers.items():
        if isinstance(value, str):
            print(f"    {name}: {value}", flush=True)


def _cell(value: float | str | None, width: int) -> str:
    return f"{value:>{width}.2f}" if isinstance(value, float) else f"{'not there' if value else '-':>{width}}"


if __name__ == "__main__":
    main()
