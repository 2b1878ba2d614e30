"""Preprocessing and caching against TorchIO: `python -m benchmarks.preprocess`.

Subjects of 197x233x189 are made from the MNI152 template that comes with nilearn: int16 .nii.gz, stored right to left and front to back
(LPS), each with a gain and noise of its own. Both turn them to RAS+, resample them to 1.5 mm (linearly, and once more with anti-aliasing)
and normalise them by mean and standard deviation, in two processes that work side by side. patchflow writes its cache, with checksums;
TorchIO, which has no cache, writes uncompressed NIfTI files, the fastest it has. Each run is a fresh process, imports included; runs
alternate. Memory is what the kernel cannot take back of the whole process tree.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nibabel
import numpy as np

from benchmarks.memory import Peak

REPOSITORY = Path(__file__).parents[1]
SPACING = 1.5


def template() -> tuple[np.ndarray, np.ndarray]:
    """The MNI152 template at 1 mm, (197, 233, 189), and its affine."""
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=1)
    return np.asarray(image.get_fdata(dtype=np.float32)), image.affine


def make_subjects(folder: Path, count: int, shrink: int = 1) -> list[Path]:
    """Write the subjects that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"subject{number:03}.nii.gz" for number in range(count)]
    if all(path.exists() for path in paths):
        return paths
    values, affine = template()
    values, affine = values[::-shrink, ::-shrink, ::shrink], affine.copy()
    affine[:3, 3] = (affine @ [196, 232, 0, 1])[:3]
    affine[:3, :3] = affine[:3, :3] @ np.diag([-shrink, -shrink, shrink])
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        image = values * rng.uniform(500, 1500) + rng.normal(0, 8, values.shape).astype(np.float32) * (values > 0)
        beside = path.with_name("writing.nii.gz")
        nibabel.save(nibabel.Nifti1Image(np.rint(image).astype(np.int16), affine), beside)
        beside.rename(path)
    return paths


def run_patchflow(paths: list[Path], out: Path, anti_alias: bool, workers: int) -> None:
    """Build a cache."""
    import patchflow as pf

    step = pf.preprocess
    pipeline = pf.Pipeline([step.ToCanonical(), step.Resample(spacing=SPACING, anti_alias=anti_alias), step.ZNormalize()])
    subjects = [pf.Subject(path.name.removesuffix(".nii.gz"), image=pf.ScalarImage(path)) for path in paths]
    pf.build_cache(subjects, out, preprocess=pipeline, num_workers=workers, layout="contiguous", progress=False)


def _one_with_torchio(path: Path, out: Path, anti_alias: bool) -> None:
    import SimpleITK
    import torch
    import torchio

    torch.set_num_threads(1)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # as many processes as cores
    steps = [torchio.ToCanonical(), torchio.Resample(SPACING, antialias=anti_alias), torchio.ZNormalization()]
    subject = torchio.Compose(steps)(torchio.Subject(image=torchio.ScalarImage(path)))
    subject.image.save(out / path.name.removesuffix(".gz"))


def run_torchio(paths: list[Path], out: Path, anti_alias: bool, workers: int) -> None:
    """Write NIfTI files."""
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        count = len(paths)
        list(pool.map(_one_with_torchio, paths, [out] * count, [anti_alias] * count))


CONTESTANTS = {"patchflow": run_patchflow, "torchio": run_torchio}


def timed(name: str, data: Path, count: int, anti_alias: bool, workers: int) -> tuple[float, int]:
    """Seconds of a fresh process, imports included, and the most bytes that it and its workers held."""
    with tempfile.TemporaryDirectory(dir=data) as out:
        command = [sys.executable, "-m", "benchmarks.preprocess", "--run", name, "--data", str(data), "--subjects", str(count)]
        command += ["--workers", str(workers), "--out", f"{out}/out", *(["--anti-alias"] if anti_alias else [])]
        start = time.perf_counter()
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL) as child:
            with Peak(child.pid) as peak:
                child.wait()
            seconds = time.perf_counter() - start
        if child.returncode:
            raise RuntimeError(f"{name} failed: {' '.join(command)}")
        shutil.rmtree(Path(out) / "out")
    return seconds, peak.bytes


def compare(data: Path, count: int, rounds: int, workers: int) -> dict[str, object]:
    """Both contestants in turn, without and with anti-aliasing; numbers are medians over the rounds."""
    results: dict[str, object] = {"subjects": count, "workers": workers, "rounds": rounds}
    timed("patchflow", data, 1, True, 0)  # kernels are compiled once per machine
    for anti_alias in (False, True):
        found: dict[str, list[tuple[float, int]]] = {name: [] for name in CONTESTANTS}
        for _ in range(rounds):
            for name in CONTESTANTS:
                found[name].append(timed(name, data, count, anti_alias, workers))
        pairs = zip(found["patchflow"], found["torchio"], strict=True)
        ratios = [one[0] / two[0] for one, two in pairs]
        row = {name: {"seconds": [round(s, 2) for s, _ in runs], "MiB": max(b for _, b in runs) >> 20} for name, runs in found.items()}
        results["anti-aliased" if anti_alias else "plain"] = {**row, "ratio": round(statistics.median(ratios), 3)}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPOSITORY / "bench_data" / "preprocess")
    parser.add_argument("--subjects", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shrink", type=int, default=1, help="take every nth voxel: for a smoke test")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", choices=sorted(CONTESTANTS), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--anti-alias", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    paths = make_subjects(options.data, options.subjects, options.shrink)
    if options.run:
        CONTESTANTS[options.run](paths, options.out, options.anti_alias, options.workers)
        return
    results = compare(options.data, options.subjects, options.rounds, options.workers)
    text = json.dumps(results, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
