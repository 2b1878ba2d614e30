"""Two contestants at a time, in processes of their own, one paused while the other runs."""

import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contestants.registry import ALL
from benchmarks.memory import Peak, cpu_seconds
from benchmarks.process import REPOSITORY, Child


@dataclass(frozen=True)
class Course:
    """What is run: the data folder, the volumes, and the sizes of the work, as `benchmarks.child` takes them."""

    folder: Path
    shape: str
    subjects: int
    patch: int
    batch: int = 2
    workers: int = 2
    rounds: int = 5
    seconds: float = 3.0
    augment: str = ""

    def arguments(self, task: str, name: str) -> list[str]:
        numbers = (self.subjects, self.patch, self.batch, self.workers)
        return [task, name, str(self.folder), self.shape, *map(str, numbers), self.augment]


class Runner(Child):
    """A contestant that is ready to draw rounds; it and its workers are stopped (SIGSTOP) between rounds."""

    def __init__(self, course: Course, name: str) -> None:
        self.name, self._course = name, course
        self.cpu_ms: list[float] = []
        command = [sys.executable, "-m", "benchmarks.child", *course.arguments("prepare", name)]
        subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
        super().__init__("benchmarks.child", course.arguments("run", name), course.folder / "log", warm_up="batches 60")

    def round(self) -> float:
        """Patches per second of one timed round; `cpu_ms` gets its processor milliseconds per patch, those of warming up included."""
        before = cpu_seconds(self.pid)
        answer = self.ask(str(self._course.seconds))
        self.cpu_ms.append(1000 * (cpu_seconds(self.pid) - before) / (answer["patches"] + answer["warming"]))
        return answer["patches"] / answer["seconds"]

    def draw(self, batches: int) -> int:
        """Draw batches; gives the peak of memory meanwhile."""
        with Peak(self.pid) as peak:
            self.ask(f"batches {batches}")
        return peak.bytes


@dataclass
class Result:
    """One row: rates of the reference and of the contestant, round by round, and the contestant's peak of memory."""

    name: str
    reference: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    cpu_ms: float = 0.0
    problem: str = ""

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def ratio(self) -> float:
        """How many times the contestant's rate the reference reaches: the ratio of medians."""
        return statistics.median(self.reference) / self.rate


def race(course: Course, reference: Runner, name: str) -> Result:
    """Rounds of the reference and of `name` in turn: A B A B."""
    result = Result(name)
    missing = ALL[name].missing()
    if missing:
        result.problem = f"not installed: {', '.join(missing)} (pip install -c constraints.txt -e '.[bench]')"
        return result
    if course.augment and not ALL[name].augments:
        result.problem = "has no transforms of its own"
        return result
    runner = Runner(course, name)
    try:
        for _ in range(course.rounds):
            result.reference.append(reference.round())
            result.rates.append(runner.round())
        result.peak_bytes, result.cpu_ms = runner.peak_bytes, statistics.median(runner.cpu_ms)
    finally:
        runner.close()
    return result
