"""Running a benchmark as its command line runs it."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def run_benchmark(name: str, *arguments: str, log: Path | None = None) -> str:
    """What `python -m benchmarks.NAME ARGUMENTS...` prints; fails, with what it said (and with `log`), if it fails."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr + (log.read_text() if log is not None and log.exists() else "")
    return done.stdout
