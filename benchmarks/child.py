"""One contestant in a process of its own: prepares, warms up, then draws a round of batches for each line that it is sent.

python -m benchmarks.child prepare|run NAME DATA SHAPE SUBJECTS PATCH BATCH WORKERS AUGMENT. In "run", each line of stdin is a number of
seconds (a timed round) or "batches N"; each answer is a line of JSON.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contestants.registry import ALL
from benchmarks.data import CLASSES, Settings, write_subjects
from benchmarks.memory import tree


def say(**answer: object) -> None:
    print(json.dumps(answer), file=PIPE, flush=True)


def prepare(name: str, data: Path, pairs: list[tuple[Path, Path]], settings: Settings) -> Path:
    """The contestant's own data in a folder of its own, made once."""
    contestant = ALL[name]
    folder = data / f"{contestant.module}-{settings.patch}"
    if not (folder.parent / f"{folder.name}.done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        contestant.load().prepare(pairs, folder, settings)
        (folder.parent / f"{folder.name}.done").touch()
    return folder


def check(image: object, label: object, settings: Settings) -> None:
    """Every contestant hands over the same thing: image and label tensors of one batch, with or without the channel axis."""
    shapes = {(settings.batch, *channel, *(settings.patch,) * 3) for channel in ((), (1,))}
    assert tuple(image.shape) in shapes, f"image {tuple(image.shape)}"
    assert tuple(label.shape) in shapes, f"label {tuple(label.shape)}"


def draw(stream: Iterator[tuple[object, object]], seconds: float, count: int, cycle: int) -> tuple[int, float]:
    """Whole cycles of batches until both `seconds` and `count` are reached; gives batches and seconds."""
    start, drawn = time.perf_counter(), 0
    while drawn < count or time.perf_counter() - start < seconds:
        for _ in range(cycle):
            next(stream)
        drawn += cycle
    return drawn, time.perf_counter() - start


def run(name: str, folder: Path, settings: Settings) -> None:
    module = ALL[name].load()
    start = time.perf_counter()
    stream = iter(module.batches(folder, settings, ALL[name].variant))
    seen = set()
    for _ in range(module.WARM if settings.patch >= 128 else 8):  # every worker started, every buffer filled, files in the page cache
        image, label = next(stream)
        check(image, label, settings)
        seen |= set(label.unique().tolist())
    say(ready=time.perf_counter() - start, dtypes=[str(image.dtype), str(label.dtype)], classes=sorted(set(CLASSES) & seen))
    del image, label  # a training loop does not hold on to its first batches either
    for line in sys.stdin:
        word, _, number = line.strip().partition(" ")
        if word == "quit":
            break
        warming = 0
        if word == "batches":
            drawn, seconds = draw(stream, 0, int(number), module.CYCLE)
        else:  # whatever was prepared during the pause is drawn first, so that only work done while the clock runs is counted
            warming, _ = draw(stream, 0, 16 if module.CYCLE == 1 else 0, module.CYCLE)
            drawn, seconds = draw(stream, float(word), 1, module.CYCLE)
        say(patches=drawn * settings.batch, seconds=seconds, warming=warming * settings.batch)
    PIPE.flush()
    for pid in tree(os.getpid())[1:]:  # some loaders take long to take leave, and leave workers behind
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    # Answers go through a pipe of their own: packages print on stdout what they like.
    PIPE = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    task, name, data, shape, subjects, *sizes, augment = sys.argv[1:]
    settings = Settings(*(int(size) for size in sizes), augment)
    i, j, k = (int(n) for n in shape.split("x"))
    pairs = write_subjects(Path(data) / "nifti", (i, j, k), int(subjects))
    folder = prepare(name, Path(data), pairs, settings)
    if task == "run":
        run(name, folder, settings)
