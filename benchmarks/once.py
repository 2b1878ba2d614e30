"""What is paid once: imports, the first batch, the cache. Each in fresh processes, in turn with what it is compared to."""

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.race import REPOSITORY, Course

FIRST_BATCH = """
import time, sys
from pathlib import Path
from benchmarks.contestants import patchflow_queue
from benchmarks.data import Settings
folder, patch, variant = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
patchflow_queue.pf.Queue, patchflow_queue.pf.open_cache, patchflow_queue.pf.LabelSampler
t = time.perf_counter()
next(iter(patchflow_queue.queue(folder, Settings(patch), variant)))
print(time.perf_counter() - t)
"""
BUILD = """
import time, sys
from pathlib import Path
from benchmarks.contestants import patchflow_queue as contestant
pf = contestant.pf
image, label, folder, layout = sys.argv[1:]
subjects = contestant.subjects([(Path(image), Path(label))])
preprocess = pf.Pipeline([pf.preprocess.ZNormalize()])
pf.build_cache
t = time.perf_counter()
pf.build_cache(subjects, folder, preprocess=preprocess, layout=layout, progress=False)
print(time.perf_counter() - t)
"""
READ = """
import time, sys, nibabel, numpy
t = time.perf_counter()
for path in sys.argv[1:]: numpy.asanyarray(nibabel.load(path).dataobj)
print(time.perf_counter() - t)
"""
IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def seconds(code: str, *arguments: str) -> float:
    """What a fresh interpreter prints last."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True, cwd=REPOSITORY)
    return float(json.loads(done.stdout.split()[-1]))


def import_seconds(rounds: int) -> float:
    """Seconds that `import patchflow` takes over `import torch`."""
    pairs = [(seconds(IMPORT.format("torch")), seconds(IMPORT.format("torch, patchflow"))) for _ in range(rounds)]
    return statistics.median(both for _, both in pairs) - statistics.median(torch for torch, _ in pairs)


def names_seconds(rounds: int) -> float:
    """Seconds that the names of a training script take over `import torch`: what `import patchflow` puts off until they are used."""
    names = "patchflow.Queue, patchflow.build_cache, patchflow.LabelSampler, patchflow.augment"
    pairs = [(seconds(IMPORT.format("torch")), seconds(IMPORT.format(f"torch, patchflow; {names}"))) for _ in range(rounds)]
    return statistics.median(both for _, both in pairs) - statistics.median(torch for torch, _ in pairs)


def first_batch_seconds(course: Course, variant: str) -> float:
    """Seconds from before `open_cache` to the first batch, modules imported and kernels compiled before."""
    folder = course.folder / f"patchflow_queue-{course.patch}"
    return statistics.median(seconds(FIRST_BATCH, str(folder), str(course.patch), variant) for _ in range(3))


def build_ratio(course: Course, layout: str, rounds: int) -> float:
    """Seconds to build the cache of one subject from .nii.gz over seconds to read and decompress the same files with nibabel."""
    paths = [str(course.folder / "nifti" / "s0" / f"{kind}.nii.gz") for kind in ("image", "label")]
    target = course.folder / "built"
    pairs = []
    for _ in range(rounds):
        shutil.rmtree(target, ignore_errors=True)
        pairs.append((seconds(READ, *paths), seconds(BUILD, *paths, str(target), layout)))
    shutil.rmtree(target, ignore_errors=True)
    return statistics.median(build for _, build in pairs) / statistics.median(read for read, _ in pairs)


def clean(folder: Path) -> None:
    """Make the data folder, and empty its log."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log").write_text("")
