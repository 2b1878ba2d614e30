"""A child process that answers lines with lines of JSON, and is stopped (SIGSTOP) while others run."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.memory import Peak

REPOSITORY = Path(__file__).parents[1]


class Child:
    """`python -m MODULE ARGUMENTS...`, which says a line of JSON when it is ready and one for each line that it is sent.

    Args:
        module: what is run.
        arguments: its arguments.
        log: where its standard error goes.
        warm_up: the first line that it is sent, if any.

    Attributes:
        ready: its first answer.
        peak_bytes: the most memory that it and whatever it started held until it was ready and warm.
    """

    def __init__(self, module: str, arguments: Sequence[str], log: Path, warm_up: str = "") -> None:
        self._log = log
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=REPOSITORY,
                start_new_session=True,
            )
        try:
            with Peak(self.pid) as peak:
                self.ready = self._answer()
                if warm_up:
                    self._send(warm_up)
                    self._answer()
            self.peak_bytes = peak.bytes
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    @property
    def pid(self) -> int:
        """Of the process; it leads a session of its own, with whatever it starts."""
        return self._process.pid

    def ask(self, line: str) -> dict[str, Any]:
        """Let it run until it has answered."""
        self._signal(signal.SIGCONT)
        self._send(line)
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        """End the process and whatever it started."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contestant ended; its last words, from {self._log}:\n{self._log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:  # it ended already
            return
