"""How fast `pf.check_subjects` goes through files, against reading and decompressing the same files alone.

    python -m benchmarks.check [--folder FOLDER] [--rounds 5] [--small] [--workers 1 2]

A CT, brain MR of 8 bits and of float32, and label maps, each apart and all together. Both arms read each file to its end, gzip's checksum
included, by the same stream, with as many threads; the one keeps nothing, into memory that is used again, and the other checks, with and
without the pictures that an HTML report shows. Rounds alternate. Printed is the share of the speed of reading that the check has.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nibabel
import numpy as np

import patchflow as pf
from benchmarks.data import FULL_SHAPE, write_subjects
from patchflow.images.image import Image
from patchflow.images.stream import open_stream
from patchflow.quality import check_subjects

_PIECE = 1 << 21


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


def read_all(paths: list[Path], workers: int) -> None:
    """Read files by as many threads, or this one."""
    if workers == 1:
        for path in paths:
            read(path)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(read, paths))


def template(folder: Path) -> dict[str, list[Image]]:
    """The MNI152 template that nilearn carries, as it is and as float32, and its tissues as labels; nothing without nilearn."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        return {}
    data = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    paths = [data / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz" for name in ("t1", "gm", "wm")]
    images = [nibabel.load(path) for path in paths]
    floats, tissues = folder / "t1_float32.nii.gz", folder / "tissues.nii.gz"
    if not tissues.exists():
        t1, grey, white = (image.get_fdata(dtype=np.float32) for image in images)
        nibabel.save(nibabel.Nifti1Image(t1 / np.float32(3), images[0].affine), floats)
        label = np.argmax(np.stack([np.full_like(grey, 0.3), grey, white]), axis=0).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(label, images[0].affine), tissues)
    return {
        "MR uint8": [pf.ScalarImage(paths[0])],
        "MR float32": [pf.ScalarImage(floats)],
        "MR labels uint8": [pf.LabelMap(tissues)],
    }


def groups_of(folder: Path, small: bool, times: int) -> dict[str, list[Image]]:
    """What is checked: files of a kind, each several times, so that all workers have work to the end."""
    shape = (128, 128, 60) if small else FULL_SHAPE
    image, label = (path.with_suffix(".nii.gz") for path in write_subjects(folder / f"{'x'.join(map(str, shape))}", shape, 1)[0])
    groups: dict[str, list[Image]] = {"CT int16": [pf.ScalarImage(image)], "CT labels uint8": [pf.LabelMap(label)], **template(folder)}
    repeated = {name: images * times for name, images in groups.items()}
    return {**repeated, "all together": [image for images in repeated.values() for image in images]}


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(images: list[Image], workers: int, rounds: int) -> dict[str, float]:
    """Median seconds of each arm."""
    paths = [image.path for image in images if image.path is not None]
    subjects = [pf.Subject(f"s{number}", image=image) for number, image in enumerate(images)]
    check = partial(check_subjects, subjects, num_workers=workers if workers > 1 else 0)
    ways: dict[str, Callable[[], object]] = {
        "read": partial(read_all, paths, workers),
        "check": partial(check, pictures=False),
        "with pictures": partial(check, pictures=True),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, work in ways.items():
            taken = seconds(work)
            if number:  # the first compiles kernels, and brings the files into memory
                times[way].append(taken)
    return {way: statistics.median(found) for way, found in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench_data"), help="keeps the data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="small volumes: to see that it runs")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="threads, in both arms")
    options = parser.parse_args()
    print(f"Milliseconds a file, medians of {options.rounds} rounds; speed as a share of reading and decompressing with as many threads.\n")
    print("| Files | threads | read | check | speed | check with pictures | speed |\n|---|---|---|---|---|---|---|")
    for workers in options.workers:
        for name, images in groups_of(options.folder, options.small, times=2 * max(options.workers)).items():
            found = measure(images, workers, options.rounds)
            shown = {way: 1000 * taken / len(images) for way, taken in found.items()}
            checks = " | ".join(f"{shown[way]:.1f} | {found['read'] / found[way]:.0%}" for way in ("check", "with pictures"))
            print(f"| {name} | {workers} | {shown['read']:.1f} | {checks} |", flush=True)


if __name__ == "__main__":
    main()
