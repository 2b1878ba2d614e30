"""How fast `pf.check_subjects` goes through files, against reading and decompressing them alone.

    python -m benchmarks.check [--folder FOLDER] [--rounds 5] [--small]

Each file in turn: read and decompressed to its end into memory that is used again, by patchflow's own stream (the fastest there is here);
read by nibabel; loaded; and checked by one worker; in rounds that alternate. Printed is the
share of the speed of reading that the check has.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

import patchflow as pf
from benchmarks.data import FULL_SHAPE, write_subjects
from patchflow.images.stream import open_stream
from patchflow.quality import check_subjects

_PIECE = 1 << 22


def read(path: Path) -> None:
    """Read a NIfTI file to its end, as fast as patchflow can, and keep nothing."""
    voxels = nibabel.load(path)
    left = int(np.prod(voxels.shape)) * voxels.get_data_dtype().itemsize + int(voxels.dataobj.offset)
    buffer = memoryview(bytearray(_PIECE))
    with open_stream(path) as stream:
        while left:
            part = min(left, _PIECE)
            stream.into(buffer[:part])
            left -= part
        if not stream.at_end():
            raise SystemExit(f"{path} goes on after its voxels")


def read_by_nibabel(path: Path) -> None:
    """All voxels, by nibabel."""
    np.asanyarray(nibabel.load(path).dataobj)


def subjects_of(folder: Path, small: bool) -> dict[str, pf.Subject]:
    """What is checked: by name, a subject of one file."""
    shape = (128, 128, 60) if small else FULL_SHAPE
    image, label = (path.with_suffix(".nii.gz") for path in write_subjects(folder / f"{'x'.join(map(str, shape))}", shape, 1)[0])
    found = {
        f"image {'x'.join(map(str, shape))} int16": pf.Subject("image", image=pf.ScalarImage(image)),
        f"label {'x'.join(map(str, shape))} uint8": pf.Subject("label", label=pf.LabelMap(label)),
    }
    spec = importlib.util.find_spec("nilearn")
    if spec is not None and spec.submodule_search_locations:
        data = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
        template = data / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
        found["MNI152 template uint8"] = pf.Subject("mni", image=pf.ScalarImage(template))
    return found


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("benchmark-data"), help="keeps the data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="small volumes: to see that it runs")
    parser.add_argument("--no-pictures", action="store_true", help="without the pictures that an HTML report shows")
    options = parser.parse_args()
    print("seconds, medians of", options.rounds, "rounds, and the speed of the check as a share of reading and decompressing")
    for name, subject in subjects_of(options.folder, options.small).items():
        path = next(iter(subject.images.values())).path
        assert path is not None
        ways: dict[str, Callable[[], object]] = {
            "read": lambda path=path: read(path),  # type: ignore[misc]
            "nibabel": lambda path=path: read_by_nibabel(path),  # type: ignore[misc]
            "load": lambda subject=subject: next(iter(subject.images.values())).load(),  # type: ignore[misc]
            "check": lambda subject=subject: check_subjects([subject], pictures=not options.no_pictures),  # type: ignore[misc]
        }
        for work in ways.values():
            work()  # compiles kernels, and brings the file into memory
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, work in ways.items():
                times[way].append(seconds(work))
        median = {way: statistics.median(found) for way, found in times.items()}
        told = ", ".join(f"{way} {found:.3f}" for way, found in median.items())
        print(f"{name}: {told}: {median['read'] / median['check']:.0%} of reading, {median['nibabel'] / median['check']:.0%} of nibabel's")


if __name__ == "__main__":
    main()
