"""Reading in a child process, where a library that parses a file may crash, hang or ask for any memory without harm.

pydicom, its decoders and HDF5 meet the bytes of foreign files only there. The child (`decoder.py`) is a program of its own, which imports
nothing of patchflow, starts in a fraction of a second, and serves one request after another; one for each thread that reads at a time.
Its processor time and memory are limited anew for each request. It ends with its parent, or after a minute without work.
"""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from patchflow.errors import ImageFileError

_PROGRAM = Path(__file__).with_name("decoder.py")
_PATIENCE = 60.0  # a file system may stall; processor time is limited more closely
_SECONDS, _BYTES_PER_SECOND = 3, 2 << 20
_SLACK = 384 << 20  # of address space: what allocators and libraries reserve, mostly without using it
_PIECE = 1 << 20


class _Died(Exception):  # noqa: N818, it never leaves this file
    """The child ended, or gave no sign of life."""


class _Ended(_Died):
    """The child closed its end of a pipe."""


class _Left(_Died):
    """The child ended before it said anything."""


def ask(path: Path, task: str, justified: int, into: memoryview | None = None, **more: Any) -> dict[str, Any]:
    """Have a child read something of a file.

    Args:
        path: the file.
        task: what of it: a name in `decoder.py`.
        justified: bytes that the child may take for it, as far as the file's size justifies them; also bounds its processor time.
        into: takes the bytes that the child sends beside its answer; they must be as many.
        **more: what the task needs besides, as plain JSON values.

    Returns:
        The child's answer.

    Raises:
        ImageFileError: naming the file, when it cannot be read, or the child crashed, was killed, or took too long.
    """
    seconds = _SECONDS + justified // _BYTES_PER_SECOND
    request = {"task": task, "path": os.path.abspath(path), "memory": justified + _SLACK, "seconds": seconds, **more}
    child, is_new = _take()
    while True:
        try:
            answer = child.ask(request, into, _PATIENCE + seconds)
            break
        except _Died as death:
            code = child.end()
            if not isinstance(death, _Left) or code != 0 or is_new:
                raise ImageFileError(f"{path} cannot be read: {_cause(code, seconds, death)}; fetch or write it again") from None
            child, is_new = _Child(), True  # the other had been idle for a minute, and left as the request came
        except BaseException:
            child.end()  # in the middle of an answer
            raise
    _give_back(child)
    if "error" in answer:
        raise ImageFileError(f"{path} cannot be read: {answer['error']}")
    return answer


def _cause(code: int | None, seconds: int, death: _Died) -> str:
    if code == -signal.SIGXCPU:
        return f"its decoder took more than {seconds} s of processor time"
    if code is not None and code < 0:
        return f"its decoder crashed ({signal.Signals(-code).name})"
    return f"its decoder {death}"


class _Child:
    def __init__(self) -> None:
        quiet = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=quiet,
        )
        self._in, self._out = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        self._is_greeted = False

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: dict[str, Any], into: memoryview | None, patience: float) -> dict[str, Any]:
        deadline = time.monotonic() + patience
        try:
            if not self._is_greeted:
                self._send({"path": sys.path})
                self._is_greeted = True
            self._send(request)
            size = int.from_bytes(self._receive(bytearray(8), deadline), "little")
        except _Ended as death:
            raise _Left(f"{death}") from None
        answer: dict[str, Any] = json.loads(bytes(self._receive(bytearray(size), deadline)))
        count = answer.pop("bytes", 0)
        if count and (into is None or len(into) != count):
            raise _Died("sent what was not asked for")
        if into is not None and count:
            self._receive(into, deadline)
        return answer

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()  # shorter than what a pipe holds, so that writing does not wait
        try:
            rest = memoryview(len(data).to_bytes(8, "little") + data)
            while rest:
                rest = rest[self._in.write(rest) or 0 :]
        except OSError:
            raise _Ended("ended unexpectedly") from None

    def _receive(self, target: bytearray | memoryview, deadline: float) -> bytearray | memoryview:
        rest = memoryview(target)
        poll = select.poll()
        poll.register(self._out, select.POLLIN | select.POLLHUP)
        while rest:
            if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                raise _Died("gave no answer")
            count = self._out.readinto(rest[:_PIECE])  # type: ignore[attr-defined]
            if not count:
                raise _Ended("ended unexpectedly")
            rest = rest[count:]
        return target

    def end(self) -> int | None:
        """Stop it, if it has not ended by itself, and return its exit code: negative for a signal; None where it had to be stopped."""
        code = None
        with suppress(OSError):
            self._in.close()
        try:
            code = self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out.close()
        return code

    def forget(self) -> None:
        """In a process that was forked from the child's parent: leave the child to the parent."""
        self._in.close()
        self._out.close()
        self._process.returncode = 0


_lock = threading.Lock()
_idle: list[_Child] = []


def _take() -> tuple[_Child, bool]:
    """A child, and whether it is a new one."""
    while True:
        with _lock:
            child = _idle.pop() if _idle else None
        if child is None:
            return _Child(), True
        if child.alive:
            return child, False
        child.end()


def _give_back(child: _Child) -> None:
    with _lock:
        _idle.append(child)


def _end_all() -> None:
    while _idle:
        _idle.pop().end()


def _forget_all() -> None:
    global _lock
    _lock = threading.Lock()  # whoever held it is not in this process
    while _idle:
        _idle.pop().forget()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
