"""What a process and all its descendants use: memory that the kernel cannot take back, and processor time."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path


def tree(pid: int) -> list[int]:
    """`pid` and every descendant of it that lives."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        try:
            for task in Path(f"/proc/{current}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:  # it ended meanwhile
            continue
    return found


def unreclaimable(pid: int) -> int:
    """Bytes that the process tree of `pid` holds and the kernel cannot drop.

    The sum of Pss_Anon and Pss_Shmem: a page shared by several processes of the tree counts once, and pages of files (mapped caches,
    libraries), which the kernel can drop and read again, do not count.
    """
    return sum(_of_process(each) for each in tree(pid))


def _of_process(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended meanwhile
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))


def cpu_seconds(pid: int) -> float:
    """Processor time, user and system, that the living processes of the tree of `pid` have used."""
    total = 0
    for each in tree(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


class Peak:
    """Samples the tree of `pid` every `interval` seconds for as long as the context lasts; `.bytes` is the most seen."""

    def __init__(self, pid: int, interval: float = 0.05) -> None:
        self.bytes = 0
        self._pid, self._interval, self._stop = pid, interval, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._stop.wait(self._interval):
            self.bytes = max(self.bytes, unreclaimable(self._pid))

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.bytes = max(self.bytes, unreclaimable(self._pid))


def of_torch_alone() -> int:
    """What a process holds that has imported torch and done nothing else."""
    code = "import torch, sys; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        time.sleep(0.2)
        held = unreclaimable(child.pid)
        child.stdin.close()
    return held
