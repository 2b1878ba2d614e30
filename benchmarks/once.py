"""What is paid once: imports, the first batch, the cache. Each in fresh processes, in turn with what it is compared to."""

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.race import REPOSITORY, Course

FIRST_BATCH = """
import time, sys
from pathlib import Path
from benchmarks.contestants import patchflow_queue
from benchmarks.data import Settings
folder, patch, variant = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
t = time.perf_counter()
next(iter(patchflow_queue.queue(folder, Settings(patch), variant)))
print(time.perf_counter() - t)
"""
FIRST_AUGMENTED = """
import sys, time
from pathlib import Path
from benchmarks.contestants import patchflow_queue
from benchmarks.data import Settings
folder, patch, every = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "every"
t = time.perf_counter()
queue = patchflow_queue.queue(folder, Settings(patch, augment="nnunet"), "thread contiguous", every=every)
next(iter(queue))
print(time.perf_counter() - t)
"""
BUILD = """
import json, shutil, sys, time
from pathlib import Path
import nibabel, numpy
from benchmarks.contestants import patchflow_queue as contestant
pf = contestant.pf
image, label, folder, layout, rounds = sys.argv[1:]
preprocess = pf.Pipeline([pf.preprocess.ZNormalize()])
pairs = []
for _ in range(int(rounds) + 1):
    t = time.perf_counter()
    for path in (image, label): numpy.asanyarray(nibabel.load(path).dataobj)
    read = time.perf_counter() - t
    subjects = contestant.subjects([(Path(image), Path(label))])
    t = time.perf_counter()
    pf.build_cache(subjects, folder, preprocess=preprocess, layout=layout, progress=False)
    pairs.append((read, time.perf_counter() - t))
    shutil.rmtree(folder)
print(json.dumps(pairs))
"""
STATS = """
import statistics, sys, time
from pathlib import Path
from benchmarks.contestants import patchflow_queue
from benchmarks.data import Settings
from patchflow.loading.stats import QueueStats
queue = patchflow_queue.queue(Path(sys.argv[1]), Settings(int(sys.argv[2])), "thread contiguous")
patches = []
for index in range(min(60, len(queue.dataset))):
    t = time.perf_counter()
    queue.dataset[index]
    patches.append(time.perf_counter() - t)
stats, rounds = QueueStats(), 20000
t = time.perf_counter()
for _ in range(rounds):
    stages = {}
    for stage in ("draw", "read", "spatial", "RandomNoise", "RandomGamma"):
        stages[stage] = stages.get(stage, 0) + time.perf_counter_ns()
    stats.add_patch(stages, 1)
print((time.perf_counter() - t) / rounds / statistics.median(patches))
"""
IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def output(code: str, *arguments: str) -> Any:
    """What a fresh interpreter prints last, a line of JSON."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True, cwd=REPOSITORY)
    return json.loads(done.stdout.splitlines()[-1])


def seconds(code: str, *arguments: str) -> float:
    """The number that a fresh interpreter prints last."""
    return float(output(code, *arguments))


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
    """Seconds from before `open_cache` to the first batch in a fresh process, torch imported and kernels compiled before."""
    folder = course.folder / f"patchflow_queue-{course.patch}"
    return statistics.median(seconds(FIRST_BATCH, str(folder), str(course.patch), variant) for _ in range(3))


def first_augmented_seconds(course: Course) -> tuple[float, float]:
    """The same under the preset `nnunet`: as it draws, and with every one of its transforms happening, so that all kernels are loaded."""
    folder = course.folder / f"patchflow_queue-{course.patch}"

    def median(how: str) -> float:
        return statistics.median(seconds(FIRST_AUGMENTED, str(folder), str(course.patch), how) for _ in range(3))

    seconds(FIRST_AUGMENTED, str(folder), str(course.patch), "every")  # compiles what no process of this machine has needed before
    return median("drawn"), median("every")


def stats_share(course: Course) -> float:
    """What counting for `queue.stats()` costs for a patch, over making one (without transforms, the cheapest there is)."""
    return seconds(STATS, str(course.folder / f"patchflow_queue-{course.patch}"), str(course.patch))


def build_ratios(course: Course, layout: str, rounds: int) -> tuple[float, float]:
    """Building the cache of one subject over reading and decompressing the same .nii.gz files with nibabel, in turn in one process.

    Returns:
        The ratio of medians once warm, and that of the first time, which pays for loading kernels and libraries too.
    """
    paths = [str(course.folder / "nifti" / "s0" / f"{kind}.nii.gz") for kind in ("image", "label")]
    target = course.folder / "built"
    shutil.rmtree(target, ignore_errors=True)
    (read, build), *warm = output(BUILD, *paths, str(target), layout, str(rounds))
    return statistics.median(pair[1] for pair in warm) / statistics.median(pair[0] for pair in warm), build / read


def clean(folder: Path) -> None:
    """Make the data folder, and empty its log."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log").write_text("")
